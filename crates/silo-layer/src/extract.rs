//! Extracts an archive into a tree that somebody else may be changing: `docker cp` into a container.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use silo_sys::beneath;

use crate::LayerError;
use crate::archive::Reader;
use crate::place::{Place, clean};
use crate::unpack::{Counter, Limits};

/// How [`extract`] treats what is there and whom it gives the files to.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// A directory is not replaced by something else, nor the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Owners are the archive's; otherwise root's.
    pub keep_owner: bool,
    /// Everything belongs to this user and group, as seen inside the tree.
    pub owner: Option<(u32, u32)>,
    /// Added to every owner.
    pub id_offset: u32,
    /// How much the archive may have; `None`: as much as there is room for.
    pub limits: Option<Limits>,
}

/// Where an entry of this name goes, an absolute path inside the root; `None`: it is the directory extracted into. The error
/// says why it goes nowhere.
pub type Places<'a> = dyn FnMut(&[u8]) -> Result<Option<PathBuf>, String> + 'a;

/// Extracts a plain tar beneath `path`, a directory inside `root`; links are resolved inside `root` only. Names are paths
/// below `path` unless `places` tells otherwise.
pub fn extract(
    root: BorrowedFd<'_>,
    path: &Path,
    tar: &mut dyn Read,
    options: &ExtractOptions,
    mut places: Option<&mut Places<'_>>,
) -> Result<(), LayerError> {
    let mut base = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => base.push(name),
            // Above the root is the root.
            Component::ParentDir => drop(base.pop()),
            _ => {}
        }
    }
    // Entries resolve their links against the whole root, so the directory is put before their names.
    beneath::open_in_root(root, &base, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(|e| LayerError::io("opening", path, e))?;
    let root = root.try_clone_to_owned().map_err(|e| LayerError::io("opening", path, e))?;
    let mut place = Place::new(root);
    place.id_offset = options.id_offset;
    place.no_overwrite_dir_non_dir = options.no_overwrite_dir_non_dir;
    let mut reader = Reader::lenient(tar);
    let mut counter = options.limits.as_ref().map(Counter::new);
    while let Some(mut item) = reader.next()? {
        if let Some(counter) = &mut counter {
            counter.entry(&item)?;
        }
        let mut at = |name: &[u8]| match &mut places {
            Some(places) => match places(name) {
                Ok(at) => Ok(at.map(|at| at.strip_prefix("/").unwrap_or(&at).to_owned())),
                Err(why) => Err(LayerError::hostile(&item.name, why)),
            },
            None => {
                let inside = clean(&item.name, name)?;
                Ok(Some(inside).filter(|p| !p.as_os_str().is_empty()).map(|p| base.join(p)))
            }
        };
        let inside = at(&item.name)?;
        if item.kind.is_hard_link() {
            // Named relative to where the archive is extracted.
            let target = at(&item.link)?.unwrap_or_else(|| base.clone());
            item.link = target.into_os_string().into_encoded_bytes();
        }
        let (uid, gid) = match options.owner {
            Some(owner) => owner,
            None if options.keep_owner => (item.uid, item.gid),
            None => (0, 0),
        };
        let owner = (uid.saturating_add(options.id_offset), gid.saturating_add(options.id_offset));
        // The directory itself is the container's and stays as it is.
        let Some(inside) = inside else { continue };
        place.put(&item, &inside, owner, &mut reader)?;
    }
    place.finish()
}
