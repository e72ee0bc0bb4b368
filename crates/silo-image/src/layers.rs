//! Layers on disk: each unpacked once under its chain, its tar kept compressed under its diff ID.
//!
//! `snapshots/<16 hex of the chain ID>/` (short: overlay options are limited to a page), `snapshots/<…>.json` its
//! [`LayerRecord`], `content/sha256/<hex of the diff ID>.zst` the tar, so that `save` gives back the same bytes.
//! Everything is made under a temporary name and renamed; the record is written last.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{ChainId, Digest};
use crate::error::{ImageError, Result, io};

/// zstd level of kept tars: the cheapest, since loading waits for it.
const LEVEL: i32 = 1;

/// The `os` of images whose layers are of the Windows format.
pub(crate) const WINDOWS: &str = "windows";
/// Their top directories in Linux' form: a base's Linux side.
pub(crate) const LINUX_ROOTS: &[&str] = &["Host"];

/// How a layer's archive is to be read.
enum Format<'a> {
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

/// The directories of layers.
#[derive(Debug)]
pub(crate) struct Layers {
    snapshots: PathBuf,
    content: PathBuf,
}

/// Sends what passes to a thread that hashes and compresses it.
struct Tee<R> {
    inner: R,
    to: SyncSender<Vec<u8>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0 {
            self.to.send(buffer[..n].to_vec()).map_err(|_| io::Error::other("keeping the layer failed"))?;
        }
        Ok(n)
    }
}

type Keeper = JoinHandle<io::Result<(Digest, u64)>>;

fn keeper(to: File) -> (SyncSender<Vec<u8>>, Keeper) {
    let (sender, receiver) = sync_channel::<Vec<u8>>(64);
    let thread = std::thread::spawn(move || {
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut encoder = zstd::Encoder::new(to, LEVEL)?;
        for piece in receiver {
            hash.update(&piece);
            size += piece.len() as u64;
            encoder.write_all(&piece)?;
        }
        encoder.finish()?;
        Ok((Digest::from_hash(&hash.finalize()), size))
    });
    (sender, thread)
}

