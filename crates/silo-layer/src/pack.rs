//! Writes trees as archives: an overlay upper directory as a layer, any other tree as it is.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_sys::beneath;

use crate::LayerError;
use crate::whiteout;
use crate::write::{self, Writer};

/// Deeper trees are refused instead of exhausting stack and descriptors.
const DEEPEST: usize = 900;
/// Pins a node without opening it: no device is touched, no fifo waits.
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Packer<'a> {
    writer: Writer<'a>,
    /// Whether whiteouts and opaque directories are to be spelled out.
    overlay: bool,
    /// Paths whose empty files were made to be mounted on.
    own: &'a [&'a str],
    /// The mount to stay on; of others only the mount point is written.
    mount: Option<u64>,
    /// Names of the files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Writes an overlay upper directory as the tar of a layer, sorted by name.
///
/// Whiteouts become `.wh.` names again; `id_offset` is subtracted from owners (those below it become 0).
///
/// Empty files at `own` paths are left out: they were made to be mounted on.
pub fn pack_upper(upper: &Path, id_offset: u32, own: &[&str], to: &mut dyn Write) -> Result<(), LayerError> {
    let node = fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LayerError::io("opening", upper, e))?;
    let mut packer =
        Packer { writer: Writer::new(to, id_offset), overlay: true, own, mount: None, links: HashMap::new() };
    packer.children(&node, b"", 0)?;
    packer.writer.finish().map_err(|e| LayerError::io("writing the archive of", upper, e))
}

/// Writes overlay upper directories as one layer, each under a name of its own; those that are not there are left out.
pub fn pack_uppers(uppers: &[(String, PathBuf)], to: &mut dyn Write) -> Result<(), LayerError> {
    let mut writer = Writer::new(to, 0);
    for (name, upper) in uppers {
        let failed = |e: Errno| LayerError::io("opening", upper, e);
        let node = match fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed)?,
        };
        let stat = fs::fstat(&node).map_err(failed)?;
        writer = pack_layer_node(writer, node, &stat, name)?;
    }
    writer.finish().map_err(|e| LayerError::io("writing the archive of", Path::new("upper"), e))
}

/// Writes a directory of an unpacked Linux layer under `name`, whiteouts spelled out.
pub(crate) fn pack_layer_node<'a>(
    writer: Writer<'a>,
    node: OwnedFd,
    stat: &fs::Stat,
    name: &str,
) -> Result<Writer<'a>, LayerError> {
    let mut packer = Packer { writer, overlay: true, own: &[], mount: None, links: HashMap::new() };
    packer.node(node, stat, name.as_bytes(), 0)?;
    Ok(packer.writer)
}

/// Writes the file or tree at `path` inside `root` as a tar; `prefix` replaces its own name.
///
/// An empty prefix puts the contents of a directory at the top level. Links on the way are resolved inside `root`, the
/// last name is not followed. The tree may change meanwhile: what vanishes is left out, a file that shrinks is
/// padded. Sockets are left out. `one_mount`: of what is mounted in the tree only the mount points are written, a file
/// as an empty one.
pub fn pack_tree(
    root: BorrowedFd<'_>,
    path: &Path,
    prefix: &str,
    id_offset: u32,
    one_mount: bool,
    to: &mut dyn Write,
) -> Result<(), LayerError> {
    let failed = |e| LayerError::io("opening", path, e);
    let node = beneath::open_in_root(root, path, PIN, Mode::empty()).map_err(failed)?;
    let mount = one_mount.then(|| mount_of(&node)).transpose().map_err(|e| failed(e.into()))?;
    let stat = fs::fstat(&node).map_err(|e| failed(e.into()))?;
    let mut packer =
        Packer { writer: Writer::new(to, id_offset), overlay: false, own: &[], mount, links: HashMap::new() };
    let prefix = prefix.trim_matches('/').as_bytes();
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match (prefix, is_dir) {
        (b"", true) => packer.children(&node, b"", 0)?,
        (b"", false) => packer.node(node, &stat, path.file_name().unwrap_or_default().as_bytes(), 0)?,
        _ => packer.node(node, &stat, prefix, 0)?,
    }
    packer.writer.finish().map_err(|e| LayerError::io("writing the archive of", path, e))
}

