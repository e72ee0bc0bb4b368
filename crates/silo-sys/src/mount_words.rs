//! mount(2) by mount(8)'s words: `type`, `device` and a list of options; and which mounts there are at a place.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::mount::detach;

/// Options, sorted out.
#[derive(Debug, PartialEq)]
struct Sorted {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    /// What the file system itself is told.
    data: String,
}

/// Words that are flags, and whether they are set or cleared by it (mount(8), "filesystem-independent mount options").
fn flag(word: &str) -> Option<(MountFlags, bool)> {
    let none = MountFlags::empty();
    Some(match word {
        "defaults" => (none, true),
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND.union(MountFlags::REC), true),
        "mand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
        "nomand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) if !rest.is_empty() => (rest, MountPropagationFlags::REC),
        _ => (word, MountPropagationFlags::empty()),
    };
    let kind = match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

fn sort(options: &str) -> Sorted {
    let mut sorted = Sorted {
        flags: MountFlags::empty(),
        propagation: MountPropagationFlags::empty(),
        data: String::new(),
    };
    for word in options.split(',').filter(|w| !w.is_empty()) {
        match (flag(word), propagation(word)) {
            (Some((bits, true)), _) => sorted.flags |= bits,
            (Some((bits, false)), _) => sorted.flags &= !bits,
            (None, Some(kind)) => sorted.propagation |= kind,
            (None, None) => {
                if !sorted.data.is_empty() {
                    sorted.data.push(',');
                }
                sorted.data.push_str(word);
            }
        }
    }
    sorted
}

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("mount {device}:{}{}{}: {}", .target.display(), shown("flags: ", .flags), shown("data: ", .data), reason(.source))]
pub struct MountFailure {
    device: String,
    target: PathBuf,
    flags: String,
    data: String,
    source: io::Error,
}

fn shown(label: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(", {label}{value}") }
}

/// What an error of the kernel is called in the C library, in lower case and without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Mounts `device` as `kind` at `target`, with options as mount(8) takes them (`ro,size=1m`, `bind`, `addr=…`).
pub fn mount(device: &str, target: &Path, kind: &str, options: &str) -> Result<(), MountFailure> {
    let sorted = sort(options);
    let bits = sorted.flags.bits();
    let failure = |source: io::Error| MountFailure {
        device: device.to_owned(),
        target: target.to_owned(),
        flags: if bits == 0 { String::new() } else { format!("0x{bits:x}") },
        data: sorted.data.clone(),
        source,
    };
    let data = CString::new(sorted.data.clone()).map_err(|e| failure(e.into()))?;
    rustix::mount::mount(device, target, kind, sorted.flags, data.as_c_str())
        .map_err(|e| failure(e.into()))?;
    let undo = |e: rustix::io::Errno| {
        let _ = detach(target);
        failure(e.into())
    };
    if !sorted.propagation.is_empty() {
        rustix::mount::mount_change(target, sorted.propagation).map_err(undo)?;
    }
    // What is bound has the source's attributes until it is told otherwise.
    let own = sorted.flags.difference(MountFlags::BIND | MountFlags::REC);
    if sorted.flags.contains(MountFlags::BIND) && !own.is_empty() {
        rustix::mount::mount_remount(target, MountFlags::BIND | own, c"").map_err(undo)?;
    }
    Ok(())
}

/// The places below `dir` at which something is mounted in the calling thread's namespace, in the order of mounting.
pub fn mounted_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(places(&text).into_iter().filter(|at| at.starts_with(dir) && at != dir).collect())
}

/// Takes away all that is mounted below `dir`; what is in use goes when it no longer is.
pub fn detach_below(dir: &Path) -> io::Result<()> {
    mounted_below(dir)?.iter().rev().try_for_each(|at| detach(at))
}

/// The mount points of a mountinfo (proc(5)): the fifth field, with some bytes as three octal digits.
fn places(text: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let plain = |field: &[u8]| {
        let mut bytes = Vec::with_capacity(field.len());
        let mut rest = field;
        while let Some((&first, tail)) = rest.split_first() {
            let digits =
                tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
            match digits {
                Some(digits) => {
                    bytes.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                    rest = &tail[3..];
                }
                None => {
                    bytes.push(first);
                    rest = tail;
                }
            }
        }
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    };
    let lines = text.split(|b| *b == b'\n');
    lines.filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::in_private_namespace;

    #[test]
    fn words_are_flags_propagation_or_data() {
        let sorted = sort("ro,nosuid,rw,bind,rslave,addr=10.0.0.1,nolock,size=100m");
        assert_eq!(sorted.flags, MountFlags::NOSUID | MountFlags::BIND);
        assert_eq!(sorted.propagation, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
        assert_eq!(sorted.data, "addr=10.0.0.1,nolock,size=100m");
        assert_eq!(sort("").data, "");
    }

    #[test]
    fn a_failure_is_told_as_mount_tells_it() {
        let said = mount("/nowhere", Path::new("/proc"), "none", "bind,x=1").unwrap_err().to_string();
        assert_eq!(said, "mount /nowhere:/proc, flags: 0x1000, data: x=1: no such file or directory");
        let said = mount(":/x", Path::new("/proc"), "nosuchfs", "").unwrap_err().to_string();
        assert_eq!(said, "mount :/x:/proc: no such device");
    }

    #[test]
    fn what_is_mounted_below_a_directory_is_found_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (source, inside, beside) = (dir.path().join("s"), dir.path().join("a b/c"), dir.path().join("a"));
        for made in [&source, &inside, &beside] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(source.join("f"), "1").unwrap();
        let parent = inside.parent().unwrap().to_owned();
        in_private_namespace(move || {
            let failed = |e: MountFailure| io::Error::other(e.to_string());
            mount(&source.display().to_string(), &inside, "none", "bind,ro").map_err(failed)?;
            mount("tmpfs", &beside, "tmpfs", "size=64k,uid=7").map_err(failed)?;
            assert_eq!(mounted_below(&parent)?, std::slice::from_ref(&inside));
            assert!(inside.join("f").exists());
            let refused = std::fs::write(inside.join("g"), "2").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&beside)?), 7);
            detach_below(&parent)?;
            assert!(!inside.join("f").exists() && mounted_below(&parent)?.is_empty());
            assert_eq!(mounted_below(parent.parent().unwrap_or(Path::new("/")))?, [beside]);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let text = b"36 35 98:0 / /a\\040b\\134c rw,noatime master:1 - ext4 /dev/root rw\nshort\n";
        assert_eq!(places(text), [Path::new("/a b\\c")]);
    }
}
