//! What a container changed: an overlay upper directory against the layers below it.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::LayerError;
use crate::merge::{self, Seen};
use crate::whiteout;

/// What happened to a path; the numbers are those of the Docker API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was there and is different, or something in it is.
    Modified = 0,
    /// It was not there.
    Added = 1,
    /// It is gone.
    Deleted = 2,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path inside the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Changes of an overlay upper directory against the layers below it (uppermost first), as `docker diff` has them.
///
/// A directory comes before what is in it, names in order. A directory in which something changed is listed as
/// modified; of a deleted directory only the directory is listed; a file merely copied up is not listed. Nor are the
/// empty files and the directories that were made at `own` paths to be mounted on.
pub fn changes(upper: &Path, lower: &[PathBuf], own: &[&str]) -> Result<Vec<Change>, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::open(upper, flags, Mode::empty()).map_err(|e| LayerError::io("opening", upper, e))?;
    let mut walk = Walk { changes: Vec::new(), own };
    walk.directory(dir, Path::new("/"), lower, 0)?;
    Ok(walk.changes)
}

struct Walk<'a> {
    changes: Vec<Change>,
    own: &'a [&'a str],
}

impl Walk<'_> {
    fn push(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.push(Change { path: path.to_string_lossy().into_owned(), kind });
    }

    /// `below` are the directories of the layers that the upper `dir` is merged with.
    fn directory(
        &mut self,
        dir: OwnedFd,
        path: &Path,
        below: &[PathBuf],
        depth: usize,
    ) -> Result<(), LayerError> {
        let failed = |e: Errno| LayerError::io("reading", path, e);
        if depth > 900 {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let opaque = whiteout::is_opaque_fd(&dir);
        let mut names = Vec::<OsString>::new();
        for entry in fs::Dir::read_from(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        if opaque {
            names.extend(merge::names(below).map_err(|e| LayerError::io("reading", path, e))?);
        }
        names.sort();
        names.dedup();
        for name in names {
            let path = path.join(&name);
            let old = merge::lookup(below, &name).map_err(|e| LayerError::io("reading", &path, e))?;
            match fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !whiteout::is_whiteout(&stat) => {
                    self.node(&dir, &name, &path, &stat, old, depth)?;
                }
                Ok(_) | Err(Errno::NOENT) if old.is_some() => self.push(&path, ChangeKind::Deleted),
                // A whiteout of nothing, or a file that vanished while we looked.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(e) => return Err(LayerError::io("reading", &path, e)),
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
        stat: &fs::Stat,
        old: Option<Seen>,
        depth: usize,
    ) -> Result<(), LayerError> {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let at = self.changes.len();
        let listed = match &old {
            None if is_mount_point(self.own, path, stat) => true,
            None => {
                self.push(path, ChangeKind::Added);
                true
            }
            Some(old) if differs(&old.stat, stat) => {
                self.push(path, ChangeKind::Modified);
                true
            }
            Some(_) => false,
        };
        if !is_dir {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = match fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.map_err(|e| LayerError::io("opening", path, e))?,
        };
        let below = old.filter(|o| o.kind() == FileType::Directory).map(|o| o.paths).unwrap_or_default();
        self.directory(child, path, &below, depth + 1)?;
        if !listed && self.changes.len() > at {
            let path = path.to_string_lossy().into_owned();
            self.changes.insert(at, Change { path, kind: ChangeKind::Modified });
        }
        Ok(())
    }
}

/// Whether this is an empty file or a directory that was made to be mounted on.
pub(crate) fn is_mount_point(own: &[&str], path: &Path, stat: &fs::Stat) -> bool {
    let made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => stat.st_size == 0,
        _ => false,
    };
    made && own.iter().any(|p| Path::new(p) == path)
}

/// The size and time of a directory say nothing: they follow what is in it, which is compared by itself.
fn differs(old: &fs::Stat, new: &fs::Stat) -> bool {
    let is_dir = FileType::from_raw_mode(new.st_mode) == FileType::Directory;
    let key = |s: &fs::Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    let content = |s: &fs::Stat| (s.st_size, s.st_mtime, s.st_mtime_nsec);
    key(old) != key(new) || (!is_dir && content(old) != content(new))
}
