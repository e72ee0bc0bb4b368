//! A layer's top being made over the layers below it, as overlayfs would make it: directories that are there below are copied
//! up with what belongs to them.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use silo_image::layer::{self, Resolved};

use super::nodes::attributes;
use super::request::{CopyError, Doing};

type Result<T> = std::result::Result<T, CopyError>;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a directory gets that is to be made, or to be changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: Option<(i64, i64)>,
    pub(super) xattrs: &'a [(OsString, Vec<u8>)],
    /// One that is there keeps what it has.
    pub(super) only_new: bool,
    /// It takes the place of what is no directory.
    pub(super) replace: bool,
}

/// The top.
#[derive(Debug)]
pub(super) struct Upper {
    top: PathBuf,
    lower: Vec<PathBuf>,
    windows: bool,
    /// Times of directories, set when nothing is put into them any more.
    times: HashMap<PathBuf, (i64, i64)>,
    /// Those of them that are a source's.
    sources: HashSet<PathBuf>,
}

/// An open directory of the top.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// Below the top.
    pub(super) path: PathBuf,
    /// The directories below that show here, uppermost first.
    lower: Vec<PathBuf>,
    /// Windows: names as they are spelled, by their folded form.
    spelled: Option<HashMap<Vec<u16>, OsString>>,
}

impl Upper {
    /// `top` exists; `lower` are directories of the guest's files.
    pub(super) fn new(top: &Path, lower: &[PathBuf], windows: bool) -> Self {
        Self {
            top: top.to_owned(),
            lower: lower.to_vec(),
            windows,
            times: HashMap::new(),
            sources: HashSet::new(),
        }
    }

