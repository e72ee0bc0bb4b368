//! The nodes that a copy makes: what each is, and how a tree's files become them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use silo_image::layer;

use super::hash::Hash;
use super::mode::ModeChange;
use super::request::{CopyError, Doing, Exclude};
use super::tree::Tree;

/// Directories below each other.
const DEEPEST: usize = 900;

type Result<T> = std::result::Result<T, CopyError>;

/// What a node's content is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Directory,
    /// A file on disk.
    File,
    Bytes(Vec<u8>),
    Link(PathBuf),
    /// A device or fifo.
    Other(FileType, u64),
}

/// One node to be made.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Below where its piece lands; empty: that itself.
    pub(super) path: PathBuf,
    pub(super) content: Content,
    /// Where it is; empty for bytes.
    pub(super) from: PathBuf,
    /// As it is there; `None` for bytes.
    pub(super) stat: Option<Stat>,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// `None`: that of its making.
    pub(super) mtime: Option<(i64, i64)>,
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
    /// The file may get a further name instead of being copied.
    pub(super) own: bool,
    /// A directory that nobody named: one that is there keeps its mode and owner.
    pub(super) implied: bool,
    /// Of a file's content, once it was read.
    pub(super) hash: Option<Hash>,
}

/// One matched source.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// What it is called in a directory; `None`: it is the content of a directory, which lands in the target itself.
    pub(super) name: Option<OsString>,
    pub(super) nodes: Vec<Node>,
    /// An archive, which is unpacked into the target; owners are the archive's unless others were asked for.
    pub(super) archive: Option<PathBuf>,
}

/// Makes nodes of a tree's files.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    /// For a Windows image.
    pub(super) windows: bool,
    pub(super) chown: Option<(u32, u32)>,
    pub(super) chmod: Option<ModeChange>,
    pub(super) exclude: Option<&'a Exclude>,
    /// Owners of the build's own files mean something: an archive's.
    pub(super) keep_owners: bool,
}

impl Maker<'_> {
    /// What is in a directory, each directory before what is in it.
    pub(super) fn walk(
        &self,
        tree: &Tree,
        directory: &layer::Seen,
        at: &Path,
        depth: usize,
        nodes: &mut Vec<Node>,
    ) -> Result<()> {
        let reading = || format!("reading {}", directory.path().display());
        if depth > DEEPEST {
            return Err(CopyError::io(reading())(rustix::io::Errno::NAMETOOLONG));
        }
        for name in layer::merged_names(&directory.paths).doing(reading)? {
            let Some(seen) = layer::lookup_merged(&directory.paths, &name).doing(reading)? else { continue };
            let path = at.join(&name);
            let is_directory = seen.kind() == FileType::Directory;
            let excluded = self.exclude.is_some_and(|exclude| exclude.0(&path));
            // Below an excluded directory an exception may stand.
            if excluded && !is_directory || matches!(seen.kind(), FileType::Socket | FileType::Unknown) {
                continue;
            }
            let before = nodes.len();
            nodes.push(self.node(seen.path(), seen.stat, path.clone(), tree.own)?);
            if is_directory {
                self.walk(tree, &seen, &path, depth + 1, nodes)?;
                if excluded && nodes.len() == before + 1 {
                    nodes.pop();
                }
            }
        }
        Ok(())
    }

    pub(super) fn node(&self, from: &Path, stat: Stat, path: PathBuf, own: bool) -> Result<Node> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let content = match kind {
            FileType::Directory => Content::Directory,
            FileType::RegularFile => Content::File,
            FileType::Symlink => {
                let reading = CopyError::io(format!("reading the link {}", from.display()));
                Content::Link(std::fs::read_link(from).map_err(reading)?)
            }
            other => Content::Other(other, stat.st_rdev),
        };
        let is_directory = kind == FileType::Directory;
        let mut mode = stat.st_mode & 0o7777;
        if self.windows {
            mode = windows_mode(from, mode, is_directory);
        }
        let kept = if own && !self.keep_owners || self.windows { (0, 0) } else { (stat.st_uid, stat.st_gid) };
        Ok(Node {
            path,
            mode: if kind == FileType::Symlink { 0o777 } else { self.changed(mode, is_directory) },
            content,
            from: from.to_owned(),
            stat: Some(stat),
            owner: self.chown.unwrap_or(kept),
            mtime: Some((stat.st_mtime, stat.st_mtime_nsec as i64)),
            xattrs: Vec::new(),
            own,
            implied: false,
            hash: None,
        })
    }
}

impl Maker<'_> {
    /// The mode that `--chmod` makes of one.
    pub(super) fn changed(&self, mode: u32, is_directory: bool) -> u32 {
        self.chmod.as_ref().map_or(mode & 0o7777, |change| change.apply(mode, is_directory))
    }
}

/// What a node of a Windows layer has on disk (`docs/formats/windows-layer.md`): of files no write permission means read-only.
fn windows_mode(path: &Path, mode: u32, is_directory: bool) -> u32 {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let usual = if is_directory || matches!(extension.as_str(), "exe" | "com") { 0o755 } else { 0o644 };
    if !is_directory && mode & 0o222 == 0 { usual & !0o222 } else { usual }
}

/// The extended attributes that go with a copy, sorted: not those of overlayfs, nor what only one layer's archive means.
pub(super) fn attributes(path: &Path, windows: bool) -> std::io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut all = Vec::new();
    for name in xattr::list(path)? {
        let bytes = name.as_bytes();
        let unwanted: [&[u8]; 6] = [
            b"trusted.overlay.",
            b"user.overlay.",
            b"security.selinux",
            b"system.",
            b"user.silo.",
            b"trusted.silo.",
        ];
        if unwanted.iter().any(|prefix| bytes.starts_with(prefix)) || bytes == b"user.DOSATTRIB" && !windows {
            continue;
        }
        if let Some(value) = xattr::get(path, &name)? {
            all.push((name, value));
        }
    }
    all.sort();
    Ok(all)
}
