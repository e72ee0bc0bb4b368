//! Disk images: read-only ones of layers (erofs), made once for each list of layers and shared by all machines; and the
//! scratch, a container's writable one (ext4, sparse).
//!
//! Every image has the same virtual size, [`SIZE`], whatever is in it: a template's device never sees it change.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, OFlags};
use sha2::{Digest, Sha256};
use silo_sys::mount::{self, Overlay};

/// Virtual size of every disk, bytes.
pub(crate) const SIZE: u64 = 1 << 40;
/// Size of a container's writable files where nobody asks for another: Docker's for Windows, bytes.
pub(crate) const SCRATCH: u64 = 20 << 30;
/// Bytes of a block of a scratch.
const BLOCK: u64 = 4096;
/// How often one is formatted until it has room for what was asked for, exactly.
const FITTINGS: u32 = 6;

fn named(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_string();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

fn tool(program: &str, package: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<()> {
    let path = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|d| Path::new(d).join(program));
    let path = path.iter().find(|p| p.exists()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{program} is not there: install the package {package}"),
        )
    })?;
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    Err(io::Error::other(format!("{program}: {}: {last}", output.status)))
}

/// Holds others off until it is dropped.
fn lock(dir: &Path, name: &str) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(dir.join(format!(".{name}.lock")))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// The image of these directories one over the other, uppermost first, made if it is not there. They are named by their
/// content and never change: so does it.
pub(crate) fn image(dir: &Path, layers: &[PathBuf]) -> io::Result<PathBuf> {
    let mut hash = Sha256::new();
    for layer in layers {
        hash.update(layer.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    let key: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    let path = dir.join(format!("{key}.erofs"));
    let record = dir.join(format!("{key}.made"));
    let untouched = || std::fs::read_to_string(&record).is_ok_and(|file| is_as_it_was(&file));
    if untouched() {
        return Ok(path);
    }
    let _turn = lock(dir, &key)?;
    if untouched() {
        return Ok(path);
    }
    let fresh = dir.join(format!(".{key}.erofs"));
    let stage = dir.join(format!(".{key}"));
    std::fs::create_dir_all(&stage)?;
    let made = {
        let (layers, stage, fresh) = (layers.to_vec(), stage.clone(), fresh.clone());
        mount::in_private_namespace(move || {
            merged(&layers, &stage)?;
            let arguments = ["--quiet", "-x1"].map(std::ffi::OsStr::new);
            let paths = [fresh.as_os_str(), stage.as_os_str()];
            let _ = std::fs::remove_file(&fresh);
            tool("mkfs.erofs", "erofs-utils", &[arguments.as_slice(), &paths].concat())
        })
    };
    let _ = std::fs::remove_dir(&stage);
    made.map_err(named("making a disk of the image's layers"))?;
    let file = File::options().write(true).open(&fresh)?;
    file.sync_all()?;
    file.set_len(SIZE)?;
    std::fs::rename(&fresh, &path)?;
    // One that something else has written to, or cut off, is made anew.
    silo_sys::atomic_file::write_with(&record, as_it_is(&path)?.as_bytes(), 0o644, false)?;
    // Whose layers are gone is found by this list.
    let list: String = layers.iter().map(|l| format!("{}\n", l.display())).collect();
    silo_sys::atomic_file::write_with(&dir.join(format!("{key}.layers")), list.as_bytes(), 0o644, false)?;
    Ok(path)
}

/// A file with what tells it from one that was made anew, or written to since. What changes beneath its file system, on a
/// medium that fails, is not seen.
pub(crate) fn as_it_is(path: &Path) -> io::Result<String> {
    let found = std::fs::metadata(path).map_err(named(path.display()))?;
    Ok(format!("{} {}.{} {}", found.ino(), found.mtime(), found.mtime_nsec(), path.display()))
}

/// Whether that has not happened.
pub(crate) fn is_as_it_was(file: &str) -> bool {
    let path = file.splitn(3, ' ').nth(2).unwrap_or_default();
    as_it_is(Path::new(path)).is_ok_and(|now| now == file)
}

/// A crash leaves an image whole or absent; one that something else has cut off is made anew.
fn whole(path: &Path) -> bool {
    let magic = || -> io::Result<[u8; 4]> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(1024))?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        Ok(magic)
    };
    std::fs::metadata(path).is_ok_and(|m| m.len() == SIZE)
        && magic().is_ok_and(|m| m == [0xe2, 0xe1, 0xf5, 0xe0])
}

fn merged(layers: &[PathBuf], stage: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match layers {
        [] => Err(io::Error::new(io::ErrorKind::InvalidInput, "a disk of no layers")),
        [one] => {
            let at = rustix::fs::open(stage, flags, rustix::fs::Mode::empty())?;
            mount::attach(mount::clone_tree(one, false)?, at)
        }
        many => Overlay { lower: many.to_vec(), ..Default::default() }.mount(stage),
    }
}

