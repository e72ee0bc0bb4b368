//! The layers of an image that is pulled: some are downloaded while others, and those that still come in, are unpacked.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::LayerBlob;
use crate::digest::{ChainId, Digest};
use crate::error::{ImageError, Result};
use crate::layers::{Keep, WINDOWS, chains};
use crate::manifest::Descriptor;
use crate::progress::{Meter, Tell, Told};
use crate::pull::download::{Download, Follower, Source};
use crate::store::ImageStore;

/// Layers that are unpacked at once; each keeps a processor busy, and another with its hash.
const UNPACKING: usize = 2;

/// A layer that is not here.
struct Missing {
    /// From below.
    position: usize,
    download: Arc<Download>,
}

/// Counts what is unpacked, told once the download does not tell of itself any more.
struct Extracting<'a> {
    inner: Follower,
    download: &'a Download,
    meter: Meter<'a>,
    at: &'a AtomicU64,
}

impl Read for Extracting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let at = self.at.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        if self.download.is_done() {
            self.meter.at(at);
        }
        Ok(n)
    }
}

/// Brings in what is missing of an image's layers, `blobs` being those of the uppermost; what is below them is here. Their
/// chains and blobs are leased by the caller.
pub(crate) fn bring(
    store: &ImageStore,
    from: &Source<'_>,
    (os, diffs): (&str, &[Digest]),
    blobs: &[Descriptor],
    repository: &str,
    tell: Tell<'_>,
) -> Result<()> {
    let all: Vec<ChainId> = chains(diffs);
    let others = all.len().saturating_sub(blobs.len());
    let mut downloads: Vec<Arc<Download>> = Vec::new();
    let mut missing = Vec::new();
    for (position, (chain, blob)) in all.iter().skip(others).zip(blobs).enumerate() {
        let known = downloads.iter().find(|d| d.blob.digest == blob.digest).cloned();
        if store.layers.get(chain).is_some() {
            if known.is_none() {
                tell(Told::State { id: blob.digest.hex()[..12].to_owned(), state: "Already exists" });
            }
            continue;
        }
        // One blob may be several layers.
        let download = known.unwrap_or_else(|| {
            let new = Download::new(blob.clone());
            tell(Told::State { id: new.id.clone(), state: "Pulling fs layer" });
            downloads.push(new.clone());
            new
        });
        missing.push(Missing { position: others + position, download });
    }
    let at_once = from.client.transport.settings.downloads.clamp(1, 64);
    for waiting in downloads.iter().skip(at_once) {
        tell(Told::State { id: waiting.id.clone(), state: "Waiting" });
    }
    // A Windows layer is unpacked over those below it.
    let unpackers = if os == WINDOWS { 1 } else { UNPACKING };
    let first_error: Mutex<Option<ImageError>> = Mutex::new(None);
    let fail = |error: ImageError| {
        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        from.client.transport.cancel.cancel();
        for download in &downloads {
            download.end(Err("another layer failed".to_owned()));
        }
    };
    let (next_download, next_layer) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(downloads.len()) {
            scope.spawn(|| {
                while let Some(download) = downloads.get(next_download.fetch_add(1, Ordering::SeqCst)) {
                    let slot = store.downloading.take(at_once, &from.client.transport.cancel);
                    let done = slot
                        .map_err(ImageError::from)
                        .and_then(|_slot| download.run(from, &store.layers.content, &store.claims, tell));
                    if let Err(e) = done {
                        download.end(Err(e.to_string()));
                        return fail(e);
                    }
                }
            });
        }
        for _ in 0..unpackers.min(missing.len()) {
            scope.spawn(|| {
                while let Some(layer) = missing.get(next_layer.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(e) = unpack(store, os, diffs, layer, repository, tell) {
                        // What it was unpacked from may not be what it should have been: that is the better reason.
                        if layer.download.wait().is_ok() {
                            fail(e);
                        }
                        return;
                    }
                }
            });
        }
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn unpack(
    store: &ImageStore,
    os: &str,
    diffs: &[Digest],
    layer: &Missing,
    repository: &str,
    tell: Tell<'_>,
) -> Result<()> {
    let (download, at) = (&layer.download, AtomicU64::new(0));
    let reader = Extracting {
        inner: Follower::new(download.clone()),
        download,
        meter: Meter::new(tell, &download.id, "Extracting", download.blob.size),
        at: &at,
    };
    let arrived = || {
        download.wait().map_err(ImageError::Invalid)?;
        Ok(LayerBlob::new(download.blob.clone(), Some(repository.to_owned())))
    };
    let (below, diff) = (&diffs[..layer.position], &diffs[layer.position]);
    store.layers.add(os, below, Some(diff), Box::new(reader), &Keep::Blob(&arrived))?;
    tell(Told::State { id: download.id.clone(), state: "Pull complete" });
    Ok(())
}
