//! Writes a tree as the archive of a Windows layer, as Windows' own tools would.
//!
//! Order: by name within a directory, a directory before what is in it; after a file its streams; after a directory and
//! its streams the names that are gone from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_sys::beneath;

use super::aside::{self, Chain};
use super::describe::{self, Described};
use super::header::{self, Entry};
use super::kept::{self, Kept};
use super::names;
use super::roots::{FILES, UTILITY_VM, WINDOWS_ROOTS, drive};
use crate::write::Writer;
use crate::{LayerError, merge, pack, whiteout};

/// Deeper trees are refused instead of exhausting stack and descriptors.
const DEEPEST: usize = 900;
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Not exported by Windows either (`hcsshim:internal/wclayer/legacy.go`).
const RECYCLE_BIN: &str = "Files/$Recycle.Bin";

/// Writes the tree of an unpacked Windows layer as the plain tar of the layer.
///
/// `lower` are the trees of the layers below, uppermost first; `linux_roots` the top directories in Linux' form. Of a tree
/// that [`crate::unpack_windows`] made from an archive that Windows' tools wrote, the archive comes back byte for byte. A
/// file without kept attributes is described as a new one is on Windows. Equal trees give equal bytes.
pub fn pack_windows_tree(
    tree: &Path,
    lower: &[PathBuf],
    linux_roots: &[&str],
    to: &mut dyn Write,
) -> Result<(), LayerError> {
    let root = open_directory(tree)?;
    let chain = Chain::new(std::iter::once(tree).chain(lower.iter().map(PathBuf::as_path)));
    let trees: Vec<&Path> = std::iter::once(tree).chain(lower.iter().map(PathBuf::as_path)).collect();
    let drives = [&[FILES][..], &[UTILITY_VM, FILES]].map(|root| {
        let root: PathBuf = root.iter().collect();
        trees.iter().map(|tree| tree.join(&root)).collect()
    });
    let mut packer = Packer {
        writer: Writer::new(to, 0),
        chain,
        links: HashMap::new(),
        own: &[],
        whole: &[],
        time: (0, 0),
        mount: None,
        drives,
    };
    for name in read_names(&root, tree)? {
        let at = Path::new(&name);
        let failed = |e: io::Error| LayerError::io("packing", &tree.join(at), e);
        if name == aside::DIRECTORY {
            continue;
        }
        let Some(text) = name.to_str().filter(|n| WINDOWS_ROOTS.contains(n) || linux_roots.contains(n))
        else {
            return Err(LayerError::tree(at, "a Windows layer has no such directory"));
        };
        let node = beneath::open_no_links(&root, at, PIN, Mode::empty()).map_err(failed)?;
        let stat = fs::fstat(&node).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(LayerError::tree(at, "it must be a directory"));
        }
        if linux_roots.contains(&text) {
            packer.writer = pack::pack_layer_node(packer.writer, node, &stat, text)?;
            continue;
        }
        let below = merge::lookup(lower, at.as_os_str()).map_err(failed)?;
        packer.node(node, &stat, &[text.to_owned()], text, &below.map(|b| b.paths).unwrap_or_default())?;
    }
    packer.writer.finish().map_err(|e| LayerError::io("writing the archive of", tree, e))
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, LayerError> {
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LayerError::io("opening", path, e))
}

/// The names in a directory, sorted.
fn read_names(directory: &OwnedFd, shown: &Path) -> Result<Vec<OsString>, LayerError> {
    let failed = |e: Errno| LayerError::io("reading the directory", shown, e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    let opened = fs::openat(directory, ".", flags, Mode::empty()).map_err(failed)?;
    for entry in fs::Dir::new(opened).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// What shows in a directory, each under the name of the archive.
#[derive(Default)]
struct Children {
    live: BTreeMap<String, OsString>,
    gone: BTreeMap<String, ()>,
}

pub(super) struct Packer<'a> {
    pub(super) writer: Writer<'a>,
    pub(super) chain: Chain,
    /// Names of the files that have several.
    pub(super) links: HashMap<(u64, u64), String>,
    /// Paths whose empty files were made to be mounted on.
    pub(super) own: &'a [&'a str],
    /// Files of `C:` that are on no disk: paths with slashes, and content.
    pub(super) whole: &'a [(&'a str, &'a [u8])],
    /// Their time.
    pub(super) time: (i64, i64),
    /// The mount to stay on; of others only the directory is written.
    pub(super) mount: Option<u64>,
    /// What makes up the drives of [`drive`], uppermost first.
    pub(super) drives: [Vec<PathBuf>; 2],
}

