//! Blobs on disk, each once under its digest, and which blob is which layer.
//!
//! `content/sha256/<hex>`: a blob byte for byte as a registry has it: compressed layers, manifests, indexes.
//! `content/sha256/<hex of a diff ID>.zst`: the plain tar of a layer that no registry has been told of yet.
//! `content/layers/<hex of a diff ID>.json`: the [`LayerBlob`] of a layer, written once its blob is on disk.
//! A layer has the one or the other. What no image, manifest or lease names is garbage.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Result, io};
use crate::manifest::Descriptor;

/// Repositories of a blob that are remembered.
const MAX_REPOSITORIES: usize = 32;

/// The blob of a layer, and where it is known to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerBlob {
    pub(crate) blob: Descriptor,
    /// `host/path` of repositories that have it, the newest last.
    pub(crate) repositories: Vec<String>,
}

impl LayerBlob {
    pub(crate) fn new(blob: Descriptor, repository: Option<String>) -> Self {
        Self { blob, repositories: repository.into_iter().collect() }
    }

    /// Whether that was news.
    pub(crate) fn is_in(&mut self, repository: &str) -> bool {
        if self.repositories.last().is_some_and(|r| r == repository) {
            return false;
        }
        self.repositories.retain(|r| r != repository);
        self.repositories.push(repository.to_owned());
        let old = self.repositories.len().saturating_sub(MAX_REPOSITORIES);
        self.repositories.drain(..old);
        true
    }
}

/// The content of one root directory.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    blobs: PathBuf,
    links: PathBuf,
}

impl Content {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let content = Self { blobs: root.join("content/sha256"), links: root.join("content/layers") };
        for dir in [&content.blobs, &content.links] {
            std::fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
            for entry in std::fs::read_dir(dir).map_err(io(format!("reading {}", dir.display())))?.flatten() {
                // What a crash left half-made.
                if entry.file_name().to_string_lossy().starts_with(silo_sys::atomic_file::TEMP_PREFIX) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        Ok(content)
    }

    /// Where a blob is.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where the plain tar of a layer is, compressed.
    pub(crate) fn tar_path(&self, diff: &Digest) -> PathBuf {
        self.blobs.join(format!("{}.zst", diff.hex()))
    }

    fn link_path(&self, diff: &Digest) -> PathBuf {
        self.links.join(format!("{}.json", diff.hex()))
    }

    /// A name that nobody has, for a file to be renamed.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.blobs.join(format!("{}{:016x}", silo_sys::atomic_file::TEMP_PREFIX, rand::random::<u64>()))
    }

    /// Bytes of a blob that is here.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    /// Bytes of what is kept of a layer: its blob, or its plain tar as it is compressed.
    pub(crate) fn kept_of(&self, diff: &Digest) -> u64 {
        let path = self.link(diff).map_or_else(|| self.tar_path(diff), |link| self.path(&link.blob.digest));
        std::fs::metadata(path).map_or(0, |m| m.len())
    }

    /// Bytes of everything here.
    pub(crate) fn bytes(&self) -> u64 {
        let all = std::fs::read_dir(&self.blobs).into_iter().flatten().flatten();
        all.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    }

