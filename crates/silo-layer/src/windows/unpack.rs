//! Unpacks the archive of a Windows layer into a tree, over the trees of the layers below it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, XattrFlags};
use silo_sys::beneath;

use super::aside::Store;
use super::kept;
use super::links::{self, Target};
use super::names;
use super::own_files::OwnFiles;
use super::roots::{WINDOWS_ROOTS, drive};
use super::spelling::{Here, Spellings};
use super::streams::Owner;
use crate::archive::{Item, Reader};
use crate::place::clean;
use crate::record::Record;
use crate::unpack::{Counter, LayerTree};
use crate::whiteout::{self, Said};
use crate::{LayerError, Limits, Unpacked, copy};

/// Unpacks the plain tar of a Windows layer into the empty directory `to`.
///
/// `lower` are the trees of the layers below, uppermost first; without any it is a base, which deletes nothing. The top
/// directories `linux_roots` hold trees in Linux' form, which are unpacked as such. Files that are a base's `own` are unpacked
/// where nobody looks, beside `Files`. Each part of a name is found in
/// whatever spelling it has below or in this layer, so nothing exists in two. Links are made last and none is ever
/// followed; nothing is written outside `to`. An archive that tries, that holds what NTFS could not, or exceeds
/// `limits`, is an error that names the entry. Memory grows with the number of entries, by some hundred bytes each.
pub fn unpack_windows(
    tar: &mut dyn Read,
    to: &Path,
    lower: &[PathBuf],
    linux_roots: &[&str],
    own: &OwnFiles,
    limits: &Limits,
) -> Result<Unpacked, LayerError> {
    unpack_from(Reader::new(tar), LayerTree::open(to)?, to, lower, linux_roots, own, limits)
}

/// As [`unpack_windows`], telling `record` what is read and where it is in the tree.
pub fn unpack_windows_recorded(
    tar: &mut dyn Read,
    to: &Path,
    lower: &[PathBuf],
    linux_roots: &[&str],
    own: &OwnFiles,
    limits: &Limits,
    record: &mut dyn Record,
) -> Result<Unpacked, LayerError> {
    let reader = Reader::recorded(tar, record);
    unpack_from(reader, LayerTree::recorded(to, to)?, to, lower, linux_roots, own, limits)
}

fn unpack_from(
    mut reader: Reader<'_>,
    tree: LayerTree,
    to: &Path,
    lower: &[PathBuf],
    linux_roots: &[&str],
    own: &OwnFiles,
    limits: &Limits,
) -> Result<Unpacked, LayerError> {
    let mut unpacker = Unpacker {
        to,
        lower,
        linux_roots,
        own,
        tree,
        linux: HashMap::new(),
        spellings: Spellings::open(lower).map_err(|e| LayerError::io("opening the layers below", to, e))?,
        store: Store::new(to),
        counter: Counter::new(limits),
        owner: None,
        waiting: Vec::new(),
        waiting_bytes: 0,
        copied: HashMap::new(),
    };
    while let Some(item) = reader.next()? {
        unpacker.counter.entry(&item)?;
        unpacker.entry(item, &mut reader)?;
    }
    unpacker.finish(&mut reader)
}

/// Where the owner of streams is.
#[derive(Debug)]
pub(super) enum At {
    /// In the tree.
    Node(PathBuf, FileType),
    /// Among the links that wait.
    Waiting(usize),
}

/// An archive on its way into a tree.
pub(super) struct Unpacker<'a> {
    pub(super) to: &'a Path,
    pub(super) lower: &'a [PathBuf],
    pub(super) linux_roots: &'a [&'a str],
    pub(super) own: &'a OwnFiles,
    pub(super) tree: LayerTree,
    pub(super) linux: HashMap<String, LayerTree>,
    pub(super) spellings: Spellings,
    pub(super) store: Store,
    pub(super) counter: Counter<'a>,
    pub(super) owner: Option<Owner<At>>,
    /// Links, and hard links to them: what they lead to may come later, and nothing is to go through them.
    pub(super) waiting: Vec<(PathBuf, Item)>,
    pub(super) waiting_bytes: usize,
    pub(super) copied: copy::Links,
}

pub(super) fn hostile(item: &Item, why: impl Into<String>) -> LayerError {
    LayerError::hostile(&item.name, why)
}

