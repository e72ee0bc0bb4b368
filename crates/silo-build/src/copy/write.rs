//! Puts what a copy prepared into a layer's top.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::archive;
use super::nodes::{Content, Node, Piece};
use super::plan::Prepared;
use super::request::{CopyError, Doing, Request, Summary};
use super::tree::roots;
use super::upper::{Directory, Given, Upper, set, timestamps};

type Result<T> = std::result::Result<T, CopyError>;

/// Held from the look at how many names a file has until it has one more.
static SHARING: Mutex<()> = Mutex::new(());

impl Prepared {
    /// Puts the files into `top`, an empty directory: a guest's files as the upper directory of an overlay has them. `scratch`:
    /// an empty directory for archives, on the same file system. Files of `top` may be further names of the context's: they
    /// are not to be written into while that is there.
    pub fn write(&self, top: &Path, scratch: &Path) -> Result<Summary> {
        let request = &self.request;
        let lower = roots(&request.lower, request.form);
        let device = fs::stat(top).map_err(CopyError::io(format!("opening {}", top.display())))?.st_dev;
        let mut writer = Writer {
            upper: Upper::new(top, &lower, request.form.windows),
            device,
            owner: self.chown.unwrap_or_default(),
            done: Summary::default(),
        };
        for (number, piece) in self.pieces.iter().enumerate() {
            match &piece.archive {
                Some(path) => {
                    let at = scratch.join(number.to_string());
                    let piece = archive::unpacked(path, &at, self.chown, request)?;
                    writer.piece(request, &piece, true)?;
                    std::fs::remove_dir_all(&at)
                        .map_err(CopyError::io(format!("removing {}", at.display())))?;
                }
                None => writer.piece(request, piece, false)?,
            }
        }
        writer.upper.finish()?;
        Ok(writer.done)
    }
}

struct Writer {
    upper: Upper,
    /// The top's.
    device: u64,
    /// Of directories that nobody named.
    owner: (u32, u32),
    done: Summary,
}

impl Writer {
    /// `replace`: files and directories may take each other's places, as when an archive is unpacked.
    fn piece(&mut self, request: &Request, piece: &Piece, replace: bool) -> Result<()> {
        let target = request.target.strip_prefix(request.form.shown_at).map_err(|_| {
            CopyError::Refused(format!("{} is not among the files of an image", request.target.display()))
        })?;
        let made = Given {
            mode: 0o755,
            owner: self.owner,
            mtime: None,
            xattrs: &[],
            only_new: true,
            replace: false,
        };
        let resolved = self.upper.resolve(target)?;
        let is_directory = resolved.seen.as_ref().is_some_and(|seen| seen.kind() == FileType::Directory);
        let mut links = HashMap::new();
        if let (Some(name), false) = (&piece.name, request.parents) {
            let into = request.into || is_directory;
            let (directory, name) = match into {
                true => (resolved.path.as_path(), name.as_os_str()),
                false => (
                    resolved.path.parent().unwrap_or(Path::new("")),
                    resolved.path.file_name().unwrap_or_default(),
                ),
            };
            let mut directory = self.upper.enter_path(directory, made)?;
            for node in &piece.nodes {
                self.leaf(&mut directory, name, node, replace, &mut links)?;
            }
            return Ok(());
        }
        if is_directory && piece.nodes.is_empty() {
            // There it is, and nothing comes into it.
            return Ok(());
        }
        // The way from the target to the directory that is being filled.
        let mut way = vec![self.upper.enter_path(&resolved.path, made)?];
        let mut names: Vec<&OsStr> = Vec::new();
        for node in &piece.nodes {
            let Some(name) = node.path.file_name() else { continue };
            let parent: Vec<&OsStr> = node.path.parent().unwrap_or(Path::new("")).iter().collect();
            let same = parent.iter().zip(&names).take_while(|(a, b)| a == b).count();
            way.truncate(same + 1);
            names.truncate(same);
            for missing in &parent[same..] {
                // Only if what is between was left out.
                self.descend(&mut way, missing, made)?;
                names.push(missing);
            }
            if matches!(node.content, Content::Directory) {
                let given = Given {
                    mode: if node.implied { 0o755 } else { node.mode },
                    owner: node.owner,
                    mtime: node.mtime.filter(|_| !node.implied),
                    xattrs: &node.xattrs,
                    only_new: node.implied,
                    replace,
                };
                self.descend(&mut way, name, given)?;
                names.push(name);
                continue;
            }
            if let Some(parent) = way.last_mut() {
                self.leaf(parent, name, node, replace, &mut links)?;
            }
        }
        Ok(())
    }

    fn descend(&mut self, way: &mut Vec<Directory>, name: &OsStr, given: Given<'_>) -> Result<()> {
        if let Some(parent) = way.last_mut() {
            let directory = self.upper.enter(parent, name, given)?;
            way.push(directory);
        }
        Ok(())
    }

