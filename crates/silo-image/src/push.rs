//! `push`: layers side by side, then config, manifest and tag. What was pulled goes under the digest that it had; what was
//! made here gets its blobs now, and keeps them.

mod absent;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::content::LayerBlob;
use crate::digest::Digest;
use crate::error::{ImageError, Result, io as doing};
use crate::gzip::gzip;
use crate::layers::LayerRecord;
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Document, MAX_MANIFEST, Manifest, OCI_CONFIG, OCI_MANIFEST,
};
use crate::platform::Platform;
use crate::progress::{Meter, Tell, Told};
use crate::reference::Reference;
use crate::registry::client::{Access, Client};
use crate::registry::upload::Arrived;
use crate::registry::{Cancel, Credentials, RegistrySettings};
use crate::store::{Held, ImageStore, KeptManifest};

/// Repositories that are tried for a mount (dockerd's number).
const MOUNTS: usize = 4;
/// How long a look at somebody else's compressing takes before the end of our own work is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// What is pushed, and as whom.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Repository; its tag, or all tags that are here.
    pub reference: Reference,
    /// All.
    pub all_tags: bool,
    /// Only if the image is for this platform.
    pub platform: Option<Platform>,
    /// Who pushes.
    pub credentials: Credentials,
}

/// A manifest as it is to be pushed.
struct Ready {
    bytes: Vec<u8>,
    media_type: String,
}

/// Counts what is written, and hashes it.
struct Hashing {
    file: File,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One push to one repository.
struct Push<'a> {
    store: &'a ImageStore,
    client: &'a Client,
    repository: &'a Reference,
    tell: Tell<'a>,
}

impl ImageStore {
    /// Pushes one tag or all of a repository.
    pub fn push(
        &self,
        settings: &Arc<RegistrySettings>,
        options: &PushOptions,
        cancel: &Cancel,
        tell: Tell<'_>,
    ) -> Result<()> {
        let repository = &options.reference;
        tell(Told::Message(format!("The push refers to repository [{}]", repository.repository())));
        let mut tags: Vec<(Reference, Digest)> = Vec::new();
        for (name, id) in &self.lock().references {
            if let Ok(reference) = Reference::parse(name)
                && reference.digest.is_none()
                && reference.repository() == repository.repository()
            {
                tags.push((reference, id.clone()));
            }
        }
        if tags.is_empty() {
            return Err(ImageError::Absent(format!(
                "An image does not exist locally with the tag: {}",
                repository.familiar_name()
            )));
        }
        if !options.all_tags {
            tags.retain(|(r, _)| r.tag == repository.tag);
            if tags.is_empty() {
                return Err(ImageError::Absent(format!("tag does not exist: {}", repository.familiar())));
            }
        }
        let part = cancel.child();
        let client = Client::find(settings, &repository.domain, &options.credentials, &part)?;
        let push = Push { store: self, client: &client, repository, tell };
        for (reference, id) in tags {
            let done = push.image(&reference, &id, options.platform.as_ref());
            if cancel.check().is_err() {
                return Err(crate::registry::RegistryError::Cancelled.into());
            }
            done?;
        }
        Ok(())
    }
}