    /// Where a path leads in the top over the layers.
    pub(super) fn resolve(&self, path: &Path) -> Result<Resolved> {
        let roots: Vec<PathBuf> = std::iter::once(&self.top).chain(&self.lower).cloned().collect();
        layer::resolve(&roots, path, self.windows).map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::NOTDIR) => no_directory(path),
            _ => CopyError::io(format!("looking for {}", shown(path)))(e),
        })
    }

    pub(super) fn root(&self) -> Result<Directory> {
        let fd = fs::open(&self.top, DIRECTORY, Mode::empty())
            .map_err(CopyError::io(format!("opening {}", self.top.display())))?;
        Ok(Directory { fd, path: PathBuf::new(), lower: self.lower.clone(), spelled: None })
    }

    /// Opens a path that [`Upper::resolve`] gave, and makes what is missing of it.
    pub(super) fn enter_path(&mut self, path: &Path, given: Given<'_>) -> Result<Directory> {
        let mut directory = self.root()?;
        for name in path {
            directory = self.enter(&mut directory, name, given)?;
        }
        Ok(directory)
    }

    /// Opens a directory's directory: one of the top, one of the layers copied up, or a new one.
    pub(super) fn enter(
        &mut self,
        parent: &mut Directory,
        name: &OsStr,
        given: Given<'_>,
    ) -> Result<Directory> {
        let name = self.spelled(parent, name)?;
        let path = parent.path.join(&name);
        let doing = || format!("making the directory {}", shown(&path));
        let below = match parent.lower.is_empty() {
            true => None,
            false => layer::lookup_merged(&parent.lower, &name).doing(doing)?,
        };
        let mut below_is_directory = below.as_ref().is_some_and(|seen| seen.kind() == FileType::Directory);
        let make = || fs::mkdirat(&parent.fd, &name, Mode::from_raw_mode(0o700));
        let mut hides = false;
        let made = match make() {
            Ok(()) => true,
            Err(Errno::EXIST) if given.replace && !is_directory(parent, &name) => {
                fs::unlinkat(&parent.fd, &name, AtFlags::empty()).doing(doing)?;
                make().doing(doing)?;
                // What took that directory's place did away with what was in it.
                hides = std::mem::take(&mut below_is_directory);
                true
            }
            Err(Errno::EXIST) => false,
            Err(e) => return Err(CopyError::io(doing())(e)),
        };
        if made && below.is_some() && !below_is_directory && !given.replace {
            let _ = fs::unlinkat(&parent.fd, &name, AtFlags::REMOVEDIR);
            return Err(no_directory(&path));
        }
        let fd = fs::openat(&parent.fd, &name, DIRECTORY, Mode::empty()).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => no_directory(&path),
            other => CopyError::io(doing())(other),
        })?;
        if hides {
            fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", fs::XattrFlags::empty()).doing(doing)?;
        }
        let lower = match (&below, below_is_directory) {
            (Some(seen), true) => seen.paths.clone(),
            _ => Vec::new(),
        };
        match &below {
            Some(seen) if made && below_is_directory => {
                self.copied_up(&fd, &path, seen.path(), &seen.stat).doing(doing)?;
            }
            _ if made => self.changed(&parent.path),
            _ => {}
        }
        let is_new = made && !below_is_directory;
        if is_new || !given.only_new {
            set(&fd, given.mode, given.owner, given.xattrs).doing(doing)?;
            match given.mtime {
                Some(time) => {
                    self.times.insert(path.clone(), time);
                    self.sources.insert(path.clone());
                }
                None => drop(self.times.remove(&path)),
            }
        }
        Ok(Directory { fd, path, lower, spelled: None })
    }

    fn copied_up(&mut self, fd: &OwnedFd, path: &Path, from: &Path, stat: &Stat) -> io::Result<()> {
        set(fd, stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid), &attributes(from, self.windows)?)?;
        self.times.insert(path.to_owned(), (stat.st_mtime, stat.st_mtime_nsec as i64));
        Ok(())
    }

    /// Something was put into a directory: its time is now's, unless it is to be a source's.
    fn changed(&mut self, directory: &Path) {
        if !self.sources.contains(directory) {
            self.times.remove(directory);
        }
    }

    /// What a new file is called, after what would be in its way has been looked at: a directory is, unless `replace`.
    pub(super) fn make_room(
        &mut self,
        parent: &mut Directory,
        name: &OsStr,
        replace: bool,
    ) -> Result<OsString> {
        let name = self.spelled(parent, name)?;
        if !replace && !parent.lower.is_empty() {
            let reading = CopyError::io(format!("looking for {}", shown(&parent.path.join(&name))));
            let below = layer::lookup_merged(&parent.lower, &name).map_err(reading)?;
            if below.is_some_and(|seen| seen.kind() == FileType::Directory) {
                // In the top it may be one no more.
                let top = fs::statat(&parent.fd, &name, AtFlags::SYMLINK_NOFOLLOW);
                if top.is_err() || is_directory(parent, &name) {
                    return Err(in_the_way(&parent.path.join(&name)));
                }
            }
        }
        Ok(name)
    }

    /// Does `make`; what is there of this name in the top goes first.
    pub(super) fn put<T>(
        &mut self,
        parent: &Directory,
        name: &OsStr,
        replace: bool,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let path = parent.path.join(name);
        let doing = || format!("making {}", shown(&path));
        let made = match make(&parent.fd, name) {
            Err(Errno::EXIST) => {
                match fs::unlinkat(&parent.fd, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) if replace => {
                        std::fs::remove_dir_all(self.top.join(&path)).doing(doing)?;
                        self.times.retain(|other, _| !other.starts_with(&path));
                    }
                    Err(Errno::ISDIR) => return Err(in_the_way(&path)),
                    other => other.doing(doing)?,
                }
                make(&parent.fd, name).doing(doing)?
            }
            other => other.doing(doing)?,
        };
        self.changed(&parent.path);
        Ok(made)
    }

    /// A path of the top.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        self.top.join(path)
    }

    /// Windows: the spelling that a name has in the directory already; elsewhere the name.
    fn spelled(&self, parent: &mut Directory, name: &OsStr) -> Result<OsString> {
        if !self.windows {
            return Ok(name.to_owned());
        }
        let text = name.to_str().ok_or("it is not UTF-8".to_owned());
        let text = text.and_then(|text| layer::check_windows_name(text).map(|()| text));
        let text = text.map_err(|why| {
            CopyError::Refused(format!(
                "{} cannot be in a Windows image: {why}",
                shown(&parent.path.join(name))
            ))
        })?;
        if parent.spelled.is_none() {
            let at = self.top.join(&parent.path);
            let all: Vec<PathBuf> = std::iter::once(at).chain(parent.lower.iter().cloned()).collect();
            let names = layer::merged_names(&all)
                .map_err(CopyError::io(format!("reading {}", shown(&parent.path))))?;
            let fold = |name: OsString| Some((layer::fold_windows_name(name.to_str()?), name));
            parent.spelled = Some(names.into_iter().filter_map(fold).collect());
        }
        let known = parent.spelled.get_or_insert_default();
        Ok(known.entry(layer::fold_windows_name(text)).or_insert_with(|| name.to_owned()).clone())
    }

    /// Sets the times of directories.
    pub(super) fn finish(self) -> Result<()> {
        for (path, time) in self.times {
            let at = self.top.join(&path);
            fs::utimensat(fs::CWD, &at, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(CopyError::io(format!("setting the times of {}", shown(&path))))?;
        }
        Ok(())
    }
}

/// Gives a node its owner, mode and attributes.
pub(super) fn set(
    fd: &OwnedFd,
    mode: u32,
    owner: (u32, u32),
    xattrs: &[(OsString, Vec<u8>)],
) -> io::Result<()> {
    fs::fchown(fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    for (name, value) in xattrs {
        match fs::fsetxattr(fd, name.as_bytes(), value, fs::XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn is_directory(parent: &Directory, name: &OsStr) -> bool {
    let stat = fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Both times.
pub(super) fn timestamps((tv_sec, tv_nsec): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: tv_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// In BuildKit's words.
fn no_directory(path: &Path) -> CopyError {
    CopyError::Refused(format!("cannot copy to non-directory: {}", shown(path)))
}

fn in_the_way(path: &Path) -> CopyError {
    CopyError::Refused(format!("cannot replace to directory {} with file", shown(path)))
}

fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}
