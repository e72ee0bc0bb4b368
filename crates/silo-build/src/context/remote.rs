//! A context from an URL.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use silo_image::{Cancel, RegistrySettings, download, layer};

use super::error::ContextError;
use super::git::clone;
use super::url::{git_source, is_url};
use super::{LONGEST, unpack};

/// Puts what an URL leads to into a directory; the text of a Dockerfile if it is that alone.
pub(super) fn into(
    url: &str,
    directory: &Path,
    settings: &Arc<RegistrySettings>,
    cancel: &Cancel,
    limits: &layer::Limits,
) -> Result<Option<String>, ContextError> {
    if let Some(source) = git_source(url) {
        clone(&source, directory, false, settings, cancel)?;
        return Ok(None);
    }
    if !is_url(url) {
        return Err(ContextError::Invalid(format!("remoteURL ({url}) could not be recognized as URL")));
    }
    let doing = || ContextError::io(format!("fetching {url}"));
    let mut answer = download(url, settings, cancel)?;
    // A Dockerfile begins with no header of a tar, whatever its server takes it for.
    let mut first = Vec::new();
    answer.body.by_ref().take(1 << 20).read_to_end(&mut first).map_err(doing())?;
    if is_archive(&first) {
        unpack(Box::new(io::Cursor::new(first).chain(answer.body)), directory, limits)?;
        return Ok(None);
    }
    answer.body.take(LONGEST).read_to_end(&mut first).map_err(doing())?;
    let unsupported = || {
        ContextError::Invalid(format!(
            "error detecting content type for remote {url}: unsupported Content-Type {:?}",
            answer.content_type
        ))
    };
    let is_text = answer.content_type.starts_with("text/") && answer.content_type != "text/html"
        || matches!(answer.content_type.as_str(), "" | "application/octet-stream");
    if !is_text || first.len() as u64 > LONGEST {
        return Err(unsupported());
    }
    let text = String::from_utf8(first).map_err(|_| unsupported())?;
    match text.trim().is_empty() {
        true => Err(ContextError::EmptyDockerfile(url.to_owned())),
        false => Ok(Some(text)),
    }
}

/// Whether bytes begin a tar, compressed or not.
fn is_archive(first: &[u8]) -> bool {
    let Ok(plain) = layer::decompress(Box::new(first)) else { return false };
    let mut block = [0; 512];
    plain.take(512).read_exact(&mut block).is_ok() && layer::is_tar_header(&block)
}
