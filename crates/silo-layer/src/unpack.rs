//! Unpacks a layer archive into an empty directory, in the form overlayfs wants.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::LayerError;
use crate::archive::{Item, Reader};
use crate::place::{Place, clean};
use crate::record::Record;
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

/// Adds up what an archive holds and refuses too much.
pub(crate) struct Counter<'l> {
    pub(crate) sum: Unpacked,
    limits: &'l Limits,
}

impl<'l> Counter<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self { sum: Unpacked::default(), limits }
    }

    /// Counts one entry, before anything of it is written.
    pub(crate) fn entry(&mut self, item: &Item) -> Result<(), LayerError> {
        self.sum.entries += 1;
        self.bytes(item, item.size)?;
        if self.sum.entries > self.limits.entries {
            return Err(over(item, self.limits.entries, "entries"));
        }
        Ok(())
    }

    /// Counts bytes that an entry makes.
    pub(crate) fn bytes(&mut self, item: &Item, bytes: u64) -> Result<(), LayerError> {
        self.sum.bytes = self.sum.bytes.saturating_add(bytes);
        if self.sum.bytes > self.limits.bytes {
            return Err(over(item, self.limits.bytes, "bytes"));
        }
        Ok(())
    }
}

fn over(item: &Item, limit: u64, what: &'static str) -> LayerError {
    LayerError::Limit { entry: String::from_utf8_lossy(&item.name).into_owned(), limit, what }
}

/// A tree that the entries of a layer are put into, whiteouts in overlayfs' spelling.
pub(crate) struct LayerTree {
    pub(crate) place: Place,
    gone: HashSet<PathBuf>,
}

impl LayerTree {
    pub(crate) fn open(to: &Path) -> Result<Self, LayerError> {
        let root = fs::open(to, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| LayerError::io("opening", to, e))?;
        Ok(Self { place: Place::new(root), gone: HashSet::new() })
    }

    /// A tree in `tree`, at its root or below, whose archive is recorded.
    pub(crate) fn recorded(to: &Path, tree: &Path) -> Result<Self, LayerError> {
        let mut new = Self::open(to)?;
        let root = fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        root.map_err(Into::into)
            .and_then(|root| new.place.record(root))
            .map_err(|e| LayerError::io("opening", tree, e))?;
        Ok(new)
    }

    /// One entry as a Linux layer has it, `path` being its clean name.
    pub(crate) fn entry(
        &mut self,
        item: &Item,
        path: &Path,
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        match path.file_name().map_or(Said::Name, whiteout::read_name) {
            Said::Meta => Ok(()),
            Said::Nonsense => Err(LayerError::hostile(&item.name, "a whiteout of no name")),
            Said::Opaque => self.opaque(item, path.parent().unwrap_or(Path::new(""))),
            Said::Gone(name) => self.hide(item, &path.with_file_name(name)).map(drop),
            Said::Name => self.put(item, path, (item.uid, item.gid), content),
        }
    }

    /// Puts a node in place.
    pub(crate) fn put(
        &mut self,
        item: &Item,
        path: &Path,
        owner: (u32, u32),
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        self.place.put(item, path, owner, content)?;
        // Gone below and made anew: nothing of the lower directory may show through.
        if item.kind.is_dir() && self.gone.remove(path) {
            self.opaque(item, path)?;
        }
        Ok(())
    }

    /// Makes the directory hide what lies below it.
    pub(crate) fn opaque(&mut self, item: &Item, dir: &Path) -> Result<(), LayerError> {
        let fd = self.place.parent(&item.name, dir)?;
        whiteout::set_opaque(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))
            .map_err(|e| LayerError::io("making opaque", dir, e))
    }

    /// Makes the whiteout; `false` if this very layer has the name (it hides what is below all the same).
    pub(crate) fn hide(&mut self, item: &Item, path: &Path) -> Result<bool, LayerError> {
        let (dir, Some(name)) = (path.parent().unwrap_or(Path::new("")), path.file_name()) else {
            return Ok(false);
        };
        let parent = self.place.parent(&item.name, dir)?;
        match whiteout::make(parent, name) {
            Ok(()) => {
                self.gone.insert(path.to_owned());
                return Ok(true);
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(LayerError::io("making the whiteout", path, e)),
        }
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| LayerError::io("reading", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.opaque(item, path)?;
        }
        Ok(false)
    }
}

/// Unpacks the plain tar of a Linux layer into the empty directory `to`.
///
/// `.wh.x` becomes the character device 0/0 `x`, `.wh..wh..opq` the attribute `trusted.overlay.opaque`. Nothing is
/// ever written outside `to`; an archive that tries, or exceeds `limits`, is an error that names the entry. The
/// reader is left after the end mark.
pub fn unpack(tar: &mut dyn Read, to: &Path, limits: &Limits) -> Result<Unpacked, LayerError> {
    unpack_from(Reader::new(tar), LayerTree::open(to)?, limits)
}

/// As [`unpack`], telling `record` what is read and where it is in the tree.
pub fn unpack_recorded(
    tar: &mut dyn Read,
    to: &Path,
    limits: &Limits,
    record: &mut dyn Record,
) -> Result<Unpacked, LayerError> {
    unpack_from(Reader::recorded(tar, record), LayerTree::recorded(to, to)?, limits)
}

fn unpack_from(mut reader: Reader<'_>, mut tree: LayerTree, limits: &Limits) -> Result<Unpacked, LayerError> {
    let mut counter = Counter::new(limits);
    while let Some(item) = reader.next()? {
        counter.entry(&item)?;
        tree.entry(&item, &clean(&item.name, &item.name)?, &mut reader)?;
    }
    tree.place.finish()?;
    Ok(counter.sum)
}
