//! The pushing half of a registry: blobs by mount or upload, whole or in chunks, and manifests.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Method, StatusCode};

use crate::digest::Digest;
use crate::registry::client::Client;
use crate::registry::error::{RegistryError, Result};
use crate::registry::transport::{Request, Response, Sent};

/// Blobs up to this size go with one request.
const MONOLITHIC: u64 = 16 << 20;
/// Larger ones in chunks of this size, so that a break costs one of them.
const CHUNK: u64 = 32 << 20;

/// How a blob came to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// From another repository of the registry.
    Mounted(String),
    /// By upload.
    Sent,
}

/// An upload that the registry has begun.
struct Session {
    location: String,
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Client {
    fn location(&self, response: &Response) -> Result<String> {
        let location = response.header("location").filter(|l| !l.is_empty());
        let location = location.ok_or_else(|| {
            RegistryError::Broken(format!("{}: the registry does not say where to upload to", response.url))
        })?;
        Ok(self.absolute(&response.url, location))
    }

    /// Brings a blob into a repository. `from`: repositories of the same registry that may have it; `sent` is told how many
    /// bytes have gone.
    pub(crate) fn put_blob(
        &self,
        repository: &str,
        digest: &Digest,
        file: &Path,
        size: u64,
        from: &[String],
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<Arrived> {
        let base = format!("{}/v2/{repository}/blobs/uploads/", self.endpoint.url);
        for source in from {
            let url = format!("{base}?mount={}&from={}", encode(digest.as_str()), encode(source));
            let response = self.pushing(repository, Some(source), Request::new(Method::POST, url))?;
            match response.status {
                StatusCode::CREATED => return Ok(Arrived::Mounted(source.clone())),
                // Not there, and an upload begun instead.
                StatusCode::ACCEPTED => {
                    let session = Session { location: self.location(&response)? };
                    return self.upload(repository, digest, file, size, session, sent);
                }
                _ => {}
            }
        }
        for attempt in 1.. {
            let response = self.pushing(repository, None, Request::new(Method::POST, base.clone()))?;
            if response.status != StatusCode::ACCEPTED {
                return Err(response.refusal());
            }
            let session = Session { location: self.location(&response)? };
            match self.upload(repository, digest, file, size, session, sent) {
                // The registry has forgotten the upload: another one.
                Err(
                    e
                    @ (RegistryError::Unreachable { .. } | RegistryError::Refused { status: 404 | 416, .. }),
                ) => {
                    self.transport.pause(attempt, None, e)?;
                }
                other => return other,
            }
        }
        Err(RegistryError::Cancelled)
    }

    /// Has a blob of another repository of the registry in this one too; whether it could be. Nothing is sent.
    pub(crate) fn mount(&self, repository: &str, digest: &Digest, from: &str) -> Result<bool> {
        let base = format!("{}/v2/{repository}/blobs/uploads/", self.endpoint.url);
        let url = format!("{base}?mount={}&from={}", encode(digest.as_str()), encode(from));
        let response = self.pushing(repository, Some(from), Request::new(Method::POST, url))?;
        if response.status == StatusCode::ACCEPTED {
            // An upload begun instead, which nobody wants.
            let location = self.location(&response)?;
            let _ = self.pushing(repository, None, Request::new(Method::DELETE, location));
        }
        Ok(response.status == StatusCode::CREATED)
    }

    fn upload(
        &self,
        repository: &str,
        digest: &Digest,
        file: &Path,
        size: u64,
        mut session: Session,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<Arrived> {
        let whole = size <= MONOLITHIC;
        let mut start = 0;
        let mut troubles = 0;
        while !whole && start < size {
            let length = CHUNK.min(size - start);
            let mut request = Request::new(Method::PATCH, session.location.clone())
                .header("content-type", "application/octet-stream")
                .header("content-range", format!("{start}-{}", start + length - 1));
            request.sent = Sent::Part { file, start, length, sent };
            let response = match self.pushing(repository, None, request) {
                Ok(response) => response,
                Err(e @ RegistryError::Unreachable { .. }) => {
                    troubles += 1;
                    self.transport.pause(troubles, None, e)?;
                    start = self.received(repository, &mut session)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            if response.status != StatusCode::ACCEPTED {
                return Err(response.refusal());
            }
            session.location = self.location(&response)?;
            let end = response.header("range").and_then(end_of);
            let next = end.unwrap_or(start + length);
            if next <= start || next > size {
                return Err(RegistryError::Broken(format!(
                    "{}: the registry has {next} bytes after {} were sent",
                    response.url,
                    start + length
                )));
            }
            start = next;
        }
        let sign = if session.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{sign}digest={}", session.location, encode(digest.as_str()));
        let mut request = Request::new(Method::PUT, url).header("content-type", "application/octet-stream");
        request.sent = match whole {
            true => Sent::Part { file, start: 0, length: size, sent },
            false => Sent::Bytes(b""),
        };
        let response = self.pushing(repository, None, request)?;
        match response.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(Arrived::Sent),
            _ => Err(response.refusal()),
        }
    }

    /// How many bytes of an upload the registry has, after a break.
    fn received(&self, repository: &str, session: &mut Session) -> Result<u64> {
        let request = Request::new(Method::GET, session.location.clone());
        let response = self.pushing(repository, None, request)?;
        if response.status != StatusCode::NO_CONTENT && response.status != StatusCode::ACCEPTED {
            return Err(response.refusal());
        }
        let have = response.header("range").and_then(end_of).unwrap_or(0);
        if response.header("location").is_some() {
            session.location = self.location(&response)?;
        }
        Ok(have)
    }

    /// A small blob from memory, such as a config.
    pub(crate) fn put_small(&self, repository: &str, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let base = format!("{}/v2/{repository}/blobs/uploads/", self.endpoint.url);
        let response = self.pushing(repository, None, Request::new(Method::POST, base))?;
        if response.status != StatusCode::ACCEPTED {
            return Err(response.refusal());
        }
        let location = self.location(&response)?;
        let sign = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{sign}digest={}", encode(digest.as_str()));
        let mut request = Request::new(Method::PUT, url).header("content-type", "application/octet-stream");
        request.sent = Sent::Bytes(bytes);
        let response = self.pushing(repository, None, request)?;
        if response.status.is_success() { Ok(()) } else { Err(response.refusal()) }
    }

    /// Stores a manifest under a tag; the registry must have got these bytes.
    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.endpoint.url);
        let mut request = Request::new(Method::PUT, url).header("content-type", media_type);
        request.sent = Sent::Bytes(bytes);
        let mut attempt = 0;
        let response = loop {
            attempt += 1;
            let response = self.pushing(repository, None, request.clone())?;
            // A registry of several machines may not see a blob yet that one of them has just taken.
            if response.status != StatusCode::NOT_FOUND || attempt >= self.transport.settings.attempts {
                break response;
            }
            let last = response.refusal();
            self.transport.pause(attempt, None, last)?;
        };
        if !response.status.is_success() {
            return Err(response.refusal());
        }
        let own = Digest::of(bytes);
        match response.header("docker-content-digest").and_then(Digest::parse) {
            Some(other) if other != own => Err(RegistryError::Broken(format!(
                "{}: the registry took the manifest {own} as {other}",
                response.url
            ))),
            _ => Ok(own),
        }
    }
}

/// The byte after the last of a range such as `0-1023` or `bytes=0-1023`; `0-0` is how an empty upload is told too.
fn end_of(range: &str) -> Option<u64> {
    let last: u64 = range.rsplit_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads() {
        for (text, end) in
            [("0-1023", Some(1024)), ("bytes=0-9", Some(10)), ("0-0", Some(0)), ("x", None), ("0-x", None)]
        {
            assert_eq!(end_of(text), end, "{text}");
        }
    }
}
