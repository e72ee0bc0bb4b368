//! A file from an URL: `ADD https://…`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use silo_image::{Cancel, Digest, RegistrySettings, download};

use super::error::ContextError;
use crate::copy::Fetched;

/// Bytes of a download.
pub(super) const MOST_BYTES: u64 = 64 << 30;
/// How long one may take; silence of two minutes ends it too.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Fetches a file to `path`, which must not be there. `checksum`: what it has to have (`sha256:…`).
pub fn fetch(
    url: &str,
    checksum: Option<&str>,
    path: &Path,
    settings: &Arc<RegistrySettings>,
    cancel: &Cancel,
) -> Result<Fetched, ContextError> {
    let wanted = match checksum.filter(|text| !text.is_empty()) {
        Some(text) => Some(Digest::parse(text).ok_or_else(|| {
            ContextError::Invalid(format!("invalid checksum digest format: {text:?} is no sha256 digest"))
        })?),
        None => None,
    };
    let download = download(url, settings, cancel)?;
    let doing = || ContextError::io(format!("fetching {url}"));
    let mut file = File::create_new(path).map_err(doing())?;
    let found = bounded(download.body, &mut file, url)?;
    if let Some(wanted) = wanted.filter(|wanted| wanted.hex() != found) {
        return Err(ContextError::Invalid(format!("digest mismatch sha256:{found}: {wanted}")));
    }
    let name = name_of(url).or(download.file_name);
    Ok(Fetched { path: path.to_owned(), name, url: url.to_owned(), modified: download.modified })
}

/// Copies a body within its bounds; its SHA-256 in hexadecimal.
pub(super) fn bounded(mut body: impl Read, to: &mut dyn Write, url: &str) -> Result<String, ContextError> {
    let began = Instant::now();
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(ContextError::io(format!("fetching {url}"))(e)),
        };
        length += n as u64;
        if length > MOST_BYTES {
            return Err(ContextError::Invalid(format!("{url} has more than {MOST_BYTES} bytes")));
        }
        if began.elapsed() > LIMIT {
            return Err(ContextError::Invalid(format!("{url} took longer than {} s", LIMIT.as_secs())));
        }
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n]).map_err(ContextError::io(format!("writing what {url} has")))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last part of an URL's path.
fn name_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split(['?', '#']).next()?.split_once('/')?;
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    let name = percent_encoding::percent_decode_str(last).decode_utf8().ok()?.into_owned();
    Some(name).filter(|name| !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_urls() {
        let check = |url: &str, name: Option<&str>| assert_eq!(name_of(url).as_deref(), name, "{url}");
        check("http://h/a/b.tar.gz", Some("b.tar.gz"));
        check("http://h/a/?x=/y", Some("a"));
        check("http://h/a%20b#f", Some("a b"));
        check("http://h/", None);
        check("http://h", None);
        check("http://h/..", None);
        check("http://h/a%2Fb", None);
    }
}
