//! Looks at one path of a tree that somebody else may be changing: `docker cp` asks before it copies.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use silo_sys::beneath;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Bytes.
    pub size: u64,
    /// `st_mode`.
    pub mode: u32,
    /// Last change: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a symbolic link as it is written there, what is no UTF-8 in it replaced.
    pub link: Option<PathBuf>,
}

/// Looks at `path` inside `root`. The path's parents are followed inside of it; the last name is looked at itself, unless it
/// is `.`.
pub fn look(root: BorrowedFd<'_>, path: &Path) -> io::Result<Found> {
    let bytes = path.as_os_str().as_bytes();
    let directory = bytes.ends_with(b"/.") || bytes.ends_with(b"/");
    let fd = match path.file_name().filter(|_| !directory) {
        Some(name) => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let parent =
                beneath::open_in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&parent, name, flags, Mode::empty())?
        }
        None => beneath::open_in_root(root, path, OFlags::PATH, Mode::empty())?,
    };
    let stat = fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
    let link = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let target = fs::readlinkat(&fd, "", Vec::new())?;
        Some(OsStr::from_bytes(target.as_bytes()).to_string_lossy().into_owned().into())
    } else {
        None
    };
    Ok(Found {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        link,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_on_the_way_stay_inside_and_the_last_is_looked_at_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "four").unwrap();
        symlink("/d", dir.path().join("to-d")).unwrap();
        let root = fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let at = |path: &str| look(root.as_fd(), Path::new(path));
        assert_eq!(at("/to-d/f").unwrap().size, 4);
        assert_eq!(at("/to-d").unwrap().link.as_deref(), Some(Path::new("/d")));
        assert_eq!(at("/to-d/.").unwrap().link, None);
        assert_eq!(at("/none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(at("/d/f/.").is_err());
        assert_eq!(at("/").unwrap().mode & 0o170_000, 0o040_000);
    }
}
