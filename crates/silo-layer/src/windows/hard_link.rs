//! Hard links of a Windows layer: to a file of this layer, or of a layer below, which is copied.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::roots::{WINDOWS_ROOTS, drive};
use super::spelling::Here;
use super::unpack::{Unpacker, components, hostile, owned};
use crate::archive::{Item, Reader};
use crate::merge::{self, Seen};
use crate::{LayerError, copy};

/// Names that a file may have (NTFS).
const MOST_NAMES: u64 = 1024;

impl Unpacker<'_> {
    pub(super) fn hard_link(
        &mut self,
        mut item: Item,
        path: PathBuf,
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        let link = item.link.clone();
        let parts = components(&item, &link)?;
        let shown = String::from_utf8_lossy(&link).into_owned();
        let missing = || hostile(&item, format!("hard link to {shown:?}, which is not in the layers"));
        let mut target = PathBuf::new();
        let mut here = None;
        for (i, part) in parts.iter().enumerate() {
            let part = match i {
                0 => WINDOWS_ROOTS.iter().find(|root| root.eq_ignore_ascii_case(part)).ok_or_else(missing)?,
                _ => part,
            };
            let known = self.spellings.find(&target, part);
            let known = known.map_err(|e| LayerError::io("reading", &target, e))?.ok_or_else(missing)?;
            here = known.here;
            target.push(&known.name);
        }
        let (from, to) = (owned(&target), owned(&path));
        let same_drive = |(a, b)| from.get(..a) == to.get(..b);
        if !drive(&from).zip(drive(&to)).is_some_and(same_drive) {
            return Err(hostile(&item, format!("hard link to {shown:?}, which is on no drive or another")));
        }
        if target == path {
            return Err(hostile(&item, "hard link to itself"));
        }
        let path = self.own.place(path);
        match here {
            Some(Here::Directory | Here::Implied) => {
                Err(hostile(&item, format!("hard link to {shown:?}, a directory")))
            }
            Some(Here::Other) => {
                let target = self.own.place(target);
                item.link = target.as_os_str().as_bytes().to_vec();
                match self.to.join(&target).symlink_metadata() {
                    Ok(meta) if meta.nlink() >= MOST_NAMES => {
                        Err(hostile(&item, format!("more than {MOST_NAMES} names of one file")))
                    }
                    Ok(_) => self.tree.put(&item, &path, (0, 0), content),
                    // A link, or a hard link to one, which is not made yet.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => self.wait(path, item),
                    Err(e) => Err(LayerError::io("reading", &target, e)),
                }
            }
            Some(Here::Gone) | None => {
                let seen = self.below(&target).map_err(|e| LayerError::io("reading", &target, e))?;
                self.copy(&item, &path, &seen.ok_or_else(missing)?)
            }
        }
    }

    /// What the layers below show at a path.
    fn below(&self, path: &Path) -> io::Result<Option<Seen>> {
        let mut directories = self.lower.to_vec();
        let mut found = None;
        for part in path {
            found = merge::lookup(&directories, part)?;
            let Some(seen) = &found else { return Ok(None) };
            directories = if seen.kind() == FileType::Directory { seen.paths.clone() } else { Vec::new() };
        }
        Ok(found.filter(|seen| seen.kind() == FileType::RegularFile))
    }

    /// Copies a file of a layer below: an overlay has no links from layer to layer.
    fn copy(&mut self, item: &Item, path: &Path, seen: &Seen) -> Result<(), LayerError> {
        if !self.copied.contains_key(&(seen.stat.st_dev, seen.stat.st_ino)) {
            self.counter.bytes(item, seen.stat.st_size.max(0) as u64)?;
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        self.tree.place.parent(&item.name, directory)?;
        // A whiteout of this layer may be there.
        let _ = std::fs::remove_file(self.to.join(path));
        copy::copy_linked(seen, &self.to.join(path), &mut self.copied)
            .map_err(|e| LayerError::io("copying from a layer below to", path, e))
    }
}
