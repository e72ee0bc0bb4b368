//! What a copy's sources are: pieces that land at the target, each a list of nodes, parents first.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, FileType};
use sha2::{Digest as _, Sha256};
use silo_image::{Digest, layer};

use super::archive::is_archive;
use super::digest::digest;
use super::hash::Hashes;
use super::mode::ModeChange;
use super::nodes::{Content, Maker, Node, Piece};
use super::request::{CopyError, Doing, Fetched, Item, Request};
use super::tree::{Tree, roots, slashes};
use super::{owner, pattern};

type Result<T> = std::result::Result<T, CopyError>;

/// A copy whose sources are known.
#[derive(Debug)]
pub struct Prepared {
    pub(super) request: Request,
    pub(super) pieces: Vec<Piece>,
    /// `--chown`.
    pub(super) chown: Option<(u32, u32)>,
    digest: Digest,
}

impl Prepared {
    /// Of contents, names, types, modes, owners and extended attributes of what is copied; not of times, nor of the target.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Finds and hashes what is to be copied.
pub fn prepare(request: Request, hashes: &Hashes) -> Result<Prepared> {
    let form = request.form;
    let below = roots(&request.lower, form);
    let chown = match request.chown.as_deref().filter(|_| !form.windows) {
        Some(text) => Some(owner::parse(text, &below)?),
        None => None,
    };
    let chmod = request.chmod.as_deref().filter(|text| !text.is_empty()).map(ModeChange::parse).transpose();
    let chmod = chmod.map_err(CopyError::Refused)?;
    let maker =
        Maker { windows: form.windows, chown, chmod, exclude: request.exclude.as_ref(), keep_owners: false };
    let mut finder = Finder { request: &request, maker, pieces: Vec::new() };
    for item in &request.items {
        finder.item(item)?;
    }
    let mut pieces = finder.pieces;
    if pieces.is_empty() {
        return Err(failed(&request, "no source files were specified"));
    }
    let single = pieces.len() == 1 || request.parents;
    if !single && !request.into {
        return Err(CopyError::Refused(format!(
            "When using {} with more than one source file, the destination must be a directory and end with a /",
            request.verb
        )));
    }
    let digest = digest(&mut pieces, hashes, chown, form.windows)?;
    Ok(Prepared { request, pieces, chown, digest })
}

/// In dockerd's form: `COPY failed: …`.
fn failed(request: &Request, why: impl std::fmt::Display) -> CopyError {
    CopyError::Refused(format!("{} failed: {why}", request.verb))
}

struct Finder<'a> {
    request: &'a Request,
    maker: Maker<'a>,
    pieces: Vec<Piece>,
}