/// Removes the images of layers that are not there any more, and what a crash has left half-made.
pub(crate) fn sweep(dir: &Path) {
    let remove = |path: PathBuf| std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(key) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".lock")) {
            // Its maker has it locked.
            let free = File::open(entry.path())
                .is_ok_and(|f| rustix::fs::flock(&f, FlockOperation::NonBlockingLockExclusive).is_ok());
            if free {
                for left in [format!(".{key}"), format!(".{key}.erofs")] {
                    let _ = remove(dir.join(left));
                }
            }
        }
        let Some(key) = name.strip_suffix(".layers") else { continue };
        let list = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if list.lines().any(|layer| !Path::new(layer).is_dir()) {
            for gone in [format!("{key}.erofs"), format!("{key}.made"), format!(".{key}.lock"), name.clone()]
            {
                let _ = remove(dir.join(gone));
            }
        }
    }
}

/// A disk with nothing on it, for the places of a machine that no image takes.
pub(crate) fn empty(dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join("empty");
    if std::fs::metadata(&path).is_ok_and(|m| m.len() == SIZE) {
        return Ok(path);
    }
    std::fs::create_dir_all(dir)?;
    let file = tempfile::NamedTempFile::new_in(dir)?;
    file.as_file().set_len(SIZE)?;
    file.persist(&path).map_err(|e| e.error)?;
    Ok(path)
}

/// A read-only disk with one program on it, made once, for machines that rehearse.
pub(crate) fn rehearsal(dir: &Path, program: &Path) -> io::Result<PathBuf> {
    let found = std::fs::metadata(program).map_err(named(program.display()))?;
    let name = format!("rehearsal-{}-{}.{}", found.len(), found.mtime(), found.mtime_nsec());
    let path = dir.join(&name);
    if whole(&path) {
        return Ok(path);
    }
    let _turn = lock(dir, "rehearsal")?;
    if whole(&path) {
        return Ok(path);
    }
    for old in std::fs::read_dir(dir)?.flatten() {
        if old.file_name().to_string_lossy().starts_with("rehearsal-") {
            let _ = std::fs::remove_file(old.path());
        }
    }
    let stage = tempfile::tempdir_in(dir)?;
    for below in ["proc", "dev", "sys", "etc"] {
        std::fs::create_dir(stage.path().join(below))?;
    }
    std::fs::copy(program, stage.path().join("program"))?;
    let fresh = dir.join(format!(".{name}"));
    let _ = std::fs::remove_file(&fresh);
    let arguments = ["--quiet", "-x1"].map(std::ffi::OsStr::new);
    let paths = [fresh.as_os_str(), stage.path().as_os_str()];
    tool("mkfs.erofs", "erofs-utils", &[arguments.as_slice(), &paths].concat())?;
    File::options().write(true).open(&fresh)?.set_len(SIZE)?;
    std::fs::rename(&fresh, &path)?;
    Ok(path)
}

/// A scratch that is nobody's and goes with its descriptor.
pub(crate) fn nobodys(dir: &Path) -> io::Result<File> {
    let formatted = formatted(dir, SCRATCH)?;
    let file = tempfile::tempfile_in(dir)?;
    copy_into(&formatted, &file)?;
    Ok(file)
}

/// Makes a container's scratch of so many bytes, if it has none yet.
pub(crate) fn scratch(dir: &Path, path: &Path, size: u64) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if !(64 << 20..=SIZE).contains(&size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("storage option size: {size} bytes, from 64 MiB to 1 TiB are possible"),
        ));
    }
    copy(&formatted(dir, size)?, path)
}

/// Makes a scratch of another's content, whole or not at all.
pub(crate) fn copy(from: &Path, path: &Path) -> io::Result<()> {
    let fresh = path.with_extension("fresh");
    if let Err(e) = copy_sparse(from, &fresh) {
        let _ = std::fs::remove_file(&fresh);
        return Err(named("making the scratch disk")(e));
    }
    std::fs::rename(&fresh, path)
}

/// Bytes on disk of a container's scratch, beyond those of one with nothing in it: its files, and as much of the journal
/// (8 MiB) as was ever written. There is none yet: 0.
pub(crate) fn used(dir: &Path, scratch: &Path, size: u64) -> u64 {
    let allocated = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.blocks().saturating_mul(512));
    allocated(scratch).saturating_sub(allocated(&dir.join(format_name(size))))
}

