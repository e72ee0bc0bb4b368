//! Unpacks a layer archive into an empty directory, in the form overlayfs wants.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::LayerError;
use crate::archive::{Item, Reader};
use crate::place::{Place, clean};
use crate::whiteout::{self, Said};

/// How much an archive may unpack to.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries of any type.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 40, entries: 10_000_000 }
    }
}

/// What an archive unpacked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries of any type.
    pub entries: u64,
}

/// Unpacks the plain tar of a Linux layer into the empty directory `to`.
///
/// `.wh.x` becomes the character device 0/0 `x`, `.wh..wh..opq` the attribute `trusted.overlay.opaque`. Nothing is
/// ever written outside `to`; an archive that tries, or exceeds `limits`, is an error that names the entry. The
/// reader is left after the end mark.
pub fn unpack(tar: &mut dyn Read, to: &Path, limits: &Limits) -> Result<Unpacked, LayerError> {
    let root = fs::open(to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LayerError::io("opening", to, e))?;
    let mut place = Place::new(root);
    let mut reader = Reader::new(tar);
    let mut sum = Unpacked::default();
    let mut gone = HashSet::new();
    while let Some(item) = reader.next()? {
        sum.entries += 1;
        sum.bytes = sum.bytes.saturating_add(item.size);
        let over = |limit, what| LayerError::Limit {
            entry: String::from_utf8_lossy(&item.name).into_owned(),
            limit,
            what,
        };
        if sum.entries > limits.entries {
            return Err(over(limits.entries, "entries"));
        }
        if sum.bytes > limits.bytes {
            return Err(over(limits.bytes, "bytes"));
        }
        let path = clean(&item.name, &item.name)?;
        match path.file_name().map_or(Said::Name, whiteout::read_name) {
            Said::Meta => {}
            Said::Nonsense => return Err(LayerError::hostile(&item.name, "a whiteout of no name")),
            Said::Opaque => opaque(&mut place, &item, path.parent().unwrap_or(Path::new("")))?,
            Said::Gone(name) => {
                let path = path.with_file_name(name);
                if hide(&mut place, &item, &path)? {
                    gone.insert(path);
                }
            }
            Said::Name => {
                place.put(&item, &path, (item.uid, item.gid), &mut reader)?;
                // Gone below and made anew: nothing of the lower directory may show through.
                if item.kind.is_dir() && gone.remove(&path) {
                    opaque(&mut place, &item, &path)?;
                }
            }
        }
    }
    place.finish()?;
    Ok(sum)
}

fn opaque(place: &mut Place, item: &Item, dir: &Path) -> Result<(), LayerError> {
    let fd = place.parent(&item.name, dir)?;
    whiteout::set_opaque(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))
        .map_err(|e| LayerError::io("making opaque", dir, e))
}

/// Makes the whiteout; `false` if this very layer has the name (it hides what is below all the same).
fn hide(place: &mut Place, item: &Item, path: &Path) -> Result<bool, LayerError> {
    let (dir, Some(name)) = (path.parent().unwrap_or(Path::new("")), path.file_name()) else {
        return Ok(false);
    };
    let parent = place.parent(&item.name, dir)?;
    match whiteout::make(parent, name) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => {}
        Err(e) => return Err(LayerError::io("making the whiteout", path, e)),
    }
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| LayerError::io("reading", path, e))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        opaque(place, item, path)?;
    }
    Ok(false)
}
