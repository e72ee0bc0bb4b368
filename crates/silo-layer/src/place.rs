//! Puts one archive entry into a tree without ever leaving the tree's root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use silo_sys::beneath;

use crate::LayerError;
use crate::archive::{Item, Reader};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// Deeper trees are refused instead of exhausting stack and descriptors.
const DEEPEST: usize = 900;

/// Cleans an entry's name: no leading `/`, no `.`; one that leads out is refused.
pub(crate) fn clean(entry: &[u8], name: &[u8]) -> Result<PathBuf, LayerError> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => {
                return Err(LayerError::hostile(
                    entry,
                    format!("{:?} leads out", String::from_utf8_lossy(name)),
                ));
            }
            _ => {}
        }
    }
    Ok(path)
}

/// Removes a name and all below it, following nothing.
pub(crate) fn remove(parent: impl AsFd, name: &OsStr, depth: usize) -> rustix::io::Result<()> {
    match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::openat(&parent, name, flags, Mode::empty())?;
    let names: Vec<OsString> = fs::Dir::read_from(&dir)?
        .map(|e| Ok(OsStr::from_bytes(e?.file_name().to_bytes()).to_owned()))
        .collect::<rustix::io::Result<_>>()?;
    for name in names.iter().filter(|n| *n != "." && *n != "..") {
        remove(&dir, name, depth + 1)?;
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// A tree that entries are put into.
pub(crate) struct Place {
    root: OwnedFd,
    /// Added to the owner of directories nobody named.
    pub(crate) id_offset: u32,
    pub(crate) no_overwrite_dir_non_dir: bool,
    /// Where the tree that is recorded really is; this one's root is that, or below it.
    recorded: Option<PathBuf>,
    /// The directory of the entry before, and where it is in the tree that is recorded: most entries share it.
    cache: Option<(PathBuf, OwnedFd, PathBuf)>,
    /// Their times are set when nothing is written into them any more.
    times: Vec<(PathBuf, (i64, i64))>,
}

impl Place {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            id_offset: 0,
            no_overwrite_dir_non_dir: false,
            recorded: None,
            cache: None,
            times: Vec::new(),
        }
    }

    /// From now on the record of the archive is told of files, by their paths below `tree`.
    pub(crate) fn record(&mut self, tree: impl AsFd) -> io::Result<()> {
        self.recorded = Some(real_path(tree)?);
        Ok(())
    }

    /// The directory `dir` below the root, made if missing.
    pub(crate) fn parent(&mut self, entry: &[u8], dir: &Path) -> Result<&OwnedFd, LayerError> {
        let hit = self.cache.as_ref().is_some_and(|(path, ..)| path == dir);
        if !hit {
            let fd = self.make(dir).map_err(|e| match Errno::from_io_error(&e) {
                Some(Errno::NOTDIR) => LayerError::hostile(entry, "a parent of it is not a directory"),
                Some(Errno::NOENT) => {
                    LayerError::hostile(entry, "a parent of it is a link that leads nowhere")
                }
                Some(Errno::LOOP | Errno::XDEV) => {
                    LayerError::hostile(entry, "a parent of it is a link that leads in a circle or out")
                }
                _ => LayerError::io("making the directory", dir, e),
            })?;
            let real = match &self.recorded {
                Some(tree) => real_path(&fd).and_then(|path| {
                    let inside = path.strip_prefix(tree).map(Path::to_owned);
                    inside.map_err(|_| io::Error::other("it is not in the tree"))
                }),
                None => Ok(PathBuf::new()),
            };
            let real = real.map_err(|e| LayerError::io("looking where it is:", dir, e))?;
            self.cache = Some((dir.to_owned(), fd, real));
        }
        self.cache.as_ref().map(|(_, fd, _)| fd).ok_or_else(|| LayerError::io("opening", dir, Errno::NOENT))
    }

    fn make(&self, dir: &Path) -> io::Result<OwnedFd> {
        match beneath::open_in_root(&self.root, dir, DIRECTORY, Mode::empty()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut so_far = PathBuf::new();
        let mut current = beneath::open_in_root(&self.root, Path::new("."), DIRECTORY, Mode::empty())?;
        for name in dir {
            so_far.push(name);
            current = match beneath::open_in_root(&self.root, &so_far, DIRECTORY, Mode::empty()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) if self.id_offset != 0 => {
                            chown(&current, name, (self.id_offset, self.id_offset))?
                        }
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    beneath::open_in_root(&self.root, &so_far, DIRECTORY, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// Tries `make`; if the name is taken, removes what is there and tries again.
    fn replace(
        &mut self,
        item: &Item,
        path: &Path,
        content: &mut Reader<'_>,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<OwnedFd>,
    ) -> Result<OwnedFd, LayerError> {
        let (dir, name) = split(item, path)?;
        let strict = self.no_overwrite_dir_non_dir;
        let parent = self.parent(&item.name, dir)?;
        match make(parent, name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| LayerError::io("making", path, e)),
        }
        let old = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let was_dir = old.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if strict && was_dir != item.kind.is_dir() {
            let word = |dir| if dir { "directory" } else { "non-directory" };
            return Err(LayerError::Overwrite {
                entry: String::from_utf8_lossy(&item.name).into_owned(),
                old: word(was_dir),
                new: word(item.kind.is_dir()),
            });
        }
        let has_content =
            was_dir || old.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let real = self.real(name).filter(|_| has_content);
        let parent = self.parent(&item.name, dir)?;
        match (content.record(), real) {
            (Some(record), Some(real)) => record
                .give_way(&real)
                .and_then(|(aside, to)| Ok(fs::renameat(parent, name, aside, to)?))
                .map_err(|e| LayerError::io("replacing", path, e))?,
            _ => remove(parent, name, 0).map_err(|e| LayerError::io("replacing", path, e))?,
        }
        let made = make(parent, name).map_err(|e| LayerError::io("making", path, e));
        // The path cached may have led through what was removed.
        self.cache = None;
        made
    }

    /// Where `name` of the directory that was asked for last is in the tree that is recorded.
    fn real(&self, name: &OsStr) -> Option<PathBuf> {
        self.recorded.as_ref().and(self.cache.as_ref()).map(|(.., real)| real.join(name))
    }

    /// Creates the entry with everything that belongs to it.
    pub(crate) fn put(
        &mut self,
        item: &Item,
        path: &Path,
        owner: (u32, u32),
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        let kind = item.kind;
        let link = OsStr::from_bytes(&item.link);
        let pin = |dir: &OwnedFd, name: &OsStr| {
            fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let failed = |e: Errno| LayerError::io("setting the owner, mode or times of", path, e);
        let node = match kind {
            _ if kind.is_hard_link() => return self.hard_link(item, path, content),
            _ if kind.is_dir() => {
                let fd = self.directory(item, path, content)?;
                self.times.push((path.to_owned(), item.mtime));
                fd
            }
            _ if kind.is_file() || kind == tar::EntryType::Continuous => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // What a mode gives to the owner is not given before that is the owner.
                let mode = Mode::from_raw_mode(item.mode & 0o777);
                let fd = self.replace(item, path, content, |d, n| fs::openat(d, n, flags, mode))?;
                let (dir, name) = split(item, path)?;
                if self.recorded.is_some() {
                    // It is no longer at hand if something was replaced.
                    self.parent(&item.name, dir)?;
                }
                let real = self.real(name);
                let mut file = File::from(fd);
                content
                    .copy_to(&mut file, real.as_deref())
                    .map_err(|e| LayerError::io("writing", path, e))?;
                file.into()
            }
            _ if kind.is_symlink() => {
                self.replace(item, path, content, |d, n| fs::symlinkat(link, d, n).and_then(|()| pin(d, n)))?
            }
            _ => {
                let (kind, device) = match kind {
                    _ if kind.is_fifo() => (FileType::Fifo, 0),
                    _ if kind.is_character_special() => {
                        (FileType::CharacterDevice, fs::makedev(item.device.0, item.device.1))
                    }
                    _ if kind.is_block_special() => {
                        (FileType::BlockDevice, fs::makedev(item.device.0, item.device.1))
                    }
                    other => {
                        return Err(LayerError::hostile(
                            &item.name,
                            format!("unknown type {:#x}", other.as_byte()),
                        ));
                    }
                };
                let mode = Mode::from_raw_mode(item.mode);
                self.replace(item, path, content, |d, n| {
                    fs::mknodat(d, n, kind, mode, device).and_then(|()| pin(d, n))
                })?
            }
        };
        // A link of /proc leads to the very node that was opened, whatever its name is by now.
        let proc = || format!("/proc/self/fd/{}", node.as_raw_fd());
        // Mostly it is right already; in a set-group-ID directory it is not.
        let now = fs::fstat(&node).map_err(failed)?;
        if owner != (now.st_uid, now.st_gid) {
            chown(&node, OsStr::new(""), owner).map_err(failed)?;
        }
        let mode = Mode::from_raw_mode(item.mode);
        match () {
            () if kind.is_symlink() => Ok(()),
            // A change of the owner may take bits away.
            () if owner == (now.st_uid, now.st_gid) && now.st_mode & 0o7777 == item.mode => Ok(()),
            // What is only pinned cannot be changed by its descriptor.
            () if kind.is_fifo() || kind.is_character_special() || kind.is_block_special() => {
                fs::chmod(proc(), mode)
            }
            () => fs::fchmod(&node, mode),
        }
        .map_err(failed)?;
        if !item.xattrs.is_empty() || !item.kept.is_empty() {
            self.xattrs(item, path, &proc())?;
        }
        if !kind.is_dir() {
            fs::utimensat(&node, "", &timestamps(item.mtime), AtFlags::EMPTY_PATH).map_err(failed)?;
        }
        Ok(())
    }

    fn xattrs(&mut self, item: &Item, path: &Path, proc: &str) -> Result<(), LayerError> {
        let all = item.xattrs.iter().map(|x| (x, false)).chain(item.kept.iter().map(|x| (x, true)));
        for ((name, value), must) in all {
            // An archive must not speak to overlayfs (redirects, opaque) but through `.wh.`.
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            let set = if item.kind.is_symlink() {
                let (dir, last) = split(item, path)?;
                let parent = self.parent(&item.name, dir)?.as_raw_fd();
                let at = Path::new(&format!("/proc/self/fd/{parent}")).join(last);
                fs::lsetxattr(at, name.as_slice(), value, XattrFlags::empty())
            } else {
                fs::setxattr(proc, name.as_slice(), value, XattrFlags::empty())
            };
            match set {
                Ok(()) => {}
                Err(Errno::NOTSUP) if !must => {}
                // user.* exists on files and directories only.
                Err(Errno::PERM) if !must && name.starts_with(b"user.") => {}
                Err(e) => return Err(LayerError::io("setting an extended attribute of", path, e)),
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        item: &Item,
        path: &Path,
        content: &mut Reader<'_>,
    ) -> Result<OwnedFd, LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if path.as_os_str().is_empty() {
            return beneath::open_in_root(&self.root, path, flags, Mode::empty())
                .map_err(|e| LayerError::io("opening", path, e));
        }
        self.replace(item, path, content, |dir, name| {
            let made = fs::mkdirat(dir, name, Mode::from_raw_mode(0o700));
            match (made, fs::openat(dir, name, flags, Mode::empty())) {
                // What is there and a directory stays.
                (Ok(()) | Err(Errno::EXIST), Ok(fd)) => Ok(fd),
                (Ok(()), Err(e)) | (Err(e), _) => Err(e),
            }
        })
    }

    fn hard_link(&mut self, item: &Item, path: &Path, content: &mut Reader<'_>) -> Result<(), LayerError> {
        let target = clean(&item.name, &item.link)?;
        let to = item.link.escape_ascii().to_string();
        let missing =
            || LayerError::hostile(&item.name, format!("hard link to {to:?}, which is not in the tree"));
        let (dir, name) = (target.parent().ok_or_else(missing)?, target.file_name().ok_or_else(missing)?);
        if target == path {
            return Ok(());
        }
        let from = beneath::open_in_root(&self.root, dir, DIRECTORY, Mode::empty()).map_err(|_| missing())?;
        let stat = fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(LayerError::hostile(&item.name, format!("hard link to {to:?}, a directory")));
        }
        let (new_dir, new_name) = split(item, path)?;
        let there = fs::statat(self.parent(&item.name, new_dir)?, new_name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replace(item, path, content, |d, n| {
            fs::linkat(&from, name, d, n, AtFlags::empty())?;
            fs::openat(d, n, flags, Mode::empty())
        })?;
        Ok(())
    }

    /// Sets the times of directories, when all entries are in place.
    pub(crate) fn finish(mut self) -> Result<(), LayerError> {
        for (path, time) in std::mem::take(&mut self.times) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A later entry may have replaced it.
            let Ok(fd) = beneath::open_in_root(&self.root, &path, flags, Mode::empty()) else { continue };
            fs::utimensat(&fd, "", &timestamps(time), AtFlags::EMPTY_PATH)
                .map_err(|e| LayerError::io("setting the times of", &path, e))?;
        }
        Ok(())
    }
}

fn split<'p>(item: &Item, path: &'p Path) -> Result<(&'p Path, &'p OsStr), LayerError> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir, name)),
        _ => Err(LayerError::hostile(&item.name, "the root of the tree must be a directory")),
    }
}

/// Changes the owner of `name` in `dir`, or of `dir` itself when `name` is empty.
pub(crate) fn chown(dir: impl AsFd, name: &OsStr, owner: (u32, u32)) -> rustix::io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    fs::chownat(dir, name, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)), flags)
}

/// Where an open directory is.
fn real_path(dir: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()))
}

/// Both times, as docker sets them.
pub(crate) fn timestamps((tv_sec, tv_nsec): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: tv_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}