impl Push<'_> {
    fn image(&self, reference: &Reference, id: &Digest, platform: Option<&Platform>) -> Result<()> {
        let store = self.store;
        let held = store.lock().images.get(id).cloned();
        let held = held.ok_or_else(|| ImageError::NotFound(reference.familiar()))?;
        if let Some(platform) = platform.filter(|p| !p.matches(&held.config)) {
            return Err(ImageError::Absent(format!(
                "image with reference {} was found but its platform ({}/{}) does not match the specified platform ({platform})",
                reference.familiar(),
                held.config.os,
                held.config.architecture
            )));
        }
        // Nothing of it goes while it is on its way.
        let blobs = held.extra.manifests.iter().map(|m| m.digest.clone()).collect();
        let _lease = store.leases.take(held.layers.iter().map(|l| l.chain.clone()).collect(), blobs);
        let substituted = held.extra.substituted.as_ref();
        let absent = absent::place(self.client, self.repository, substituted, self.tell)?;
        let known = self.known_manifest(id, &held, &absent)?;
        let wanted = known.as_ref().map(|(_, manifest)| &manifest.layers[absent.len()..]);
        let arrived = self.layers(&held, wanted)?;
        let path = &self.repository.path;
        if self.client.has_blob(path, id, Access::Push)?.is_none() {
            self.client.put_small(path, id, &held.raw)?;
        }
        let ready = match known {
            Some((ready, _)) => ready,
            None => made(id, &held, &absent, &arrived),
        };
        let tag = reference.tag.clone().unwrap_or_default();
        let digest = self.client.put_manifest(path, &tag, &ready.media_type, &ready.bytes)?;
        // Nothing may collect it before the image says that it is its.
        let _writing = store.writing.lock();
        store.layers.content.put(&ready.bytes)?;
        let kept = KeptManifest { digest: digest.clone(), media_type: ready.media_type };
        store.known_as(id, &reference.at(digest.clone()), vec![kept])?;
        let size = ready.bytes.len() as u64;
        (self.tell)(Told::Message(format!("{tag}: digest: {digest} size: {size}")));
        (self.tell)(Told::Pushed { tag, digest: digest.to_string(), size });
        Ok(())
    }

    /// The manifest that the image was pulled or pushed by, if all that it names can be had: the newest such. Of layers that are
    /// not here it must say what is to be said now.
    fn known_manifest(
        &self,
        id: &Digest,
        held: &Held,
        absent: &[Descriptor],
    ) -> Result<Option<(Ready, Box<Manifest>)>> {
        let content = &self.store.layers.content;
        for kept in held.extra.manifests.iter().rev() {
            let Ok(bytes) = content.read(&kept.digest, MAX_MANIFEST) else { continue };
            let Ok(Document::Image(manifest)) = Document::read(&bytes, &kept.media_type) else { continue };
            if Digest::of(&bytes) != kept.digest
                || manifest.config.digest != *id
                || manifest.layers.len() != absent.len() + held.own_layers().len()
                || !manifest.layers.starts_with(absent)
            {
                continue;
            }
            let mut all = true;
            for layer in manifest.layers.iter().skip(absent.len()).filter(|l| !l.is_foreign()) {
                all &= content.size(&layer.digest) == Some(layer.size)
                    || self.client.has_blob(&self.repository.path, &layer.digest, Access::Push)?.is_some();
            }
            if all {
                let media_type = match kept.media_type.as_str() {
                    "" => OCI_MANIFEST.to_owned(),
                    given => given.to_owned(),
                };
                return Ok(Some((Ready { bytes, media_type }, manifest)));
            }
        }
        Ok(None)
    }

    /// Brings all layers there that are the image's own; their blobs by diff ID. `wanted`: as they are to be described.
    fn layers(&self, held: &Held, wanted: Option<&[Descriptor]>) -> Result<HashMap<Digest, Descriptor>> {
        let mut layers: Vec<(&LayerRecord, Option<&Descriptor>)> = Vec::new();
        // Uppermost first, each once.
        for (i, record) in held.own_layers().iter().enumerate().rev() {
            if !layers.iter().any(|(other, _)| other.diff == record.diff) {
                layers.push((record, wanted.and_then(|all| all.get(i))));
            }
        }
        let state = |record: &LayerRecord, state| {
            (self.tell)(Told::State { id: record.diff.hex()[..12].to_owned(), state });
        };
        let at_once = self.client.transport.settings.uploads.clamp(1, 64);
        for (i, (record, _)) in layers.iter().enumerate() {
            state(record, "Preparing");
            if i >= at_once {
                state(record, "Waiting");
            }
        }
        let arrived = Mutex::new(HashMap::new());
        let failed: Mutex<Option<ImageError>> = Mutex::new(None);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..at_once.min(layers.len()) {
                scope.spawn(|| {
                    while let Some((record, wanted)) = layers.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let slot = self.store.uploading.take(at_once, &self.client.transport.cancel);
                        match slot.map_err(ImageError::from).and_then(|_slot| self.layer(record, *wanted)) {
                            Ok(blob) => {
                                let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
                                arrived.insert(record.diff.clone(), blob);
                            }
                            Err(e) => {
                                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                                self.client.transport.cancel.cancel();
                                return;
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(arrived.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn layer(&self, record: &LayerRecord, wanted: Option<&Descriptor>) -> Result<Descriptor> {
        let id = record.diff.hex()[..12].to_owned();
        let state = |state| (self.tell)(Told::State { id: id.clone(), state });
        let content = &self.store.layers.content;
        let mut link = content.link(&record.diff);
        let foreign = wanted.or(link.as_ref().map(|l| &l.blob)).filter(|b| b.is_foreign());
        if let Some(blob) = foreign {
            // Its owner gives it away, registries do not: the description is all that goes.
            state("Skipped foreign layer");
            return Ok(blob.clone());
        }
        if let (None, None) = (wanted, &link) {
            link = Some(self.make_blob(record)?);
        }
        let blob = match (wanted, &link) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(link)) => link.blob.clone(),
            (None, None) => return Err(ImageError::Invalid(format!("layer {} has no blob", record.diff))),
        };
        let (path, domain) = (&self.repository.path, format!("{}/", self.repository.domain));
        if self.client.has_blob(path, &blob.digest, Access::Push)?.is_some() {
            state("Layer already exists");
        } else {
            let known = link.as_ref().filter(|l| l.blob.digest == blob.digest);
            let known = known.map(|l| l.repositories.as_slice()).unwrap_or_default().iter().rev();
            let from: Vec<String> = known
                .filter_map(|r| r.strip_prefix(&domain).filter(|p| *p != path).map(str::to_owned))
                .take(MOUNTS)
                .collect();
            let meter = Meter::new(self.tell, &id, "Pushing", blob.size);
            let file = content.path(&blob.digest);
            let sent = |bytes| meter.at(bytes);
            match self.client.put_blob(path, &blob.digest, &file, blob.size, &from, &sent)? {
                Arrived::Mounted(from) => {
                    (self.tell)(Told::Remark { id: id.clone(), state: format!("Mounted from {from}") });
                }
                Arrived::Sent => state("Pushed"),
            }
        }
        if let Some(mut link) = link.filter(|l| l.blob.digest == blob.digest)
            && link.is_in(&self.repository.repository())
        {
            content.set_link(&record.diff, &link)?;
        }
        Ok(blob)
    }

    /// Compresses a layer for registries, and keeps that instead of what was kept.
    fn make_blob(&self, record: &LayerRecord) -> Result<LayerBlob> {
        let content = &self.store.layers.content;
        let _claim = loop {
            self.client.transport.cancel.check()?;
            if let Some(claim) = self.store.claims.take(&record.diff, LOOK) {
                break claim;
            }
        };
        if let Some(link) = content.link(&record.diff) {
            return Ok(link);
        }
        let temporary = content.temporary();
        let _one = self.store.compressing.lock();
        let made = self.compress(record, &temporary);
        let made = made.and_then(|blob| self.store.layers.adopt(&record.diff, &temporary, blob));
        if made.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        made
    }

    fn compress(&self, record: &LayerRecord, to: &std::path::Path) -> Result<Descriptor> {
        let why = || doing(format!("compressing layer {}", record.diff));
        let file = File::create(to).map_err(why())?;
        let mut to = Hashing { file, hash: Sha256::new(), size: 0 };
        let meter = Meter::new(self.tell, &record.diff.hex()[..12], "Preparing", record.tar_size);
        let tar = self.store.layers.tar(record)?;
        let cancel = &self.client.transport.cancel;
        let counted = Counted { inner: tar, done: AtomicU64::new(0), meter, cancel };
        gzip(counted, &mut to).map_err(why())?;
        cancel.check()?;
        to.file.sync_all().map_err(why())?;
        Ok(Descriptor {
            media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
            digest: Digest::from_hash(&to.hash.finalize()),
            size: to.size,
            urls: Vec::new(),
            annotations: Default::default(),
            platform: None,
        })
    }
}

struct Counted<'a, R> {
    inner: R,
    done: AtomicU64,
    meter: Meter<'a>,
    cancel: &'a Cancel,
}

impl<R: io::Read> io::Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let n = self.inner.read(buffer)?;
        self.meter.at(self.done.fetch_add(n as u64, Ordering::Relaxed) + n as u64);
        Ok(n)
    }
}

/// A layer's type in a family of manifests.
fn layer_type(given: &str, oci: bool) -> String {
    let compression = ["gzip", "zstd"].iter().find(|c| given.ends_with(*c));
    let foreign = given.contains(".foreign.") || given.contains(".nondistributable.");
    let (base, sign) = match (oci, foreign) {
        (true, false) => ("application/vnd.oci.image.layer.v1.tar", "+"),
        (true, true) => ("application/vnd.oci.image.layer.nondistributable.v1.tar", "+"),
        (false, false) => ("application/vnd.docker.image.rootfs.diff.tar", "."),
        (false, true) => ("application/vnd.docker.image.rootfs.foreign.diff.tar", "."),
    };
    compression.map_or(base.to_owned(), |c| format!("{base}{sign}{c}"))
}

/// A new manifest: Docker's, as dockerd makes it, or OCI's if a layer needs that.
fn made(id: &Digest, held: &Held, absent: &[Descriptor], blobs: &HashMap<Digest, Descriptor>) -> Ready {
    let own = held.own_layers().iter().filter_map(|l| blobs.get(&l.diff));
    let layers: Vec<&Descriptor> = absent.iter().chain(own).collect();
    // Docker's own types have no zstd; what is not here is described as it was.
    let oci = layers.iter().any(|l| l.media_type.ends_with("zstd"))
        || absent.iter().any(|l| l.media_type.contains(".oci."));
    let (media_type, config) =
        if oci { (OCI_MANIFEST, OCI_CONFIG) } else { (DOCKER_MANIFEST, DOCKER_CONFIG) };
    let layers: Vec<_> = layers
        .iter()
        .map(|l| {
            let mut layer =
                json!({"mediaType": layer_type(&l.media_type, oci), "size": l.size, "digest": l.digest});
            if !l.urls.is_empty() {
                layer["urls"] = json!(l.urls);
            }
            layer
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": {"mediaType": config, "size": held.raw.len(), "digest": id},
        "layers": layers,
    });
    Ready { bytes: manifest.to_string().into_bytes(), media_type: media_type.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_layers_in_both_families() {
        for (given, docker, oci) in [
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar",
                "application/vnd.docker.image.rootfs.diff.tar",
                "application/vnd.oci.image.layer.v1.tar",
            ),
        ] {
            assert_eq!((layer_type(given, false).as_str(), layer_type(given, true).as_str()), (docker, oci));
        }
    }
}
