//! Finds names in any spelling: in the layer being unpacked and in the chain below it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_sys::beneath;

use super::names;
use crate::whiteout;

/// What this layer has under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// A directory that no entry was there for.
    Implied,
    /// A directory.
    Directory,
    /// A file or link.
    Other,
    /// A whiteout.
    Gone,
}

/// One name of a directory.
#[derive(Debug)]
pub(super) struct Known {
    /// As it is spelled, here and in all layers below.
    pub(super) name: String,
    /// Whether the layers below have it, as a directory or as something else; a whiteout counts as nothing.
    pub(super) below: Option<FileType>,
    /// What this layer has.
    pub(super) here: Option<Here>,
}

type Listing = HashMap<Vec<u16>, Known>;

/// The names seen so far. A directory of the layers below is read once, when first asked about; memory is that of the
/// names.
#[derive(Debug)]
pub(super) struct Spellings {
    lower: Vec<OwnedFd>,
    directories: HashMap<PathBuf, Listing>,
}

impl Spellings {
    /// `lower`: trees of the layers below, uppermost first.
    pub(super) fn open(lower: &[PathBuf]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| fs::open(path, flags, Mode::empty());
        Ok(Self { lower: lower.iter().map(open).collect::<Result<_, _>>()?, directories: HashMap::new() })
    }

    /// What is known of `name` in `directory`, in whatever spelling.
    pub(super) fn find(&mut self, directory: &Path, name: &str) -> io::Result<Option<&mut Known>> {
        Ok(self.listing(directory)?.get_mut(&names::fold(name)))
    }

    /// The same; a name that is nowhere is entered as spelled.
    pub(super) fn enter(&mut self, directory: &Path, name: &str) -> io::Result<&mut Known> {
        let new = || Known { name: name.to_owned(), below: None, here: None };
        Ok(self.listing(directory)?.entry(names::fold(name)).or_insert_with(new))
    }

    fn listing(&mut self, directory: &Path) -> io::Result<&mut Listing> {
        if !self.directories.contains_key(directory) {
            let mut listing = Listing::new();
            for layer in &self.lower {
                match read(layer, directory, &mut listing) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    // Not a directory here: what lies further below does not show.
                    Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOTDIR | Errno::LOOP)) => break,
                    Err(e) => return Err(e),
                }
            }
            self.directories.insert(directory.to_owned(), listing);
        }
        self.directories.get_mut(directory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Adds the names of one layer's directory; the layers above have been there before.
fn read(layer: &OwnedFd, directory: &Path, listing: &mut Listing) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = beneath::open_no_links(layer, directory, flags, Mode::empty())?;
    for entry in fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let mut kind = entry.file_type();
        if matches!(kind, FileType::CharacterDevice | FileType::Unknown) {
            let stat = fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            kind = FileType::from_raw_mode(stat.st_mode);
            if whiteout::is_whiteout(&stat) {
                kind = FileType::Unknown;
            }
        }
        let below = (kind != FileType::Unknown).then_some(kind);
        listing.entry(names::fold(name)).or_insert_with(|| Known {
            name: name.to_owned(),
            below,
            here: None,
        });
    }
    Ok(())
}
