//! One blob on its way in: fetched once, verified while it is written, read by others meanwhile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::http::StatusCode;

use crate::content::Content;
use crate::digest::Digest;
use crate::error::{ImageError, Result, io as doing};
use crate::lease::Claims;
use crate::manifest::Descriptor;
use crate::progress::{Meter, Tell, Told};
use crate::registry::client::Client;
use crate::registry::error::RegistryError;
use crate::registry::transport::Response;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// How long a look at somebody else's download takes before the end of our own work is looked for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct State {
    /// Where it is; changes its name when it is verified.
    path: Option<PathBuf>,
    written: u64,
    /// The end: `None` while it goes on.
    end: Option<std::result::Result<(), String>>,
}

/// A blob that is being fetched.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) blob: Descriptor,
    /// 12 digits.
    pub(crate) id: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl Download {
    pub(crate) fn new(blob: Descriptor) -> Arc<Self> {
        let id = blob.digest.hex()[..12].to_owned();
        Arc::new(Self { blob, id, state: Mutex::default(), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Ends it: whoever reads it learns.
    pub(crate) fn end(&self, end: std::result::Result<(), String>) {
        self.change(|s| {
            s.end.get_or_insert(end);
        });
    }

    /// Whether all of it is here and verified.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state().end, Some(Ok(())))
    }

    /// Waits for the end. It has one: every wait of a download has a limit, and cancelling ends it.
    pub(crate) fn wait(&self) -> std::result::Result<(), String> {
        let state = self.changed.wait_while(self.state(), |s| s.end.is_none());
        state.unwrap_or_else(PoisonError::into_inner).end.clone().unwrap_or(Ok(()))
    }

    /// Fetches it, unless it is here. Others that want the same wait for the first.
    pub(crate) fn run(
        &self,
        from: &Source<'_>,
        content: &Content,
        claims: &Claims,
        tell: Tell<'_>,
    ) -> Result<()> {
        let state = |state| tell(Told::State { id: self.id.clone(), state });
        let digest = &self.blob.digest;
        let mut waited = false;
        let _claim = loop {
            from.client.transport.cancel.check()?;
            match claims.take(digest, LOOK) {
                Some(claim) => break claim,
                None if !waited => {
                    waited = true;
                    state("Waiting");
                }
                None => {}
            }
        };
        if content.size(digest) == Some(self.blob.size) {
            self.change(|s| {
                s.path = Some(content.path(digest));
                s.written = self.blob.size;
            });
        } else {
            let temporary = content.temporary();
            let fetched = self.fetch(from, &temporary, tell).and_then(|()| {
                // Under the lock, so that nobody opens it by its old name.
                let mut s = self.state();
                content.commit(&temporary, digest)?;
                s.path = Some(content.path(digest));
                Ok(())
            });
            if let Err(e) = fetched {
                let _ = std::fs::remove_file(&temporary);
                return Err(e);
            }
        }
        state("Download complete");
        self.end(Ok(()));
        Ok(())
    }

    fn fetch(&self, from: &Source<'_>, to: &PathBuf, tell: Tell<'_>) -> Result<()> {
        let mut file = File::create(to).map_err(doing(format!("making {}", to.display())))?;
        self.change(|s| s.path = Some(to.clone()));
        let meter = Meter::new(tell, &self.id, "Downloading", self.blob.size);
        let mut hash = Sha256::new();
        let (mut at, mut attempt) = (0, 0);
        while at < self.blob.size {
            let before = at;
            let broken = match self.piece(from, &mut file, &mut hash, &mut at, &meter) {
                Ok(()) => break,
                Err(ImageError::Registry(e @ RegistryError::Unreachable { .. })) => e,
                Err(e) => return Err(e),
            };
            from.client.transport.cancel.check()?;
            // Patience begins anew with each byte that comes.
            attempt = if at > before { 1 } else { attempt + 1 };
            tracing::debug!("blob {} broke off at {at} of {}: {broken}", self.blob.digest, self.blob.size);
            tell(Told::State { id: self.id.clone(), state: "Retrying" });
            from.client.transport.pause(attempt, None, broken)?;
        }
        tell(Told::State { id: self.id.clone(), state: "Verifying Checksum" });
        let found = Digest::from_hash(&hash.finalize());
        if found != self.blob.digest {
            return Err(ImageError::Invalid(format!(
                "filesystem layer verification failed for digest {}: what the registry sent has {found}",
                self.blob.digest
            )));
        }
        Ok(())
    }

    /// Fetches from where the last attempt ended.
    fn piece(
        &self,
        from: &Source<'_>,
        file: &mut File,
        hash: &mut Sha256,
        at: &mut u64,
        meter: &Meter<'_>,
    ) -> Result<()> {
        let response = from.open(&self.blob, *at)?;
        let url = response.url.split('?').next().unwrap_or_default().to_owned();
        let wrong = |sent: &str| {
            ImageError::Invalid(format!(
                "the registry sent {sent} for blob {} of {} bytes",
                self.blob.digest, self.blob.size
            ))
        };
        let mut skip = 0;
        if response.status == StatusCode::PARTIAL_CONTENT {
            let range = response.header("content-range").and_then(first_of);
            if range != Some(*at) {
                return Err(wrong(&format!(
                    "the range {:?} instead of byte {at} on",
                    response.header("content-range")
                )));
            }
        } else {
            // It knows no ranges: what is here already comes again, and the digest proves that it is the same.
            skip = *at;
        }
        if let Some(length) = response.header("content-length").and_then(|l| l.parse::<u64>().ok())
            && length + (*at - skip) != self.blob.size
        {
            return Err(wrong(&format!("{} bytes", length + (*at - skip))));
        }
        let broke = |e: io::Error| RegistryError::Unreachable { url: url.clone(), why: e.to_string() };
        let mut body = response.body.into_reader();
        if skip > 0 {
            let skipped = io::copy(&mut (&mut body).take(skip), &mut io::sink()).map_err(broke)?;
            if skipped < skip {
                return Err(broke(io::ErrorKind::UnexpectedEof.into()).into());
            }
        }
        let mut piece = vec![0; PIECE];
        loop {
            from.client.transport.cancel.check()?;
            let n = body.read(&mut piece).map_err(broke)?;
            if n == 0 {
                break;
            }
            if *at + n as u64 > self.blob.size {
                return Err(wrong("more bytes"));
            }
            file.write_all(&piece[..n]).map_err(doing(format!("writing blob {}", self.blob.digest)))?;
            hash.update(&piece[..n]);
            *at += n as u64;
            let written = *at;
            self.change(|s| s.written = written);
            meter.at(written);
        }
        if *at < self.blob.size {
            return Err(broke(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")).into());
        }
        Ok(())
    }
}

/// The first byte of `bytes 5-9/10`.
fn first_of(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start_matches([' ', '=']).split('-').next()?.parse().ok()
}

/// Where blobs come from.
pub(crate) struct Source<'a> {
    pub(crate) client: &'a Client,
    pub(crate) repository: &'a str,
}

impl Source<'_> {
    fn open(&self, blob: &Descriptor, start: u64) -> Result<Response> {
        let first = match self.client.blob(self.repository, &blob.digest, start) {
            Err(e) if e.is_not_found() && !blob.urls.is_empty() => e,
            other => return Ok(other?),
        };
        // Windows' base layers: their owner gives them away, registries do not.
        for url in &blob.urls {
            match self.client.foreign(url, start) {
                Ok(response) => return Ok(response),
                Err(e) => tracing::info!("foreign layer {} from {url}: {e}", blob.digest),
            }
        }
        Err(first.into())
    }
}

/// Reads a blob while it is being fetched.
pub(crate) struct Follower {
    download: Arc<Download>,
    file: Option<File>,
    at: u64,
}

impl Follower {
    pub(crate) fn new(download: Arc<Download>) -> Self {
        Self { download, file: None, at: 0 }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let written = {
            let state = self.download.state();
            let waited = self.download.changed.wait_while(state, |s| s.written <= self.at && s.end.is_none());
            let state = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(Err(e)) = &state.end {
                return Err(io::Error::other(e.clone()));
            }
            if let (None, Some(path)) = (&self.file, &state.path) {
                self.file = Some(File::open(path)?);
            }
            state.written
        };
        let Some(file) = self.file.as_ref().filter(|_| written > self.at) else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(written - self.at).unwrap_or(usize::MAX));
        let n = file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_reads_what_is_there_and_learns_of_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let blob = serde_json::from_value(
            serde_json::json!({"mediaType": "m", "size": 8, "digest": Digest::of(b"12345678")}),
        );
        let download = Download::new(blob.unwrap());
        let path = dir.path().join("a");
        std::fs::write(&path, b"12345678").unwrap();
        let mut follower = Follower::new(download.clone());
        download.change(|s| (s.path, s.written) = (Some(path.clone()), 5));
        let mut buffer = [0; 100];
        assert_eq!(follower.read(&mut buffer).unwrap(), 5);
        std::fs::rename(&path, dir.path().join("b")).unwrap();
        std::thread::scope(|s| {
            let rest = s.spawn(|| io::read_to_string(&mut follower).unwrap());
            download.change(|s| s.written = 8);
            download.end(Ok(()));
            assert_eq!(rest.join().unwrap(), "678");
        });
        let failed = Download::new(download.blob.clone());
        failed.end(Err("why".into()));
        assert_eq!(Follower::new(failed).read(&mut buffer).unwrap_err().to_string(), "why");
    }

    #[test]
    fn ranges_of_answers() {
        for (text, first) in [("bytes 5-9/10", Some(5)), ("bytes 0-0/*", Some(0)), ("items 1-2/3", None)] {
            assert_eq!(first_of(text), first, "{text}");
        }
    }
}
