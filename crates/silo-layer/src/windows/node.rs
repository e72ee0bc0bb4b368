//! Puts one file, directory or link of a Windows layer in place, with all that belongs to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use tar::EntryType;

use super::kept::{self, Records};
use super::roots::{HIVES, drive};
use super::spelling::Here;
use super::streams::Owner;
use super::unpack::{At, Unpacker, hostile, owned};
use super::{links, names};
use crate::LayerError;
use crate::archive::{Item, Reader};

/// Bytes of links that wait for the end of the archive.
const MOST_WAITING: usize = 256 << 20;
const READ_ONLY: u32 = 0x1;
const HIDDEN_OR_SYSTEM: u32 = 0x6;

impl Unpacker<'_> {
    pub(super) fn node(
        &mut self,
        mut item: Item,
        directory: &Path,
        name: &str,
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        names::check(name).map_err(|why| hostile(&item, why))?;
        let path = self.claim(&item, directory, name)?;
        if item.kind.is_hard_link() {
            self.owner = None;
            return self.hard_link(item, path, content);
        }
        let kind = match item.kind {
            EntryType::Directory => FileType::Directory,
            EntryType::Symlink => FileType::Symlink,
            EntryType::Regular | EntryType::Continuous => FileType::RegularFile,
            _ => return Err(hostile(&item, "Windows has no such type of file")),
        };
        let top = path.iter().next().unwrap_or_default();
        if directory.as_os_str().is_empty() && kind != FileType::Directory {
            return Err(hostile(&item, "it must be a directory"));
        }
        if top == HIVES
            && (path.iter().count() > 2 || (path != Path::new(HIVES) && kind != FileType::RegularFile))
        {
            return Err(hostile(&item, "Hives holds files only"));
        }
        let records = kept::records_of(&item)?;
        self.describe(&mut item, kind, name, &path, &records)?;
        let shown = path.clone();
        let path = if kind == FileType::Directory { path } else { self.own.place(path) };
        if kind == FileType::Symlink && path != shown {
            // Nobody can link to a link that is not shown.
            self.owner = None;
            return Ok(());
        }
        if kind == FileType::Symlink {
            links::parse(&String::from_utf8_lossy(&item.link), &self.link_directory(&item, directory)?)
                .map_err(|why| hostile(&item, why))?;
            self.owner = Some(Owner::new(&item.name, At::Waiting(self.waiting.len())));
            return self.wait(path, item);
        }
        let owner = Owner::new(&item.name, At::Node(path.clone(), kind));
        self.tree.put(&item, &path, (0, 0), content)?;
        self.owner = Some(owner);
        Ok(())
    }

    /// The path of a new node; refuses a name that this layer has already.
    fn claim(&mut self, item: &Item, directory: &Path, name: &str) -> Result<PathBuf, LayerError> {
        let known = self.spellings.enter(directory, name);
        let known = known.map_err(|e| LayerError::io("reading", directory, e))?;
        let is_dir = item.kind.is_dir();
        match known.here {
            Some(Here::Implied) if is_dir => {}
            Some(Here::Directory | Here::Other | Here::Implied) if known.name == name => {
                return Err(hostile(item, "the archive has this name already"));
            }
            Some(Here::Directory | Here::Other | Here::Implied) => {
                let why = format!("the archive has this name already, or as {:?}", known.name);
                return Err(hostile(item, why));
            }
            Some(Here::Gone) | None => {}
        }
        known.here = Some(if is_dir { Here::Directory } else { Here::Other });
        Ok(directory.join(&known.name))
    }

    /// Sets mode and attributes of an entry from its records.
    fn describe(
        &self,
        item: &mut Item,
        kind: FileType,
        name: &str,
        path: &Path,
        records: &Records,
    ) -> Result<(), LayerError> {
        let attributes = records.get(kept::FILE_ATTRIBUTES).and_then(|text| kept::number(text));
        item.mode = mode(item.mode, kind, attributes, name);
        item.xattrs.clear();
        let encoded = kept::encode(records.iter().map(|(k, v)| (k.as_slice(), v.as_slice())));
        let type_bits = format!("{:o}", item.type_bits);
        let mut values = vec![(kept::RECORDS, encoded.as_slice())];
        if path.file_name() != Some(OsStr::new(name)) {
            values.push((kept::NAME, name.as_bytes()));
        }
        if kind == FileType::Symlink {
            values.push((kept::TARGET, item.link.as_slice()));
        }
        if item.type_bits != usual_type_bits(kind, attributes) {
            values.push((kept::TYPE_BITS, type_bits.as_bytes()));
        }
        let keep = kept::keep(&self.store, kind, &values);
        item.kept = keep.map_err(|e| LayerError::io("keeping the attributes of", path, e))?;
        let dos = attributes.unwrap_or(0) & HIDDEN_OR_SYSTEM;
        if dos != 0 && kind != FileType::Symlink {
            item.kept.push((kept::DOS_ATTRIBUTES.into(), format!("{dos:#x}").into_bytes()));
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, path: PathBuf, item: Item) -> Result<(), LayerError> {
        let kept: usize = item.kept.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.waiting_bytes += 300 + 2 * item.name.len() + item.link.len() + kept;
        if self.waiting_bytes > MOST_WAITING {
            return Err(hostile(&item, "too many links"));
        }
        let records = Vec::new();
        self.waiting.push((path, Item { records, ..item }));
        Ok(())
    }

    /// The directory of a link below its drive's root.
    pub(super) fn link_directory(&self, item: &Item, directory: &Path) -> Result<Vec<String>, LayerError> {
        let parts = owned(directory);
        let root = drive(&parts).ok_or_else(|| hostile(item, "a link outside Files"))?;
        Ok(parts[root..].to_vec())
    }
}

/// The type bits that Windows' tools write.
pub(super) fn usual_type_bits(kind: FileType, attributes: Option<u32>) -> u32 {
    const DIRECTORY_ATTRIBUTE: u32 = 0x10;
    match kind {
        FileType::Directory => 0o040_000,
        FileType::Symlink if attributes.is_some_and(|a| a & DIRECTORY_ATTRIBUTE != 0) => 0o160_000,
        FileType::Symlink => 0o120_000,
        _ => 0o100_000,
    }
}

/// The permissions of a node: those of the archive if it has any, else what Wine gives to new files.
fn mode(archive: u32, kind: FileType, attributes: Option<u32>, name: &str) -> u32 {
    if kind == FileType::Directory {
        // Read-only says nothing of a directory on Windows.
        return if archive & 0o777 == 0 { 0o755 } else { (archive & 0o777) | 0o700 };
    }
    let runs = [".exe", ".com"].iter().any(|end| {
        let cut = name.len().saturating_sub(end.len());
        name.get(cut..).is_some_and(|found| found.eq_ignore_ascii_case(end))
    });
    let mode = match archive & 0o777 {
        0 if runs => 0o755,
        0 => 0o644,
        given => given | 0o400,
    };
    match attributes {
        Some(attributes) if attributes & READ_ONLY != 0 => mode & !0o222,
        _ => mode | 0o200,
    }
}