impl Layers {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let layers = Self { snapshots: root.join("snapshots"), content: root.join("content/sha256") };
        for dir in [&layers.snapshots, &layers.content] {
            std::fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
        }
        layers.sweep()?;
        Ok(layers)
    }

    /// Removes what a crash left half-made.
    fn sweep(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.snapshots).map_err(io("reading snapshots"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let whole = name.ends_with(".json") || self.snapshots.join(format!("{name}.json")).exists();
            if !whole || name.starts_with(silo_sys::atomic_file::TEMP_PREFIX) {
                let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
            }
        }
        for entry in std::fs::read_dir(&self.content).map_err(io("reading content"))?.flatten() {
            if !entry.file_name().to_string_lossy().ends_with(".zst") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
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

    fn tar_path(&self, diff: &Digest) -> PathBuf {
        self.content.join(format!("{}.zst", diff.hex()))
    }

    /// The record of an unpacked layer.
    pub(crate) fn get(&self, chain: &ChainId) -> Option<LayerRecord> {
        let record: LayerRecord =
            serde_json::from_slice(&std::fs::read(self.record_path(chain)).ok()?).ok()?;
        (record.chain == *chain).then_some(record)
    }

    /// Unpacks a layer over `below` (diff IDs, lowest first) of an image of `os`. `expected`: its diff ID, if it is known
    /// before.
    pub(crate) fn add(
        &self,
        os: &str,
        below: &[Digest],
        expected: Option<&Digest>,
        tar: Box<dyn Read + Send + '_>,
    ) -> Result<LayerRecord> {
        let chains = chains(below);
        let parent = chains.last();
        if let Some(diff) = expected
            && let Some(found) = self.get(&Digest::chain(parent, diff))
        {
            return Ok(found);
        }
        let serial = rand::random::<u64>();
        let temp_dir = self.snapshots.join(format!("{}{serial:016x}", silo_sys::atomic_file::TEMP_PREFIX));
        let temp_tar = self.content.join(format!("{}{serial:016x}", silo_sys::atomic_file::TEMP_PREFIX));
        let lower: Vec<PathBuf> = chains.iter().rev().map(|chain| self.dir(chain)).collect();
        let format = if os == WINDOWS { Format::Windows(&lower) } else { Format::Linux };
        let result = self.add_at(parent, format, expected, tar, [&temp_dir, &temp_tar]);
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&temp_dir);
        }
        let _ = std::fs::remove_file(&temp_tar);
        result
    }

    fn add_at(
        &self,
        parent: Option<&ChainId>,
        format: Format<'_>,
        expected: Option<&Digest>,
        tar: Box<dyn Read + Send + '_>,
        [temp_dir, temp_tar]: [&Path; 2],
    ) -> Result<LayerRecord> {
        std::fs::create_dir(temp_dir).map_err(io(format!("making {}", temp_dir.display())))?;
        let keep = File::create(temp_tar).map_err(io(format!("making {}", temp_tar.display())))?;
        let plain = silo_layer::decompress(tar).map_err(io("reading a layer"))?;
        let (to, keeper) = keeper(keep);
        let mut tee = Tee { inner: plain, to };
        let limits = silo_layer::Limits::default();
        let unpacked = match format {
            Format::Linux => silo_layer::unpack(&mut tee, temp_dir, &limits),
            Format::Windows(lower) => {
                silo_layer::unpack_windows(&mut tee, temp_dir, lower, LINUX_ROOTS, &limits)
            }
        };
        // What follows the end marks belongs to the digest too.
        let rest = unpacked.is_ok().then(|| io::copy(&mut tee, &mut io::sink())).transpose();
        drop(tee);
        let kept = keeper.join().map_err(|_| io("keeping a layer")(io::Error::other("panicked")))?;
        let unpacked = unpacked?;
        rest.map_err(io("reading a layer"))?;
        let (diff, tar_size) = kept.map_err(io("keeping a layer"))?;
        if let Some(expected) = expected.filter(|e| **e != diff) {
            return Err(ImageError::Invalid(format!(
                "invalid diffID for a layer: expected {:?}, got {:?}",
                expected.as_str(),
                diff.as_str()
            )));
        }
        let chain = Digest::chain(parent, &diff);
        if let Some(found) = self.get(&chain) {
            let _ = std::fs::remove_dir_all(temp_dir);
            return Ok(found);
        }
        let record = LayerRecord { chain, diff, tar_size, size: unpacked.bytes };
        self.commit(&record, temp_dir, temp_tar)?;
        Ok(record)
    }

    fn commit(&self, record: &LayerRecord, temp_dir: &Path, temp_tar: &Path) -> Result<()> {
        let (dir, tar) = (self.dir(&record.chain), self.tar_path(&record.diff));
        // A directory without a record is what a crash left.
        let _ = std::fs::remove_dir_all(&dir);
        rustix::fs::rename(temp_tar, &tar).map_err(|e| io(format!("keeping {}", tar.display()))(e.into()))?;
        rustix::fs::rename(temp_dir, &dir).map_err(|e| io(format!("keeping {}", dir.display()))(e.into()))?;
        // One sync of the file system for all files of the layer, before the record says that they are there.
        let root = File::open(&dir).map_err(io("syncing a layer"))?;
        rustix::fs::syncfs(&root).map_err(|e| io("syncing a layer")(e.into()))?;
        let text = serde_json::to_vec(record).map_err(|e| io("layer record")(e.into()))?;
        silo_sys::atomic_file::write(&self.record_path(&record.chain), &text).map_err(io("keeping a layer"))
    }

    /// The plain tar of a layer, byte for byte as it came.
    pub(crate) fn tar(&self, diff: &Digest) -> Result<Box<dyn Read + Send>> {
        let path = self.tar_path(diff);
        let file = File::open(&path).map_err(io(format!("opening {}", path.display())))?;
        Ok(Box::new(zstd::Decoder::new(file).map_err(io(format!("reading {}", path.display())))?))
    }

    /// Removes layers that are not in `chains`; returns their bytes.
    pub(crate) fn collect(&self, chains: &std::collections::HashSet<ChainId>) -> u64 {
        let mut bytes = 0;
        let mut kept_tars = std::collections::HashSet::new();
        let mut doomed = Vec::new();
        for record in self.all() {
            if chains.contains(&record.chain) {
                kept_tars.insert(record.diff.clone());
            } else {
                doomed.push(record);
            }
        }
        for record in doomed {
            bytes += record.size;
            let _ = std::fs::remove_file(self.record_path(&record.chain));
            let _ = std::fs::remove_dir_all(self.dir(&record.chain));
            if !kept_tars.contains(&record.diff) {
                let _ = std::fs::remove_file(self.tar_path(&record.diff));
            }
        }
        bytes
    }

    /// All records.
    pub(crate) fn all(&self) -> Vec<LayerRecord> {
        let entries = std::fs::read_dir(&self.snapshots).into_iter().flatten().flatten();
        entries
            .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
            .filter_map(|e| serde_json::from_slice(&std::fs::read(e.path()).ok()?).ok())
            .collect()
    }
}