    /// Stores a small blob, on disk when this returns.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.size(&digest) != Some(bytes.len() as u64) {
            silo_sys::atomic_file::write(&self.path(&digest), bytes)
                .map_err(io(format!("keeping {digest}")))?;
        }
        Ok(digest)
    }

    /// Reads a small blob.
    pub(crate) fn read(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(digest))
            .and_then(|f| f.take(most).read_to_end(&mut bytes))
            .map_err(io(format!("reading blob {digest}")))?;
        Ok(bytes)
    }

    /// Gives a verified file its name.
    pub(crate) fn commit(&self, temporary: &Path, digest: &Digest) -> Result<()> {
        std::fs::rename(temporary, self.path(digest)).map_err(io(format!("keeping blob {digest}")))
    }

    /// The blob of a layer, if it has one.
    pub(crate) fn link(&self, diff: &Digest) -> Option<LayerBlob> {
        let link: LayerBlob = serde_json::from_slice(&std::fs::read(self.link_path(diff)).ok()?).ok()?;
        self.size(&link.blob.digest).is_some().then_some(link)
    }

    /// Says which blob a layer is. The blob must be on disk; the plain tar is not needed any more.
    pub(crate) fn set_link(&self, diff: &Digest, link: &LayerBlob) -> Result<()> {
        let text = serde_json::to_vec(link).map_err(|e| io("layer's blob")(e.into()))?;
        silo_sys::atomic_file::write(&self.link_path(diff), &text).map_err(io("keeping a layer's blob"))?;
        let _ = std::fs::remove_file(self.tar_path(diff));
        Ok(())
    }

    /// The plain tar of a layer, byte for byte as it came.
    pub(crate) fn tar(&self, diff: &Digest) -> Result<Box<dyn Read + Send>> {
        let path = match self.link(diff) {
            Some(link) => self.path(&link.blob.digest),
            None => self.tar_path(diff),
        };
        let file = File::open(&path).map_err(io(format!("opening {}", path.display())))?;
        silo_layer::decompress(Box::new(file)).map_err(io(format!("reading {}", path.display())))
    }

    /// Removes what belongs to no layer of `diffs` and is not among `blobs`.
    pub(crate) fn collect(&self, diffs: &HashSet<Digest>, blobs: &HashSet<Digest>) {
        let mut keep: HashSet<PathBuf> = blobs.iter().map(|b| self.path(b)).collect();
        for diff in diffs {
            keep.insert(self.tar_path(diff));
            keep.insert(self.link_path(diff));
            keep.extend(self.link(diff).map(|link| self.path(&link.blob.digest)));
        }
        for dir in [&self.links, &self.blobs] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let temporary =
                    entry.file_name().to_string_lossy().starts_with(silo_sys::atomic_file::TEMP_PREFIX);
                if !temporary && !keep.contains(&entry.path()) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_remembered_once_and_not_for_ever() {
        let blob: Descriptor = serde_json::from_value(serde_json::json!({"mediaType": "m", "size": 1,
            "digest": Digest::of(b"").as_str()}))
        .unwrap();
        let mut link = LayerBlob::new(blob, Some("a".into()));
        assert!(!link.is_in("a") && link.is_in("b") && link.is_in("a"));
        assert_eq!(link.repositories, ["b", "a"]);
        for i in 0..100 {
            link.is_in(&i.to_string());
        }
        assert_eq!(link.repositories.len(), MAX_REPOSITORIES);
        assert_eq!(link.repositories.last().unwrap(), "99");
    }

    #[test]
    fn what_nobody_names_goes() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path()).unwrap();
        let (kept, gone) = (content.put(b"kept").unwrap(), content.put(b"gone").unwrap());
        let (layer, layers_blob) = (Digest::of(b"layer"), content.put(b"plain tar").unwrap());
        let blob: Descriptor =
            serde_json::from_value(serde_json::json!({"mediaType": "m", "size": 9, "digest": layers_blob}))
                .unwrap();
        std::fs::write(content.tar_path(&layer), b"x").unwrap();
        content.set_link(&layer, &LayerBlob::new(blob, None)).unwrap();
        assert!(!content.tar_path(&layer).exists());
        let mut text = String::new();
        content.tar(&layer).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "plain tar");
        content.collect(&[layer.clone()].into(), &[kept.clone()].into());
        assert_eq!((content.size(&kept), content.size(&gone)), (Some(4), None));
        assert!(content.link(&layer).is_some());
        content.collect(&HashSet::new(), &HashSet::new());
        assert!(content.link(&layer).is_none() && content.size(&layers_blob).is_none());
    }
}
