//! Fetching a file from an URL that is no registry's, through the same proxies and with the same certificates and limits.

use std::io::Read;
use std::sync::Arc;

use jiff::Timestamp;
use ureq::http::{Method, StatusCode};

use crate::registry::transport::{Request, Transport};
use crate::registry::{Cancel, Endpoint, RegistryError, RegistrySettings};

/// Bytes of a refusal that are told.
const MOST_TOLD: u64 = 1024;

/// What an URL answers.
pub struct Download {
    /// `Last-Modified`.
    pub modified: Option<Timestamp>,
    /// `Content-Type`, in lower case and without parameters; may be empty.
    pub content_type: String,
    /// `filename` of `Content-Disposition`.
    pub file_name: Option<String>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// The body; not bounded but by silence.
    pub body: Box<dyn Read + Send>,
}

/// Asks for an `http:` or `https:` URL; redirections (at most ten) are followed. Any status but success is an error in
/// dockerd's words.
pub fn download(
    url: &str,
    settings: &Arc<RegistrySettings>,
    cancel: &Cancel,
) -> Result<Download, RegistryError> {
    let transport = Transport::new(settings.clone(), cancel.clone());
    let request = Request::new(Method::GET, url.to_owned()).header("accept-encoding", "identity");
    let anywhere = Endpoint { url: url.to_owned(), host: String::new(), verified: true, mirror: true };
    let response = transport.send(&request, &anywhere).map_err(|e| match e {
        RegistryError::Refused { status, message, .. } => refused(url, status, &message),
        other => other,
    })?;
    let status = response.status;
    if status != StatusCode::OK {
        let mut text = String::new();
        let _ = response.body.into_reader().take(MOST_TOLD).read_to_string(&mut text);
        return Err(refused(url, status.as_u16(), text.trim()));
    }
    let header = |name: &str| response.header(name).map(str::to_owned);
    let modified = header("last-modified")
        .and_then(|text| jiff::fmt::rfc2822::parse(text.trim()).ok())
        .map(|zoned| zoned.timestamp());
    let content_type = header("content-type").unwrap_or_default();
    let file_name = header("content-disposition").as_deref().and_then(disposition_name);
    let length = header("content-length").and_then(|text| text.parse().ok());
    Ok(Download {
        modified,
        content_type: content_type.split(';').next().unwrap_or_default().trim().to_lowercase(),
        file_name,
        length,
        body: Box::new(response.body.into_reader()),
    })
}

fn refused(url: &str, status: u16, text: &str) -> RegistryError {
    let name = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let code = String::new();
    RegistryError::Refused {
        status,
        code,
        message: format!("failed to GET {url} with status {status} {name}: {text}"),
    }
}

/// The last part of `filename` of `Content-Disposition` (RFC 6266, the plain form).
fn disposition_name(header: &str) -> Option<String> {
    let value = header.split(';').map(str::trim).find_map(|part| part.strip_prefix("filename="))?;
    let name = value.trim_matches('"').rsplit(['/', '\\']).next()?.to_owned();
    Some(name).filter(|name| !matches!(name.as_str(), "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dispositions() {
        let check = |header: &str, name: Option<&str>| assert_eq!(disposition_name(header).as_deref(), name);
        check("attachment; filename=\"a b.tar\"", Some("a b.tar"));
        check("attachment; filename=../../etc/passwd", Some("passwd"));
        check("attachment; filename=\"..\"", None);
        check("inline", None);
    }
}