/// Blocks that files can have on a new file system (ext4's on-disk format, `struct ext4_super_block`): those that are free,
/// but for what the kernel keeps to be able to map what it has promised (a fiftieth, at most 4,096).
fn available(image: &Path) -> io::Result<u64> {
    let mut head = [0; 1024];
    let mut file = File::open(image)?;
    file.seek(SeekFrom::Start(1024))?;
    file.read_exact(&mut head)?;
    let word =
        |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (blocks, free) = (word(0x4) | word(0x150) << 32, word(0xc) | word(0x158) << 32);
    Ok(free.saturating_sub((blocks / 50).min(4096)))
}

fn format_name(size: u64) -> String {
    format!("scratch2-{size}")
}

/// A file system of that size with nothing in it, made once.
fn formatted(dir: &Path, size: u64) -> io::Result<PathBuf> {
    let name = format_name(size);
    let path = dir.join(&name);
    if path.exists() {
        return Ok(path);
    }
    let _turn = lock(dir, &name)?;
    if path.exists() {
        return Ok(path);
    }
    let fresh = dir.join(format!(".{name}"));
    // What the file system needs for itself comes on top of what was asked for, and is known when it is made.
    let wanted = size / BLOCK;
    let mut blocks = wanted;
    for _ in 0..FITTINGS {
        let _ = std::fs::remove_file(&fresh);
        File::create(&fresh)?.set_len(blocks * BLOCK)?;
        // No inode tables written, a small journal, no blocks kept for root.
        let arguments = [
            "-q",
            "-F",
            "-m0",
            "-b4096",
            "-i16384",
            "-Jsize=8",
            "-Elazy_itable_init=1,nodiscard",
            "-Ometadata_csum_seed",
        ];
        let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsStr::new).collect();
        arguments.push(fresh.as_os_str());
        tool("mkfs.ext4", "e2fsprogs", &arguments)?;
        let there = available(&fresh)?;
        if there == wanted {
            break;
        }
        blocks = (blocks + wanted).saturating_sub(there).min(SIZE / BLOCK);
    }
    File::options().write(true).open(&fresh)?.set_len(SIZE)?;
    // The formatter reserves the journal's room, which no copy has: kept is what each scratch begins with.
    let kept = dir.join(format!(".{name}.copy"));
    copy_sparse(&fresh, &kept)?;
    std::fs::remove_file(&fresh)?;
    std::fs::rename(&kept, &path)?;
    Ok(path)
}

/// Copies what is not a hole.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    copy_into(from, &File::create(to)?)
}

fn copy_into(from: &Path, mut to: &File) -> io::Result<()> {
    let from = File::open(from)?;
    let end = from.metadata()?.size();
    to.set_len(end)?;
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(at)) {
        let stop = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(start))?;
        (&from).seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut (&from).take(stop - start), &mut to)?;
        at = stop;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_is_sparse_and_of_the_one_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch.ext4");
        scratch(dir.path(), &path, SCRATCH).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.len(), SIZE);
        assert!(found.blocks() * 512 < 32 << 20, "{} bytes", found.blocks() * 512);
        assert_eq!(used(dir.path(), &path, SCRATCH), 0);
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(8 << 30)).unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert!(used(dir.path(), &path, SCRATCH) >= 1 << 20);
        assert_eq!(used(dir.path(), &dir.path().join("none"), SCRATCH), 0);
        assert!(
            scratch(dir.path(), &dir.path().join("other"), 1).unwrap_err().to_string().contains("64 MiB")
        );
    }

    #[test]
    fn an_image_is_made_once_and_made_anew_when_something_else_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("file"), "content").unwrap();
        let disks = dir.path().join("disks");
        let first = image(&disks, std::slice::from_ref(&layer)).unwrap();
        let made = std::fs::metadata(&first).unwrap();
        assert_eq!(image(&disks, std::slice::from_ref(&layer)).unwrap(), first);
        assert_eq!(std::fs::metadata(&first).unwrap().ino(), made.ino());
        let whole = std::fs::read(layer.join("file")).unwrap();
        let harms: [fn(&File); 2] = [
            |file| file.set_len(100).unwrap(),
            // One byte of what is behind the head.
            |file| std::os::unix::fs::FileExt::write_all_at(file, b"x", 2000).unwrap(),
        ];
        for harm in harms {
            harm(&File::options().write(true).open(&first).unwrap());
            image(&disks, std::slice::from_ref(&layer)).unwrap();
            let mut made = Vec::new();
            File::open(&first).unwrap().take(1 << 20).read_to_end(&mut made).unwrap();
            assert_eq!(std::fs::metadata(&first).unwrap().len(), SIZE);
            assert!(made.windows(whole.len()).any(|w| w == whole) && made.get(2000) != Some(&b'x'));
        }
        std::fs::remove_dir_all(&layer).unwrap();
        sweep(&disks);
        assert!(!first.exists());
    }
}
