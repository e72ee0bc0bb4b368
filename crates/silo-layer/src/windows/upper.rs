//! Writes what a container changed as a Windows layer.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::aside::Chain;
use super::describe::{self, Described};
use super::names;
use super::pack::{Packer, open_directory};
use super::roots::{FILES, HIVES};
use crate::write::Writer;
use crate::{LayerError, merge, pack};

/// What a container changed.
#[derive(Debug, Clone, Copy)]
pub struct WindowsUpper<'a> {
    /// The overlay upper directory of `C:`.
    pub files: &'a Path,
    /// Trees of the layers below, uppermost first.
    pub lower: &'a [PathBuf],
    /// Names and content of the files of `Hives`, such as `Software_Delta`.
    pub hives: &'a [(&'a str, &'a [u8])],
    /// Files of `C:` that are not in `files`, or stand for those there: paths as they are spelled below, with slashes, and
    /// content.
    pub whole: &'a [(&'a str, &'a [u8])],
    /// Time of `Files`, `Hives`, what is in it, and of `whole`: seconds since 1970 and nanoseconds.
    pub time: (i64, i64),
    /// Paths from the root of `C:`, with slashes, whose empty files were made to be mounted on and are left out.
    pub own: &'a [&'a str],
}

/// Writes an overlay upper directory of `C:`, and changed hives, as the plain tar of a Windows layer.
///
/// Whiteouts become `.wh.` names, an opaque directory one for each name that it hides. What the container made or
/// changed in a way that Windows could not have is an error that names the path.
pub fn pack_windows_upper(upper: &WindowsUpper<'_>, to: &mut dyn Write) -> Result<(), LayerError> {
    let failed = |e| LayerError::io("writing the archive of", upper.files, e);
    let root = open_directory(upper.files)?;
    let chain = Chain::new(upper.lower.iter().map(PathBuf::as_path));
    let below = merge::lookup(upper.lower, FILES.as_ref());
    let below = below.map_err(|e| LayerError::io("reading the layers below", upper.files, e))?;
    let below = below.map(|seen| seen.paths).unwrap_or_default();
    let drives = [std::iter::once(upper.files.to_owned()).chain(below.iter().cloned()).collect(), Vec::new()];
    let mut packer = Packer {
        writer: Writer::new(to, 0),
        chain,
        links: HashMap::new(),
        own: upper.own,
        whole: upper.whole,
        time: upper.time,
        mount: None,
        drives,
    };
    directory(upper.time).header(FILES).write(&mut packer.writer).map_err(failed)?;
    packer.children(&root, &[FILES.to_owned()], FILES, &below)?;
    directory(upper.time).header(HIVES).write(&mut packer.writer).map_err(failed)?;
    let mut hives = upper.hives.to_vec();
    hives.sort();
    for (name, content) in hives {
        let path = Path::new(HIVES).join(name);
        names::check(name).map_err(|why| LayerError::tree(&path, why))?;
        let size = content.len() as u64;
        file(upper.time, size)
            .header(&format!("{HIVES}/{name}"))
            .write(&mut packer.writer)
            .map_err(failed)?;
        packer.writer.content(content, size).map_err(failed)?;
    }
    packer.writer.finish().map_err(failed)
}

/// What a container is, to be a base: all of `C:`, and further trees in Linux' form.
#[derive(Debug, Clone, Copy)]
pub struct WindowsRoot<'a> {
    /// `C:` as the container shows it.
    pub files: &'a Path,
    /// The trees that make it up, uppermost first: values that are kept aside are there.
    pub layers: &'a [PathBuf],
    /// As in [`WindowsUpper`].
    pub whole: &'a [(&'a str, &'a [u8])],
    /// As in [`WindowsUpper`].
    pub time: (i64, i64),
    /// Names and directories of trees in Linux' form.
    pub linux: &'a [(&'a str, &'a Path)],
}

/// Writes all of a container as the plain tar of a base layer. Of what is mounted in `C:` only the mount points are there.
pub fn pack_windows_root(root: &WindowsRoot<'_>, to: &mut dyn Write) -> Result<(), LayerError> {
    let failed = |e| LayerError::io("writing the archive of", root.files, e);
    let files = open_directory(root.files)?;
    let drives = [vec![root.files.to_owned()], Vec::new()];
    let mut packer = Packer {
        writer: Writer::new(to, 0),
        chain: Chain::new(root.layers.iter().map(PathBuf::as_path)),
        links: HashMap::new(),
        own: &[],
        whole: root.whole,
        time: root.time,
        mount: Some(pack::mount_of(&files).map_err(|e| failed(e.into()))?),
        drives,
    };
    directory(root.time).header(FILES).write(&mut packer.writer).map_err(failed)?;
    packer.children(&files, &[FILES.to_owned()], FILES, &[])?;
    for (name, path) in root.linux {
        let node = open_directory(path)?;
        let stat = rustix::fs::fstat(&node).map_err(|e| LayerError::io("reading", path, e))?;
        packer.writer = pack::pack_layer_node(packer.writer, node, &stat, name)?;
    }
    packer.writer.finish().map_err(failed)
}

fn directory(time: (i64, i64)) -> Described {
    describe::made(true, 0, time, false)
}

fn file(time: (i64, i64), size: u64) -> Described {
    describe::made(false, size, time, false)
}
