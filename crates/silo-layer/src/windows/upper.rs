//! Writes what a container changed as a Windows layer.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::aside::Chain;
use super::describe::{self, Described};
use super::pack::{Packer, open_directory};
use super::{FILES, HIVES, names};
use crate::write::Writer;
use crate::{LayerError, merge};

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

fn directory(time: (i64, i64)) -> Described {
    describe::made(true, 0, time, false)
}

fn file(time: (i64, i64), size: u64) -> Described {
    describe::made(false, size, time, false)
}