    /// Anything but a directory. `links`: where files of several names are in this piece.
    fn leaf(
        &mut self,
        parent: &mut Directory,
        name: &OsStr,
        node: &Node,
        replace: bool,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> Result<()> {
        let name = self.upper.make_room(parent, name, replace)?;
        let path = parent.path.join(&name);
        let failed = || format!("copying to /{}", path.display());
        self.done.files += 1;
        let key = node.stat.as_ref().map(|stat| (stat.st_dev, stat.st_ino));
        let several = node.stat.as_ref().is_some_and(|stat| stat.st_nlink > 1);
        if let Some(first) = key.and_then(|key| links.get(&key)) {
            let first = self.upper.at(first);
            return self.upper.put(parent, &name, replace, |directory, name| {
                fs::linkat(fs::CWD, &first, directory, name, AtFlags::empty())
            });
        }
        if let (Some(key), true) = (key, several) {
            links.insert(key, path.clone());
        }
        match &node.content {
            Content::Directory => {}
            Content::Bytes(bytes) => {
                let mut file = self.new_file(parent, &name, replace)?;
                file.write_all(bytes).doing(failed)?;
                self.done.bytes += bytes.len() as u64;
                finish_file(&file.into(), node).doing(failed)?;
            }
            Content::File => {
                let Some(stat) = &node.stat else { return Ok(()) };
                self.done.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                // Another stage may be about to share the same file.
                let one = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
                if self.may_share(node, stat).doing(failed)? {
                    let shared = self.upper.put(parent, &name, replace, |directory, name| {
                        match fs::linkat(fs::CWD, &node.from, directory, name, AtFlags::empty()) {
                            // It has as many names as a file may have.
                            Err(Errno::MLINK) => Ok(false),
                            other => other.map(|()| true),
                        }
                    })?;
                    if shared {
                        return Ok(());
                    }
                }
                drop(one);
                let file = self.new_file(parent, &name, replace)?;
                let from = File::open(&node.from).doing(failed)?;
                copy_content(&from, &file, stat).doing(failed)?;
                finish_file(&file.into(), node).doing(failed)?;
            }
            Content::Link(to) => {
                self.upper.put(parent, &name, replace, |directory, name| {
                    fs::symlinkat(to.as_path(), directory, name)
                })?;
                finish_named(&parent.fd, &name, node).doing(failed)?;
            }
            Content::Other(kind, device) => {
                let mode = Mode::from_raw_mode(node.mode);
                self.upper.put(parent, &name, replace, |directory, name| {
                    fs::mknodat(directory, name, *kind, mode, *device)
                })?;
                finish_named(&parent.fd, &name, node).doing(failed)?;
            }
        }
        Ok(())
    }

    /// Whether a file is as it is to be, and is nobody else's to change; a second name in an image would make two files one.
    fn may_share(&self, node: &Node, stat: &Stat) -> io::Result<bool> {
        let as_wanted = node.mode == stat.st_mode & 0o7777
            && node.owner == (stat.st_uid, stat.st_gid)
            && node.mtime == Some((stat.st_mtime, stat.st_mtime_nsec as i64));
        if !node.own || stat.st_dev != self.device || !as_wanted || fs::lstat(&node.from)?.st_nlink != 1 {
            return Ok(false);
        }
        // Attributes that a copy leaves out go with the name too.
        let all = match xattr::list(&node.from) {
            Err(e) if e.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => return Ok(true),
            all => all?,
        };
        let of_host = |name: &[u8]| name.starts_with(b"system.") || name == b"security.selinux";
        let kept = |name: &[u8]| node.xattrs.iter().any(|(kept, _)| kept.as_bytes() == name);
        Ok(all.into_iter().all(|name| of_host(name.as_bytes()) || kept(name.as_bytes())))
    }

    fn new_file(&mut self, parent: &Directory, name: &OsStr, replace: bool) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.upper.put(parent, name, replace, |directory, name| {
            fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
        })?;
        Ok(fd.into())
    }
}

fn finish_file(fd: &OwnedFd, node: &Node) -> io::Result<()> {
    set(fd, node.mode, node.owner, &node.xattrs)?;
    if let Some(time) = node.mtime {
        fs::futimens(fd, &timestamps(time))?;
    }
    Ok(())
}

/// The same for what cannot be opened: it was just made, and nobody else is here.
fn finish_named(parent: &OwnedFd, name: &OsStr, node: &Node) -> io::Result<()> {
    let (uid, gid) = node.owner;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(node.content, Content::Link(_)) {
        fs::chmodat(parent, name, Mode::from_raw_mode(node.mode), AtFlags::empty())?;
    }
    if !node.xattrs.is_empty() {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(parent));
        let path = Path::new(&path).join(name);
        for (attribute, value) in &node.xattrs {
            match fs::lsetxattr(&path, attribute.as_bytes(), value, fs::XattrFlags::empty()) {
                // user.* is of files and directories only.
                Err(Errno::NOTSUP | Errno::PERM) => {}
                other => other?,
            }
        }
    }
    if let Some(time) = node.mtime {
        fs::utimensat(parent, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Copies a file's bytes; holes stay holes.
fn copy_content(from: &File, to: &File, stat: &Stat) -> io::Result<()> {
    let (mut from, mut to) = (from, to);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if stat.st_blocks.saturating_mul(512) >= stat.st_size {
        io::copy(&mut from, &mut to)?;
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        at = match fs::seek(from, fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = fs::seek(from, fs::SeekFrom::Hole(at))?;
        from.seek(SeekFrom::Start(at))?;
        to.seek(SeekFrom::Start(at))?;
        io::copy(&mut io::Read::take(from, end - at), &mut to)?;
        at = end;
    }
    to.set_len(size)
}
