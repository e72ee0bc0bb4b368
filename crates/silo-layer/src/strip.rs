//! Takes out of an overlay upper directory what was made only to be mounted on.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_sys::beneath;

use crate::{LayerError, merge};

/// Removes empty files and empty directories at `paths` (absolute), and empty directories above those, that none of the
/// layers below (uppermost first) has. Links are not followed.
pub fn strip_mount_points<'p>(
    upper: &Path,
    lower: &[PathBuf],
    paths: impl IntoIterator<Item = &'p Path>,
) -> Result<(), LayerError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match fs::open(upper, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(|e| LayerError::io("opening", upper, e))?,
    };
    let mut paths: Vec<&Path> = paths.into_iter().collect();
    // What is inside comes first.
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in paths {
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        for depth in (1..=names.len()).rev() {
            let failed = |e: std::io::Error| LayerError::io("removing", path, e);
            if is_below(lower, &names[..depth]).map_err(failed)? || !remove(&root, &names[..depth])? {
                break;
            }
        }
    }
    Ok(())
}

fn is_below(lower: &[PathBuf], names: &[&OsStr]) -> std::io::Result<bool> {
    let mut dirs = lower.to_vec();
    for name in names {
        match merge::lookup(&dirs, name)? {
            None => return Ok(false),
            Some(seen) => dirs = seen.paths,
        }
    }
    Ok(true)
}

/// Whether there is nothing (any more).
fn remove(root: &OwnedFd, names: &[&OsStr]) -> Result<bool, LayerError> {
    let path: PathBuf = names.iter().collect();
    let failed = |e: Errno| LayerError::io("removing", &path, e);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Ok(false) };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let parent = match beneath::open_no_links(root, parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        // A link, or no directory: not ours.
        Err(_) => return Ok(false),
    };
    let stat = match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(true),
        other => other.map_err(failed)?,
    };
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(false),
    };
    match fs::unlinkat(&parent, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mounted_on_goes_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        let make = |path: &Path| std::fs::create_dir_all(path).unwrap();
        make(&lower.join("etc"));
        std::fs::write(lower.join("etc/hosts"), "").unwrap();
        for path in ["cache/deep", "etc", "kept/here", "proc"] {
            make(&upper.join(path));
        }
        std::fs::write(upper.join("etc/hosts"), "").unwrap();
        std::fs::write(upper.join("etc/hostname"), "").unwrap();
        std::fs::write(upper.join("kept/file"), "x").unwrap();
        std::os::unix::fs::symlink("kept", upper.join("link")).unwrap();
        let paths =
            ["/cache/deep", "/etc/hosts", "/etc/hostname", "/kept/here", "/kept/file", "/proc", "/link/here"];
        strip_mount_points(&upper, &[lower], paths.map(Path::new)).unwrap();
        let left = |path: &str| upper.join(path).exists();
        assert!(!left("cache") && !left("etc/hostname") && !left("proc") && !left("kept/here"));
        assert!(left("etc/hosts") && left("kept/file"));
    }
}