/// The components of a name or of a hard link's target; Windows' tools write neither `..` nor a root.
pub(super) fn components<'n>(item: &Item, name: &'n [u8]) -> Result<Vec<&'n str>, LayerError> {
    let name = std::str::from_utf8(name).map_err(|_| hostile(item, "its name is not UTF-8"))?;
    if name.starts_with('/') {
        return Err(hostile(item, format!("{name:?} is absolute")));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(hostile(item, format!("{name:?} leads out")));
    }
    Ok(parts)
}

pub(super) fn owned(path: &Path) -> Vec<String> {
    path.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

impl Unpacker<'_> {
    fn entry(&mut self, item: Item, content: &mut Reader<'_>) -> Result<(), LayerError> {
        let name = item.name.clone();
        let mut parts = components(&item, &name)?;
        let Some(first) = parts.first_mut() else {
            return if item.kind.is_dir() { Ok(()) } else { Err(hostile(&item, "an entry without a name")) };
        };
        if self.linux_roots.contains(first) {
            return self.linux_entry(item, &parts, content);
        }
        *first = WINDOWS_ROOTS
            .iter()
            .find(|root| root.eq_ignore_ascii_case(first))
            .ok_or_else(|| hostile(&item, format!("a Windows layer has no {first:?}")))?;
        let (last, parents) = parts.split_last().unwrap_or((&"", &[]));
        let said = whiteout::read_name(OsStr::new(last));
        if said == Said::Name && last.contains(':') {
            let owner = self.owner.as_mut().ok_or_else(|| hostile(&item, "a stream of no file"))?;
            return owner.take(&self.store, &item, content);
        }
        self.end_streams()?;
        match said {
            Said::Meta => Ok(()),
            Said::Nonsense => Err(hostile(&item, "a whiteout of no name")),
            Said::Opaque => {
                let directory = self.parents(&item, parents)?;
                self.may_delete(&item, &directory)?;
                self.tree.opaque(&item, &directory)
            }
            Said::Gone(gone) => {
                let directory = self.parents(&item, parents)?;
                let gone = gone.to_str().unwrap_or_default();
                self.whiteout(&item, &directory, gone)
            }
            Said::Name => {
                let directory = self.parents(&item, parents)?;
                self.node(item, &directory, last, content)
            }
        }
    }

    /// An entry of a tree in Linux' form; its root is the root that links are resolved in.
    fn linux_entry(
        &mut self,
        mut item: Item,
        parts: &[&str],
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        self.end_streams()?;
        let root = parts.first().copied().unwrap_or_default();
        if item.kind.is_hard_link() {
            let link = item.link.clone();
            let target = components(&item, &link)?;
            let inside = target.strip_prefix(&[root]);
            let inside = inside.ok_or_else(|| hostile(&item, format!("a hard link out of {root}")))?;
            item.link = inside.join("/").into_bytes();
        }
        if !self.linux.contains_key(root) {
            let path = self.to.join(root);
            std::fs::create_dir(&path).map_err(|e| LayerError::io("making", &path, e))?;
            let tree = match content.record() {
                Some(_) => LayerTree::recorded(&path, self.to)?,
                None => LayerTree::open(&path)?,
            };
            self.linux.insert(root.to_owned(), tree);
        }
        let path = clean(&item.name, parts[1..].join("/").as_bytes())?;
        match self.linux.get_mut(root) {
            Some(tree) => tree.entry(&item, &path, content),
            None => Err(hostile(&item, "its root is missing")),
        }
    }

    /// The directory of an entry as it is spelled, each part made known.
    fn parents(&mut self, item: &Item, parts: &[&str]) -> Result<PathBuf, LayerError> {
        let mut directory = PathBuf::new();
        for part in parts {
            names::check(part).map_err(|why| hostile(item, why))?;
            let known = self.spellings.enter(&directory, part);
            let known = known.map_err(|e| LayerError::io("reading", &directory, e))?;
            match (known.here, known.below) {
                (Some(Here::Directory | Here::Implied), _) => {}
                (Some(Here::Other), _) => return Err(hostile(item, "a parent of it is not a directory")),
                (Some(Here::Gone), _) => return Err(hostile(item, "a parent of it is deleted")),
                (None, None | Some(FileType::Directory)) => known.here = Some(Here::Implied),
                (None, Some(_)) => {
                    return Err(hostile(item, "a parent of it is not a directory in the layers below"));
                }
            }
            directory.push(&known.name);
        }
        Ok(directory)
    }

    /// Whiteouts are for drives, and for layers that have others below them.
    fn may_delete(&self, item: &Item, directory: &Path) -> Result<(), LayerError> {
        if drive(&owned(directory)).is_none() {
            return Err(hostile(item, "a whiteout outside Files"));
        }
        if self.lower.is_empty() {
            return Err(hostile(item, "a whiteout in a base layer"));
        }
        Ok(())
    }

    fn whiteout(&mut self, item: &Item, directory: &Path, name: &str) -> Result<(), LayerError> {
        self.may_delete(item, directory)?;
        names::check(name).map_err(|why| hostile(item, why))?;
        let known = self.spellings.enter(directory, name);
        let known = known.map_err(|e| LayerError::io("reading", directory, e))?;
        let path = directory.join(&known.name);
        if self.tree.hide(item, &path)? {
            known.here = Some(Here::Gone);
            if known.name != name {
                let kept = [(kept::NAME, name.as_bytes())];
                self.set(&path, FileType::CharacterDevice, &kept)?;
            }
        }
        Ok(())
    }

    /// Notes the streams of the entry before.
    fn end_streams(&mut self) -> Result<(), LayerError> {
        let Some(owner) = self.owner.take().filter(|owner| !owner.streams.is_empty()) else { return Ok(()) };
        let list = kept::encode_streams(&owner.streams);
        let values = [(kept::STREAMS, list.as_slice())];
        match owner.at {
            At::Node(path, kind) => self.set(&path, kind, &values),
            At::Waiting(at) => {
                let failed = |e| LayerError::io("keeping the streams of", self.to, e);
                let kept = kept::keep(&self.store, FileType::Symlink, &values).map_err(failed)?;
                if let Some((_, item)) = self.waiting.get_mut(at) {
                    item.kept.extend(kept);
                }
                Ok(())
            }
        }
    }

    fn set(&self, path: &Path, kind: FileType, values: &[(&str, &[u8])]) -> Result<(), LayerError> {
        let failed = |e: io::Error| LayerError::io("keeping the attributes of", path, e);
        let pin = OFlags::PATH | OFlags::NOFOLLOW;
        let root = fs::open(self.to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|e| failed(e.into()))?;
        let node = beneath::open_no_links(&root, path, pin, Mode::empty()).map_err(failed)?;
        let proc = format!("/proc/self/fd/{}", node.as_raw_fd());
        for (name, value) in kept::keep(&self.store, kind, values).map_err(failed)? {
            fs::setxattr(&proc, name, &value, XattrFlags::empty()).map_err(|e| failed(e.into()))?;
        }
        Ok(())
    }

    /// Makes the links, now that all they may lead to is known, and sets the times of directories.
    fn finish(mut self, reader: &mut Reader<'_>) -> Result<Unpacked, LayerError> {
        self.end_streams()?;
        for (path, mut item) in std::mem::take(&mut self.waiting) {
            if item.kind.is_symlink() {
                let directory = path.parent().unwrap_or(Path::new(""));
                let at = self.link_directory(&item, directory)?;
                let target = String::from_utf8_lossy(&item.link).into_owned();
                let target = match links::parse(&target, &at).map_err(|why| hostile(&item, why))? {
                    Target::Inside(parts) => {
                        links::relative(&at, &self.respell(directory, at.len(), &parts)?)
                    }
                    // Shows on Linux as what Windows has, and leads nowhere: without a slash it is one name.
                    Target::Elsewhere => target.replace('/', "\\"),
                };
                item.link = target.into_bytes();
            }
            self.tree.put(&item, &path, (0, 0), reader)?;
        }
        for (_, tree) in self.linux {
            tree.place.finish()?;
        }
        self.tree.place.finish()?;
        Ok(self.counter.sum)
    }

    /// A target below the drive's root in the spelling that it has, as far as it exists.
    fn respell(
        &mut self,
        directory: &Path,
        depth: usize,
        target: &[String],
    ) -> Result<Vec<String>, LayerError> {
        let root: PathBuf = directory.iter().take(directory.iter().count() - depth).collect();
        let mut spelled = Vec::new();
        let mut at = root;
        for part in target {
            let known = self.spellings.find(&at, part).map_err(|e| LayerError::io("reading", &at, e))?;
            let name = known.map_or_else(|| part.clone(), |known| known.name.clone());
            at.push(&name);
            spelled.push(name);
        }
        Ok(spelled)
    }
}
