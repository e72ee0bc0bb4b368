//! Layers on disk: each unpacked once under its chain, its archive kept by `content.rs` or as a record beside it.
//!
//! `snapshots/<16 hex of the chain ID>/` (short: overlay options are limited to a page), `snapshots/<…>.json` its
//! [`LayerRecord`]; of one that came from no registry `<…>.split` and, seldom, `<…>.aside/` (`split.rs`). Everything is made
//! under a temporary name and renamed; the layer's record is written last, marked until all is on disk (`unsynced.rs`).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use silo_layer::{OwnFiles, Record as _};

use crate::content::{Content, LayerBlob};
use crate::digest::{ChainId, Digest, Proved};
use crate::error::{ImageError, Result, io};
use crate::hashing::Tee;
use crate::manifest::Descriptor;
use crate::split::{Joined, Splitter};
use crate::unsynced::Unsynced;

/// Bytes of a list of own files.
const MAX_LIST: u64 = 4 << 20;
/// The `os` of images whose layers are of the Windows format.
pub(crate) const WINDOWS: &str = "windows";
/// Their top directories in Linux' form: a base's Linux side.
pub(crate) const LINUX_ROOTS: &[&str] = &["Host"];

/// In the lowest layer of a Windows image, if it says so: its files that no layer above replaces.
const OWN_FILES: &str = "Host/usr/share/silo/own-files";

/// The list of the lowest of these layers, uppermost first.
fn own_files(lower: &[PathBuf]) -> io::Result<OwnFiles> {
    let Some(base) = lower.last() else { return Ok(OwnFiles::default()) };
    // Layers are anybody's: nothing but a file in it is read.
    let base = File::open(base)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = match silo_sys::beneath::open_no_links(&base, Path::new(OWN_FILES), flags, Mode::empty()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(OwnFiles::default()),
        other => File::from(other?),
    };
    let mut text = String::new();
    if file.metadata()?.is_file() {
        file.take(MAX_LIST).read_to_string(&mut text)?;
    }
    Ok(OwnFiles::read(&text))
}

/// How a layer's archive is to be read.
#[derive(Clone, Copy)]
pub(crate) enum Format<'a> {
    Linux,
    /// Over the trees of the layers below, uppermost first.
    Windows(&'a [PathBuf]),
}

/// The chain IDs of layers, lowest first.
pub(crate) fn chains(diffs: &[Digest]) -> Vec<ChainId> {
    let mut chains = Vec::with_capacity(diffs.len());
    for diff in diffs {
        chains.push(Digest::chain(chains.last(), diff));
    }
    chains
}

/// One unpacked layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) chain: ChainId,
    pub(crate) diff: Digest,
    /// Bytes of the plain tar.
    pub(crate) tar_size: u64,
    /// Bytes of file content.
    pub(crate) size: u64,
}

/// What is kept of a layer's archive.
pub(crate) enum Keep<'a> {
    /// A record of it: with the files the archive byte for byte.
    Record,
    /// The blob that it comes from: told once that is verified, has its name and may be synced.
    Blob(&'a (dyn Fn() -> Result<LayerBlob> + Sync)),
}

/// A layer that is unpacked and has no name yet; what nobody keeps goes.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Of the directory; with an ending, of what is beside it.
    path: PathBuf,
    recorded: bool,
    pub(crate) diff: Digest,
    pub(crate) tar_size: u64,
    size: u64,
}

impl Fresh {
    /// The archive that it was unpacked from.
    pub(crate) fn tar(&self) -> io::Result<Joined> {
        Joined::open(&beside(&self.path, SPLIT), &self.path, &beside(&self.path, ASIDE))
    }
}

impl Fresh {
    /// Reads the archive to its end, hashing and (if it is to be) recording it.
    fn read(
        mut self,
        tar: impl Read,
        unpack: impl FnOnce(&mut dyn Read, Option<&mut Splitter>) -> Result<silo_layer::Unpacked>,
    ) -> Result<Self> {
        let splitter = self.recorded.then(|| {
            let file = File::create(beside(&self.path, SPLIT))?;
            Splitter::new(file, beside(&self.path, ASIDE))
        });
        let mut splitter = splitter.transpose().map_err(io("recording a layer"))?;
        let mut tee = Tee::new(silo_layer::Plain::new(tar).map_err(io("reading a layer"))?);
        let unpacked = unpack(&mut tee, splitter.as_mut())?;
        // What follows the end marks belongs to the digest too.
        rest(&mut tee, splitter.as_mut()).map_err(io("reading a layer"))?;
        let hashed = tee.finish().map_err(io("hashing a layer"))?;
        if let Some(splitter) = splitter {
            splitter.finish().map_err(io("recording a layer"))?;
        }
        (self.diff, self.tar_size) = hashed;
        self.size = unpacked.bytes;
        Ok(self)
    }