impl Finder<'_> {
    fn item(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Path { tree, path } => self.path(tree, path),
            Item::Exact { tree, path } => self.found(tree, path, Path::new("")),
            Item::Bytes { name, content } => {
                let mode = self.maker.changed(0o644, false);
                let node = Node {
                    path: PathBuf::new(),
                    content: Content::Bytes(content.clone()),
                    from: PathBuf::new(),
                    stat: None,
                    mode,
                    owner: self.maker.chown.unwrap_or_default(),
                    mtime: None,
                    xattrs: Vec::new(),
                    own: false,
                    implied: false,
                    hash: Some(Sha256::digest(content).into()),
                };
                self.pieces.push(Piece { name: Some(name.into()), nodes: vec![node], archive: None });
                Ok(())
            }
            Item::Fetched(file) => self.fetched(file),
            Item::Directory { path, .. } => {
                let tree = Tree::context(path);
                self.found(&tree, Path::new(""), Path::new(""))
            }
        }
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.request.exclude.as_ref().is_some_and(|exclude| exclude.0(path))
    }

    fn fetched(&mut self, file: &Fetched) -> Result<()> {
        let name = match &file.name {
            Some(name) => name.clone(),
            None if !self.request.into => String::new(),
            None => {
                return Err(failed(
                    self.request,
                    format!("cannot determine filename from url: {}", file.url),
                ));
            }
        };
        let stat = fs::lstat(&file.path).map_err(CopyError::io(format!("reading what {} is", file.url)))?;
        if self.request.unpack_fetched && is_archive(&file.path)? {
            self.pieces.push(Piece { name: None, nodes: Vec::new(), archive: Some(file.path.clone()) });
            return Ok(());
        }
        let mut node = self.maker.node(&file.path, stat, PathBuf::new(), true)?;
        node.mode = self.maker.changed(0o600, false);
        let at = |time: jiff::Timestamp| (time.as_second(), i64::from(time.subsec_nanosecond()));
        node.mtime = Some(file.modified.map_or((0, 0), at));
        node.own = false;
        self.pieces.push(Piece { name: Some(name.into()), nodes: vec![node], archive: None });
        Ok(())
    }

    fn path(&mut self, tree: &Tree, written: &str) -> Result<()> {
        let windows = tree.windows || self.request.form.windows;
        let text = slashes(written, windows).map_err(|why| failed(self.request, why))?;
        if tree.own && leads_out(&text) {
            return Err(failed(
                self.request,
                format!("forbidden path outside the build context: {written} ()"),
            ));
        }
        // `--parents`: what is before `/./` is not made in the target.
        let (base, text) = match text.split_once("/./").filter(|_| self.request.parents) {
            Some((base, rest)) => (clean(Path::new(base)), format!("{base}/{rest}")),
            None => (PathBuf::new(), text),
        };
        let is_pattern = pattern::is_pattern(&text);
        let matched = match is_pattern {
            true => pattern::expand(tree, &text, self.request.parents)?,
            false => vec![clean(Path::new(&unescaped(&text, windows)))],
        };
        for path in matched {
            self.found(tree, &path, &base)?;
        }
        Ok(())
    }

    /// A source that exists, or must. `base`: of `--parents`.
    fn found(&mut self, tree: &Tree, path: &Path, base: &Path) -> Result<()> {
        let missing = || {
            let shown = path.display();
            match tree.own {
                true => failed(
                    self.request,
                    format!(
                        "file not found in build context or excluded by .dockerignore: stat {shown}: file does not exist"
                    ),
                ),
                false => failed(self.request, format!("stat {shown}: file does not exist")),
            }
        };
        let resolved = match tree.resolve(path) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) => {
                return Err(missing());
            }
            other => other.map_err(CopyError::io(format!("looking for {}", path.display())))?,
        };
        let Some(seen) = resolved.seen else { return Err(missing()) };
        let shown = path.file_name().unwrap_or_default().to_owned();
        let is_directory = seen.kind() == FileType::Directory;
        if !is_directory && self.is_excluded(if self.request.parents { path } else { Path::new(&shown) }) {
            return Ok(());
        }
        if self.request.parents {
            return self.with_parents(tree, path, base, &seen);
        }
        let mut nodes = Vec::new();
        if is_directory {
            self.maker.walk(tree, &seen, Path::new(""), 0, &mut nodes)?;
            self.pieces.push(Piece { name: None, nodes, archive: None });
            return Ok(());
        }
        let from = seen.path().to_owned();
        if self.request.unpack_local && seen.kind() == FileType::RegularFile && is_archive(&from)? {
            self.pieces.push(Piece { name: None, nodes, archive: Some(from) });
            return Ok(());
        }
        nodes.push(self.maker.node(&from, seen.stat, PathBuf::new(), tree.own)?);
        self.pieces.push(Piece { name: Some(shown), nodes, archive: None });
        Ok(())
    }

    /// One piece whose directories are those that the source is in, below `base`.
    fn with_parents(&mut self, tree: &Tree, path: &Path, base: &Path, seen: &layer::Seen) -> Result<()> {
        let kept = path.strip_prefix(base).unwrap_or(path);
        let mut nodes = Vec::new();
        let mut so_far = PathBuf::new();
        for part in kept.parent().into_iter().flat_map(Path::components) {
            so_far.push(part);
            let reading = || format!("reading {}", so_far.display());
            let parent = tree.resolve(&base.join(&so_far)).doing(reading)?.seen;
            let parent = parent.ok_or_else(|| CopyError::io(reading())(rustix::io::Errno::NOENT))?;
            nodes.push(self.maker.node(parent.path(), parent.stat, so_far.clone(), tree.own)?);
        }
        if !kept.as_os_str().is_empty() {
            nodes.push(self.maker.node(seen.path(), seen.stat, kept.to_owned(), tree.own)?);
        }
        if seen.kind() == FileType::Directory {
            self.maker.walk(tree, seen, kept, 0, &mut nodes)?;
        }
        self.pieces.push(Piece { name: None, nodes, archive: None });
        Ok(())
    }
}

/// Whether a path's `..` lead above where it begins.
fn leads_out(text: &str) -> bool {
    let mut depth = 0i64;
    for part in Path::new(text).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// Without `.`, `..` and a leading slash.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// `\` protects a character in what is no pattern too.
fn unescaped(text: &str, windows: bool) -> String {
    if windows || !text.contains('\\') {
        return text.to_owned();
    }
    let (mut plain, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}
