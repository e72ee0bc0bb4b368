//! `silo image check`: whether all that the store says is so.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::digest::{ChainId, Digest};
use crate::layers::{LayerRecord, chains};
use crate::manifest::{Document, MAX_MANIFEST};
use crate::store::{Held, ImageStore};
use crate::substitute::effective;

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Images.
    pub images: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Blobs whose digests were computed.
    pub blobs: usize,
    /// Names.
    pub references: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Sentences that name what is wrong.
    pub faults: Vec<String>,
}

/// The digest of all bytes of a reader.
fn digest_of(mut reader: impl Read, bytes: &mut u64) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(Digest::from_hash(&hash.finalize())),
            n => {
                hash.update(&piece[..n]);
                *bytes += n as u64;
            }
        }
    }
}

impl Checked {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// Compares a file's bytes (or what they unpack to) with its digest.
    fn verify(
        &mut self,
        what: &str,
        wanted: &Digest,
        open: impl FnOnce() -> io::Result<Box<dyn Read + Send>>,
    ) {
        self.blobs += 1;
        match open().and_then(|reader| digest_of(reader, &mut self.bytes)) {
            Ok(found) if found == *wanted => {}
            Ok(found) => self.fault(format!("{what} {wanted} has the digest {found}")),
            Err(e) => self.fault(format!("{what} {wanted} cannot be read: {e}")),
        }
    }
}

fn plain(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(File::open(path)?))
}

impl ImageStore {
    /// Proves every digest, reference and unpacked layer. Others may work meanwhile; nothing is changed.
    pub fn check(&self) -> Checked {
        let mut checked = Checked::default();
        let (images, references, unread) = {
            let index = self.lock();
            let images: BTreeMap<Digest, Held> =
                index.images.iter().map(|(id, held)| (id.clone(), held.clone())).collect();
            (images, index.references.clone(), index.unread)
        };
        // What is checked stays while it is.
        let all = images.values().flat_map(|h| h.layers.iter().map(|l| l.chain.clone())).collect();
        let kept = images.values().flat_map(|h| h.extra.manifests.iter().map(|m| m.digest.clone())).collect();
        let _lease = self.leases.take(all, kept);
        if unread > 0 {
            checked.fault(format!("{unread} images on disk cannot be read: the daemon's log names them"));
        }
        let mut seen = Seen::default();
        for (id, held) in &images {
            checked.images += 1;
            self.check_image(&mut checked, &mut seen, id, held);
        }
        for (name, id) in &references {
            checked.references += 1;
            if !images.contains_key(id) {
                checked.fault(format!("the name {name} leads to image {id}, which is not there"));
            }
        }
        checked
    }

    fn check_image(&self, checked: &mut Checked, seen: &mut Seen, id: &Digest, held: &Held) {
        let config = self.config_path(id);
        checked.verify("the config of image", id, || {
            Ok(Box::new(io::Cursor::new(self.layers.unsynced.read(&config)?)))
        });
        let wanted = effective(&held.config.rootfs.diff_ids, held.extra.substituted.as_ref());
        let wanted = match wanted {
            Ok(diffs) => chains(&diffs),
            Err(e) => return checked.fault(format!("image {id}: {e}")),
        };
        if wanted.len() != held.layers.len() {
            checked.fault(format!(
                "image {id} has {} layers and records of {}",
                wanted.len(),
                held.layers.len()
            ));
        }
        for (chain, record) in wanted.iter().zip(&held.layers) {
            if record.chain != *chain {
                checked.fault(format!("image {id}: the layer {chain} is recorded as {}", record.chain));
            }
            if seen.chains.insert(record.chain.clone()) {
                self.check_layer(checked, seen, record);
            }
        }
        for kept in &held.extra.manifests {
            if !seen.blobs.insert(kept.digest.clone()) {
                continue;
            }
            let path = self.layers.content.path(&kept.digest);
            checked.verify("manifest", &kept.digest, || plain(&path));
            let read = self.layers.content.read(&kept.digest, MAX_MANIFEST);
            match read.and_then(|bytes| Document::read(&bytes, &kept.media_type)) {
                Ok(Document::Image(manifest)) if manifest.config.digest != *id => checked.fault(format!(
                    "manifest {} of image {id} is that of {}",
                    kept.digest, manifest.config.digest
                )),
                Ok(_) => {}
                Err(e) => checked.fault(e.to_string()),
            }
        }
    }

    fn check_layer(&self, checked: &mut Checked, seen: &mut Seen, record: &LayerRecord) {
        checked.layers += 1;
        let dir = self.layers.dir(&record.chain);
        if !dir.is_dir() {
            checked.fault(format!("layer {} is not unpacked: {} is missing", record.chain, dir.display()));
        }
        match self.layers.get(&record.chain) {
            Some(found) if found.diff == record.diff => {}
            _ => checked.fault(format!("layer {} has no record on disk", record.chain)),
        }
        // A record proves the files of its layer too.
        if !seen.diffs.insert(record.diff.clone()) && !self.layers.is_recorded(&record.chain) {
            return;
        }
        let content = &self.layers.content;
        if let Some(link) = content.link(&record.diff)
            && seen.blobs.insert(link.blob.digest.clone())
        {
            let path = content.path(&link.blob.digest);
            checked.verify("blob", &link.blob.digest, || plain(&path));
        }
        checked.verify("the archive of layer", &record.diff, || {
            self.layers.raw_tar(record).map_err(|e| io::Error::other(e.to_string()))
        });
    }
}

/// What has been looked at.
#[derive(Default)]
struct Seen {
    chains: HashSet<ChainId>,
    diffs: HashSet<Digest>,
    blobs: HashSet<Digest>,
}