/// The id of the mount that a node is on (statx(2), `STATX_MNT_ID`).
pub(crate) fn mount_of(node: &OwnedFd) -> Result<u64, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    fs::statx(node, "", flags, fs::StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id)
}

impl Packer<'_> {
    fn children(&mut self, dir: &OwnedFd, prefix: &[u8], depth: usize) -> Result<(), LayerError> {
        let shown = Path::new(OsStr::from_bytes(prefix));
        let failed = |e: Errno| LayerError::io("reading the directory", shown, e);
        if depth > DEEPEST {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut names = Vec::<OsString>::new();
        for entry in
            fs::Dir::new(fs::openat(dir, ".", flags, Mode::empty()).map_err(failed)?).map_err(failed)?
        {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        names.sort();
        for name in names {
            let bytes = name.as_bytes();
            let full = if prefix.is_empty() { bytes.to_vec() } else { [prefix, b"/", bytes].concat() };
            let child = match beneath::open_no_links(dir, Path::new(&name), PIN, Mode::empty()) {
                Ok(child) => child,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(LayerError::io("opening", Path::new(OsStr::from_bytes(&full)), e)),
            };
            let stat = fs::fstat(&child).map_err(failed)?;
            if self.overlay && whiteout::is_whiteout(&stat) {
                let cut = full.len() - bytes.len();
                let full = [&full[..cut], whiteout::PREFIX, bytes].concat();
                self.writer.empty(&full).map_err(|e| LayerError::io("writing", shown, e))?;
                continue;
            }
            let at = Path::new("/").join(OsStr::from_bytes(&full));
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_file && crate::diff::is_mount_point(self.own, &at, &stat) {
                continue;
            }
            self.node(child, &stat, &full, depth)?;
        }
        Ok(())
    }

    fn node(&mut self, node: OwnedFd, stat: &fs::Stat, name: &[u8], depth: usize) -> Result<(), LayerError> {
        let shown = Path::new(OsStr::from_bytes(name));
        let failed = |e| LayerError::io("archiving", shown, e);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket || kind == FileType::Unknown {
            return Ok(());
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return self.writer.header(name, stat, None, Some(first), &[]).map_err(failed);
            }
            self.links.insert(key, name.to_vec());
        }
        if let Some(mount) = self.mount
            && mount_of(&node).map_err(|e| failed(e.into()))? != mount
        {
            let mut empty = *stat;
            empty.st_size = 0;
            return self.writer.header(name, &empty, None, None, &[]).map_err(failed);
        }
        let xattrs = write::xattrs(&node).map_err(failed)?;
        let proc = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
        match kind {
            FileType::RegularFile => {
                // The node is pinned and known to be a file, so opening it waits for nothing.
                let file = File::open(&proc).map_err(failed)?;
                self.writer.header(name, stat, None, None, &xattrs).map_err(failed)?;
                self.writer.content(file, stat.st_size.max(0) as u64).map_err(failed)
            }
            FileType::Symlink => {
                let link = fs::readlinkat(&node, "", Vec::new()).map_err(|e| failed(e.into()))?;
                self.writer.header(name, stat, Some(link.as_bytes()), None, &xattrs).map_err(failed)
            }
            FileType::Directory => {
                self.writer.header(name, stat, None, None, &xattrs).map_err(failed)?;
                if self.overlay && whiteout::is_opaque(Path::new(&proc)) {
                    let marker = [name, b"/", whiteout::OPAQUE_NAME].concat();
                    self.writer.empty(&marker).map_err(failed)?;
                }
                self.children(&node, name, depth + 1)
            }
            _ => self.writer.header(name, stat, None, None, &xattrs).map_err(failed),
        }
    }
}