impl Packer<'_> {
    /// Writes a node. `path` is where it is in the tree, `name` the archive's name of it.
    fn node(
        &mut self,
        node: OwnedFd,
        stat: &fs::Stat,
        path: &[String],
        name: &str,
        lower: &[PathBuf],
    ) -> Result<(), LayerError> {
        let shown = Path::new(name);
        let failed = |e: io::Error| LayerError::io("archiving", shown, e);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink) {
            return Err(LayerError::tree(shown, "Windows has no such type of file"));
        }
        let proc = format!("/proc/self/fd/{}", node.as_raw_fd());
        let kept = Kept::read(&proc, kind, &self.chain).map_err(failed)?;
        let link = match kind {
            FileType::Symlink => {
                let target = fs::readlinkat(&node, "", Vec::new()).map_err(|e| failed(e.into()))?;
                target.into_string().map_err(|_| LayerError::tree(shown, "its target is not UTF-8"))?
            }
            _ => String::new(),
        };
        let is_dir = |root: usize, to: &[String]| self.is_directory(root, to);
        let described = describe::describe(stat, &kept, path, &link, is_dir);
        let described = described.map_err(|why| LayerError::tree(shown, why))?;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                return described.hard_link(name, first).write(&mut self.writer).map_err(failed);
            }
            self.links.insert(key, name.to_owned());
        }
        described.header(name).write(&mut self.writer).map_err(failed)?;
        if kind == FileType::RegularFile {
            // The node is pinned and known to be a file, so opening it waits for nothing.
            let file = File::open(&proc).map_err(failed)?;
            self.writer.content(file, described.size).map_err(failed)?;
        }
        self.streams(&kept, &described, name)?;
        if kind == FileType::Directory { self.children(&node, path, name, lower) } else { Ok(()) }
    }

    /// Whether a drive shows a directory at a path; what cannot be looked at is none.
    fn is_directory(&self, root: usize, path: &[String]) -> bool {
        let path: PathBuf = path.iter().collect();
        let layers = root.checked_sub(1).and_then(|i| self.drives.get(i)).into_iter().flatten();
        let mut found = layers.filter_map(|layer| {
            let layer = open_directory(layer).ok()?;
            let node = beneath::open_no_links(&layer, &path, PIN, Mode::empty()).ok()?;
            Some(FileType::from_raw_mode(fs::fstat(&node).ok()?.st_mode))
        });
        found.next() == Some(FileType::Directory)
    }

    fn streams(&mut self, kept: &Kept, described: &Described, name: &str) -> Result<(), LayerError> {
        for (stream, value) in &kept.streams {
            let name = format!("{name}:{stream}");
            let failed = |e| LayerError::io("archiving", Path::new(&name), e);
            let content = self.chain.open(value).map_err(failed)?;
            let size = content.size();
            described.stream(&name, size).write(&mut self.writer).map_err(failed)?;
            self.writer.content(content, size).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes what is in a directory; `lower` are the directories that it is merged with.
    pub(super) fn children(
        &mut self,
        directory: &OwnedFd,
        path: &[String],
        name: &str,
        lower: &[PathBuf],
    ) -> Result<(), LayerError> {
        let shown = Path::new(name);
        if path.len() > DEEPEST {
            return Err(LayerError::io("reading the directory", shown, Errno::NAMETOOLONG));
        }
        let proc = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let opaque = whiteout::is_opaque(Path::new(&proc));
        let mut children = self.list(directory, path, name, if opaque { lower } else { &[] })?;
        let made = self.made(path);
        let mut anew = HashSet::new();
        for (name, is_file) in &made {
            let folded = names::fold(name);
            let before = children.gone.len();
            children.gone.retain(|gone, ()| names::fold(gone) != folded);
            if before > children.gone.len() || opaque {
                // Nothing of the directory below comes back with it.
                anew.insert(name.clone());
            }
            children.live.retain(|live, _| !is_file || names::fold(live) != folded);
            let known = children.live.keys().any(|live| names::fold(live) == folded);
            if !known {
                children.live.insert(name.clone(), OsString::new());
            }
        }
        for gone in children.gone.keys() {
            let whiteout = format!("{name}/.wh.{gone}");
            header::whiteout(&whiteout)
                .write(&mut self.writer)
                .map_err(|e| LayerError::io("writing", Path::new(&whiteout), e))?;
        }
        for (spelled, real) in children.live {
            let full = format!("{name}/{spelled}");
            if real.is_empty() {
                let is_anew = anew.contains(&spelled);
                let path: Vec<String> = path.iter().cloned().chain([spelled]).collect();
                self.write_made(&path, &full, lower, is_anew)?;
                continue;
            }
            let failed = |e: io::Error| LayerError::io("opening", Path::new(&full), e);
            let node = match beneath::open_no_links(directory, Path::new(&real), PIN, Mode::empty()) {
                // It vanished while we looked.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            let stat = fs::fstat(&node).map_err(|e| failed(e.into()))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let text = real.to_string_lossy().into_owned();
            let path: Vec<String> = path.iter().cloned().chain([text]).collect();
            let mount_point = || {
                let at = Path::new("/").join(path[1..].join("/"));
                crate::diff::is_mount_point(self.own, &at, &stat)
            };
            if kind == FileType::Socket || kind == FileType::RegularFile && mount_point() {
                continue;
            }
            if self.mount.is_some()
                && self.mount != Some(pack::mount_of(&node).map_err(|e| failed(e.into()))?)
            {
                if kind == FileType::Directory {
                    let described = describe::made(true, 0, self.time, true);
                    described.header(&full).write(&mut self.writer).map_err(failed)?;
                }
                continue;
            }
            if kind != FileType::Directory && !self.made(&path).is_empty() {
                return Err(LayerError::tree(
                    Path::new(&full),
                    "a file is to be in it, and it is no directory",
                ));
            }
            let below = match kind {
                FileType::Directory if !opaque => merge::lookup(lower, &real).map_err(failed)?,
                _ => None,
            };
            // A file that a directory took the place of is nothing to merge with.
            let below = below.filter(|below| below.kind() == FileType::Directory);
            self.node(node, &stat, &path, &full, &below.map(|b| b.paths).unwrap_or_default())?;
        }
        Ok(())
    }

    /// What of [`Packer::whole`] is directly in a directory: names, and whether they are files.
    fn made(&self, directory: &[String]) -> BTreeMap<String, bool> {
        let mut found = BTreeMap::new();
        for (path, _) in self.whole {
            let parts: Vec<&str> = std::iter::once(FILES).chain(path.split('/')).collect();
            let here = parts.iter().zip(directory).all(|(part, at)| names::fold(part) == names::fold(at));
            if here && let Some(name) = parts.get(directory.len()) {
                found.insert((*name).to_owned(), parts.len() == directory.len() + 1);
            }
        }
        found
    }

    /// Writes a file of [`Packer::whole`], or a directory that is not in the tree: as it is in `lower`, the directories below
    /// its parent, or new. `anew`: what is in it there is hidden.
    fn write_made(
        &mut self,
        path: &[String],
        name: &str,
        lower: &[PathBuf],
        anew: bool,
    ) -> Result<(), LayerError> {
        let failed = |e: io::Error| LayerError::io("archiving", Path::new(name), e);
        let same = |file: &str| {
            let parts: Vec<&str> = file.split('/').collect();
            parts.len() + 1 == path.len()
                && parts.iter().zip(&path[1..]).all(|(part, at)| names::fold(part) == names::fold(at))
        };
        if let Some((_, content)) = self.whole.iter().find(|(file, _)| same(file)) {
            let size = content.len() as u64;
            let described = describe::made(false, size, self.time, true);
            described.header(name).write(&mut self.writer).map_err(failed)?;
            return self.writer.content(*content, size).map_err(failed);
        }
        let last = path.last().map_or("", String::as_str);
        let below = merge::lookup(lower, last.as_ref()).map_err(failed)?;
        let below = below.filter(|seen| seen.kind() == FileType::Directory);
        let described = match &below {
            Some(seen) if !anew => {
                let node = open_directory(seen.path())?;
                let proc = format!("/proc/self/fd/{}", node.as_raw_fd());
                let kept = Kept::read(&proc, FileType::Directory, &self.chain).map_err(failed)?;
                describe::describe(&seen.stat, &kept, path, "", |_, _| false)
                    .map_err(|why| LayerError::tree(Path::new(name), why))?
            }
            _ => describe::made(true, 0, self.time, true),
        };
        described.header(name).write(&mut self.writer).map_err(failed)?;
        let lower = below.map(|seen| seen.paths).unwrap_or_default();
        let made = self.made(path);
        if anew {
            let known: HashSet<Vec<u16>> = made.keys().map(|name| names::fold(name)).collect();
            for gone in merge::names(&lower).map_err(failed)? {
                let Some(gone) = gone.to_str().filter(|gone| !known.contains(&names::fold(gone))) else {
                    continue;
                };
                header::whiteout(&format!("{name}/.wh.{gone}")).write(&mut self.writer).map_err(failed)?;
            }
        }
        for child in made.into_keys() {
            let path: Vec<String> = path.iter().cloned().chain([child.clone()]).collect();
            self.write_made(&path, &format!("{name}/{child}"), &lower, anew)?;
        }
        Ok(())
    }

    /// `hidden`: the directories below that an opaque one hides, name by name in this format.
    fn list(
        &self,
        directory: &OwnedFd,
        path: &[String],
        name: &str,
        hidden: &[PathBuf],
    ) -> Result<Children, LayerError> {
        let mut children = Children::default();
        let (mut folded, mut gone) = (HashSet::new(), Vec::new());
        let is_drive = drive(path).is_some();
        for real in read_names(directory, Path::new(name))? {
            let full = Path::new(name).join(&real);
            let failed = |e: io::Error| LayerError::io("reading", &full, e);
            let text = real.to_str().ok_or_else(|| LayerError::tree(&full, "its name is not UTF-8"))?;
            let stat = match fs::statat(directory, text, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|e| failed(e.into()))?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let proc = format!("/proc/self/fd/{}/{text}", directory.as_raw_fd());
            let spelled = kept::spelled(&proc, kind, text).map_err(failed)?;
            names::check(&spelled).map_err(|why| LayerError::tree(&full, why))?;
            if path == [FILES] && format!("{FILES}/{spelled}").eq_ignore_ascii_case(RECYCLE_BIN) {
                continue;
            }
            if whiteout::is_whiteout(&stat) {
                if !is_drive {
                    return Err(LayerError::tree(&full, "only below Files a name can be deleted"));
                }
                gone.push(spelled);
            } else if folded.insert(names::fold(&spelled)) {
                children.live.insert(spelled, real);
            } else {
                return Err(LayerError::tree(&full, "another name differs from it only in case"));
            }
        }
        for hidden in merge::names(hidden).map_err(|e| LayerError::io("reading", Path::new(name), e))? {
            gone.extend(hidden.into_string().ok());
        }
        // What is there again needs no whiteout: it takes the old one's place.
        gone.retain(|name| !folded.contains(&names::fold(name)));
        let mut once = HashSet::new();
        gone.retain(|name| once.insert(names::fold(name)));
        children.gone.extend(gone.into_iter().map(|name| (name, ())));
        Ok(children)
    }
}

impl Described {
    pub(super) fn header(&self, name: &str) -> header::Header {
        self.entry(name, &self.link, self.type_flag, self.mode, self.size, &self.records)
    }

    /// A further name of a file (`hcsshim:pkg/ociwclayer/export.go`).
    fn hard_link(&self, name: &str, first: &str) -> header::Header {
        self.entry(name, first, b'1', 0o644, 0, &self.without(kept::is_of_the_file_itself))
    }

    /// A stream of a file: of the records it has the times alone (`go-winio:backuptar/tar.go`).
    fn stream(&self, name: &str, size: u64) -> header::Header {
        self.entry(name, "", b'0', self.mode, size, &self.without(|key| !matches!(key, b"atime" | b"ctime")))
    }

    fn without(&self, unwanted: impl Fn(&[u8]) -> bool) -> kept::Records {
        let wanted = self.records.iter().filter(|(key, _)| !unwanted(key));
        wanted.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn entry(
        &self,
        name: &str,
        link: &str,
        type_flag: u8,
        mode: u32,
        size: u64,
        records: &kept::Records,
    ) -> header::Header {
        Entry { name, link, type_flag, mode, size, mtime: self.mtime, records }.header()
    }
}
