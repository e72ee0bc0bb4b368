//! Copies a tree out of a chain of unpacked layers: what a new volume begins with.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::merge::{self, Seen};
use crate::place;
use crate::resolve::resolve;

/// What a chain of unpacked layers shows at `inside`, and how that path is spelled there without links; `None`: nothing.
/// `windows`: names are found in any spelling. The other arguments are those of [`copy_up`].
pub fn shown_at(
    layers: &[PathBuf],
    files: &str,
    inside: &Path,
    windows: bool,
) -> io::Result<Option<(PathBuf, FileType)>> {
    let roots: Vec<PathBuf> = layers.iter().map(|l| l.join(files)).filter(|l| l.is_dir()).collect();
    if roots.is_empty() {
        return Ok(None);
    }
    match resolve(&roots, inside, windows) {
        // A file on the way: nothing shows below it.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
        Ok(found) => Ok(found.seen.map(|seen| (found.path, seen.kind()))),
    }
}

/// Copies the file or tree that a chain of unpacked layers shows at `inside` into the existing directory `to`.
///
/// `layers` are uppermost first; `files` is the sub-directory of each that holds the tree. Owners, modes, times,
/// attributes and hard links are kept; a tree's own owner, mode and times become those of `to`. Links on the way to
/// `inside` are resolved within the layers. If the layers show nothing there, nothing happens.
pub fn copy_up(layers: &[PathBuf], files: &str, inside: &Path, to: &Path) -> io::Result<()> {
    let roots: Vec<PathBuf> = layers.iter().map(|l| l.join(files)).filter(|l| l.is_dir()).collect();
    let seen = match resolve(&roots, inside, false) {
        // A file on the way: nothing shows below it.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTDIR) => return Ok(()),
        other => other?.seen,
    };
    let Some(seen) = seen else { return Ok(()) };
    let mut links = HashMap::new();
    if seen.kind() != FileType::Directory {
        let name = inside.file_name().unwrap_or_default();
        return copy(&seen, &to.join(name), &mut links);
    }
    children(&seen, to, &mut links)?;
    attributes(&seen, to)
}

/// Where the files with several names have been copied to, by device and inode.
pub(crate) type Links = HashMap<(u64, u64), PathBuf>;

fn children(dir: &Seen, to: &Path, links: &mut Links) -> io::Result<()> {
    for name in merge::names(&dir.paths)? {
        if let Some(seen) = merge::lookup(&dir.paths, &name)? {
            copy(&seen, &to.join(&name), links)?;
        }
    }
    Ok(())
}

/// Copies a file; another copy of it in `links` is linked to instead.
pub(crate) fn copy_linked(seen: &Seen, to: &Path, links: &mut Links) -> io::Result<()> {
    let key = (seen.stat.st_dev, seen.stat.st_ino);
    if let Some(first) = links.get(&key) {
        return std::fs::hard_link(first, to);
    }
    copy(seen, to, links)?;
    links.insert(key, to.to_owned());
    Ok(())
}

/// Copies what is no directory; a whiteout too.
pub(crate) fn copy_alone(seen: &Seen, to: &Path, links: &mut Links) -> io::Result<()> {
    copy(seen, to, links)
}

fn copy(seen: &Seen, to: &Path, links: &mut Links) -> io::Result<()> {
    let kind = seen.kind();
    if kind != FileType::Directory && seen.stat.st_nlink > 1 {
        let key = (seen.stat.st_dev, seen.stat.st_ino);
        if let Some(first) = links.get(&key) {
            return std::fs::hard_link(first, to);
        }
        links.insert(key, to.to_owned());
    }
    match kind {
        FileType::Directory => {
            match std::fs::create_dir(to) {
                Err(e)
                    if e.kind() == io::ErrorKind::AlreadyExists
                        && std::fs::symlink_metadata(to)?.is_dir() => {}
                other => other?,
            }
            children(seen, to, links)?;
        }
        FileType::RegularFile => {
            let mut from = std::fs::File::open(seen.path())?;
            // `create_new`: whatever is there already is not followed and not overwritten.
            io::copy(&mut from, &mut std::fs::File::create_new(to)?)?;
        }
        FileType::Symlink => std::os::unix::fs::symlink(std::fs::read_link(seen.path())?, to)?,
        FileType::Socket | FileType::Unknown => return Ok(()),
        other => fs::mknodat(fs::CWD, to, other, Mode::from_raw_mode(0o600), seen.stat.st_rdev)?,
    }
    attributes(seen, to)
}

/// Gives a copy its owner, mode, attributes and times.
pub(crate) fn attributes(seen: &Seen, to: &Path) -> io::Result<()> {
    let stat = &seen.stat;
    place::chown(fs::CWD, to.as_os_str(), (stat.st_uid, stat.st_gid))?;
    if seen.kind() != FileType::Symlink {
        fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    for name in xattr::list(seen.path())? {
        if name.as_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(seen.path(), &name)? {
            match xattr::set(to, &name, &value) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTSUP) => {}
                other => other?,
            }
        }
    }
    let times = place::timestamps((stat.st_mtime, stat.st_mtime_nsec as i64));
    fs::utimensat(fs::CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