    /// Takes the directory that has the layer's files.
    pub(crate) fn take(&mut self, tree: &Path) -> Result<()> {
        rustix::fs::rename(tree, &self.path).map_err(|e| io(format!("taking {}", tree.display()))(e.into()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        discard(&self.path);
    }
}

/// The ending of the record of a layer's archive.
const SPLIT: &str = "split";
/// The ending of the directory of files that a layer has twice.
const ASIDE: &str = "aside";

fn beside(dir: &Path, ending: &str) -> PathBuf {
    dir.with_extension(ending)
}

/// Removes a layer's directory and what is beside it, but its record.
fn discard(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    let _ = std::fs::remove_file(beside(dir, SPLIT));
    let _ = std::fs::remove_dir_all(beside(dir, ASIDE));
}

/// The directories of layers.
#[derive(Debug)]
pub(crate) struct Layers {
    snapshots: PathBuf,
    pub(crate) content: Content,
    pub(crate) unsynced: Arc<Unsynced>,
    /// Two that bring the same layer meet here.
    committing: Mutex<()>,
}

impl Layers {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layers = Self {
            snapshots: root.join("snapshots"),
            content: Content::open(root)?,
            unsynced: Unsynced::open(root).map_err(io("reading this boot's ID"))?,
            committing: Mutex::new(()),
        };
        let dir = &layers.snapshots;
        std::fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
        layers.sweep()?;
        Ok(layers)
    }

    /// Removes what a crash left half-made.
    fn sweep(&self) -> Result<()> {
        for suspect in self.unsynced.settle(&self.snapshots).map_err(io("syncing snapshots"))? {
            match self.prove(&suspect.marked) {
                Ok(()) => suspect.clear().map_err(io(format!("keeping {}", suspect.path.display())))?,
                Err(why) => {
                    tracing::warn!(
                        "the layer {} was new when the machine stopped and is not whole; it is removed: {why}",
                        suspect.path.display()
                    );
                    suspect.remove();
                }
            }
        }
        for entry in std::fs::read_dir(&self.snapshots).map_err(io("reading snapshots"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let layer = name.split('.').next().unwrap_or_default();
            let record = self.snapshots.join(format!("{layer}.json"));
            let Ok(whole) = record.try_exists() else { continue };
            if !whole || name.starts_with(silo_sys::atomic_file::TEMP_PREFIX) {
                let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }

    /// Whether the files of a layer are those of its archive, by its record.
    fn prove(&self, record: &Path) -> Result<()> {
        let text = std::fs::read(record).map_err(io("reading its record"))?;
        let record: LayerRecord =
            serde_json::from_slice(&text).map_err(|e| io("reading its record")(e.into()))?;
        if !self.is_recorded(&record.chain) {
            return Err(io("comparing its files")(io::Error::other("only its archive is known")));
        }
        let mut tar = self.tar(&record)?;
        io::copy(&mut tar, &mut io::sink()).map_err(io("reading its archive"))?;
        Ok(())
    }

    fn short(chain: &ChainId) -> &str {
        &chain.hex()[..16]
    }

    /// Directory of a chain's uppermost layer.
    pub(crate) fn dir(&self, chain: &ChainId) -> PathBuf {
        self.snapshots.join(Self::short(chain))
    }

    fn record_path(&self, chain: &ChainId) -> PathBuf {
        self.snapshots.join(format!("{}.json", Self::short(chain)))
    }

    /// As [`Layers::get`], where not to know is not to say that there is none.
    fn find(&self, chain: &ChainId) -> Result<Option<LayerRecord>> {
        let path = self.record_path(chain);
        let text = match self.unsynced.read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io(format!("reading {}", path.display())))?,
        };
        let record: Option<LayerRecord> = serde_json::from_slice(&text).ok();
        Ok(record.filter(|record| record.chain == *chain))
    }

    /// The record of an unpacked layer.
    pub(crate) fn get(&self, chain: &ChainId) -> Option<LayerRecord> {
        let record: LayerRecord =
            serde_json::from_slice(&self.unsynced.read(&self.record_path(chain)).ok()?).ok()?;
        (record.chain == *chain).then_some(record)
    }

    /// Whether its files are on disk.
    pub(crate) fn is_synced(&self, chain: &ChainId) -> bool {
        !self.unsynced.is_pending(&self.record_path(chain))
    }

    /// Whether there is a record of a layer's archive.
    pub(crate) fn is_recorded(&self, chain: &ChainId) -> bool {
        beside(&self.dir(chain), SPLIT).exists()
    }

    /// The plain tar of a layer, not proved to be what its digest says.
    pub(crate) fn raw_tar(&self, record: &LayerRecord) -> Result<Box<dyn Read + Send>> {
        if !self.is_recorded(&record.chain) {
            return self.content.tar(&record.diff);
        }
        let dir = self.dir(&record.chain);
        let tar = Joined::open(&beside(&dir, SPLIT), &dir, &beside(&dir, ASIDE));
        Ok(Box::new(tar.map_err(io(format!("reading layer {}", record.diff)))?))
    }

    /// The plain tar of a layer, byte for byte as it came; one that is not ends in an error.
    pub(crate) fn tar(&self, record: &LayerRecord) -> Result<Box<dyn Read + Send>> {
        let tar = self.raw_tar(record)?;
        Ok(Box::new(Proved::new(tar, record.diff.clone())))
    }

    /// Unpacks a layer over `below` (diff IDs, lowest first) of an image of `os`. `expected`: its diff ID, if it is known
    /// before.
    pub(crate) fn add(
        &self,
        os: &str,
        below: &[Digest],
        expected: Option<&Digest>,
        tar: impl Read,
        keep: &Keep<'_>,
    ) -> Result<LayerRecord> {
        let chains = chains(below);
        if let Some(diff) = expected
            && let Some(found) = self.get(&Digest::chain(chains.last(), diff))
        {
            return Ok(found);
        }
        let lower: Vec<PathBuf> = chains.iter().rev().map(|chain| self.dir(chain)).collect();
        let format = if os == WINDOWS { Format::Windows(&lower) } else { Format::Linux };
        self.keep(self.unpack(format, tar, matches!(keep, Keep::Record))?, chains.last(), expected, keep)
    }

    /// Unpacks a layer that gets its name later. `record`: with a record of its archive.
    pub(crate) fn unpack(&self, format: Format<'_>, tar: impl Read, record: bool) -> Result<Fresh> {
        let fresh = self.fresh(record);
        std::fs::create_dir(&fresh.path).map_err(io(format!("making {}", fresh.path.display())))?;
        let to = fresh.path.clone();
        fresh.read(tar, |tar, splitter| unpack(tar, &to, format, splitter))
    }

    /// Records the archive that is packed of `tree`, which has its files as an unpacked layer has them, and is
    /// [taken](Fresh::take) then.
    pub(crate) fn record(&self, tree: &Path, tar: impl Read) -> Result<Fresh> {
        let limits = silo_layer::Limits::default();
        self.fresh(true).read(tar, |tar, splitter| match splitter {
            Some(splitter) => Ok(silo_layer::record_packed(tar, tree, &limits, splitter)?),
            None => Err(io("recording a layer")(io::ErrorKind::InvalidInput.into())),
        })
    }

    fn fresh(&self, recorded: bool) -> Fresh {
        let name = format!("{}{:016x}", silo_sys::atomic_file::TEMP_PREFIX, rand::random::<u64>());
        Fresh { path: self.snapshots.join(name), recorded, diff: Digest::of(b""), tar_size: 0, size: 0 }
    }

    /// Gives an unpacked layer its name.
    pub(crate) fn keep(
        &self,
        fresh: Fresh,
        parent: Option<&ChainId>,
        expected: Option<&Digest>,
        keep: &Keep<'_>,
    ) -> Result<LayerRecord> {
        if let Some(expected) = expected.filter(|e| **e != fresh.diff) {
            return Err(ImageError::Invalid(format!(
                "invalid diffID for a layer: expected {:?}, got {:?}",
                expected.as_str(),
                fresh.diff.as_str()
            )));
        }
        let link = match keep {
            Keep::Record => None,
            Keep::Blob(arrived) => Some(arrived()?),
        };
        let chain = Digest::chain(parent, &fresh.diff);
        let record =
            LayerRecord { chain, diff: fresh.diff.clone(), tar_size: fresh.tar_size, size: fresh.size };
        self.commit(record, &fresh, link)
    }

    fn commit(&self, record: LayerRecord, fresh: &Fresh, link: Option<LayerBlob>) -> Result<LayerRecord> {
        let _one = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.find(&record.chain)? {
            return Ok(found);
        }
        let dir = self.dir(&record.chain);
        // What has no record is what a crash left.
        discard(&dir);
        let rename = |from: &Path, to: &Path| {
            rustix::fs::rename(from, to).map_err(|e| io(format!("keeping {}", to.display()))(e.into()))
        };
        if fresh.recorded {
            rename(&beside(&fresh.path, SPLIT), &beside(&dir, SPLIT))?;
            let aside = beside(&fresh.path, ASIDE);
            if aside.exists() {
                rename(&aside, &beside(&dir, ASIDE))?;
            }
        }
        rename(&fresh.path, &dir)?;
        let later = link.is_none();
        if let Some(link) = link {
            // One sync of the file system for all files of the layer, before anything says that they are there.
            let synced = File::open(&dir).map_err(io("syncing a layer"))?;
            rustix::fs::syncfs(&synced).map_err(|e| io("syncing a layer")(e.into()))?;
            if self.content.link(&record.diff).is_none() {
                self.content.set_link(&record.diff, &link)?;
            }
        }
        let text = serde_json::to_vec(&record).map_err(|e| io("layer record")(e.into()))?;
        self.unsynced.write(&self.record_path(&record.chain), &text, later).map_err(io("keeping a layer"))?;
        Ok(record)
    }

    /// Keeps a blob that was made of a layer, on disk already under a temporary name, instead of its plain tar.
    pub(crate) fn adopt(&self, diff: &Digest, temporary: &Path, blob: Descriptor) -> Result<LayerBlob> {
        let _one = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        self.content.commit(temporary, &blob.digest)?;
        let link = LayerBlob::new(blob, None);
        self.content.set_link(diff, &link)?;
        Ok(link)
    }

    /// Removes layers that are not in `chains`, and what is kept of no layer and not in `blobs`; returns the layers' bytes.
    pub(crate) fn collect(&self, chains: &HashSet<ChainId>, blobs: &HashSet<Digest>) -> u64 {
        let _one = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let mut diffs = HashSet::new();
        for record in self.all() {
            if chains.contains(&record.chain) {
                diffs.insert(record.diff);
                continue;
            }
            bytes += record.size;
            self.unsynced.remove(&self.record_path(&record.chain));
            discard(&self.dir(&record.chain));
        }
        self.content.collect(&diffs, blobs);
        bytes
    }

    /// All records.
    pub(crate) fn all(&self) -> Vec<LayerRecord> {
        // Those that lose their mark meanwhile are met again in the directory.
        let mut paths = self.unsynced.pending_in(&self.snapshots);
        let entries = std::fs::read_dir(&self.snapshots).into_iter().flatten().flatten();
        paths.extend(entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "json")));
        paths.sort();
        paths.dedup();
        let read = |path: &PathBuf| serde_json::from_slice(&self.unsynced.read(path).ok()?).ok();
        paths.iter().filter_map(read).collect()
    }
}

fn unpack(
    tar: &mut dyn Read,
    to: &Path,
    format: Format<'_>,
    splitter: Option<&mut Splitter>,
) -> Result<silo_layer::Unpacked> {
    let limits = silo_layer::Limits::default();
    Ok(match (format, splitter) {
        (Format::Linux, None) => silo_layer::unpack(tar, to, &limits)?,
        (Format::Linux, Some(record)) => silo_layer::unpack_recorded(tar, to, &limits, record)?,
        (Format::Windows(lower), record) => {
            let own = own_files(lower).map_err(io("reading the base's list of its own files"))?;
            match record {
                None => silo_layer::unpack_windows(tar, to, lower, LINUX_ROOTS, &own, &limits)?,
                Some(record) => {
                    silo_layer::unpack_windows_recorded(tar, to, lower, LINUX_ROOTS, &own, &limits, record)?
                }
            }
        }
    })
}

/// Reads what is left of an archive.
fn rest(tar: &mut dyn Read, mut splitter: Option<&mut Splitter>) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match tar.read(&mut piece)? {
            0 => return Ok(()),
            n => {
                if let Some(splitter) = &mut splitter {
                    splitter.bytes(&piece[..n])?;
                }
            }
        }
    }
}
