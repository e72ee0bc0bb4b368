//! `docker import URL`: a file from any web server.

use std::io::Read;
use std::sync::Arc;

use ureq::http::Method;

use crate::registry::cancel::Cancel;
use crate::registry::error::{RegistryError, Result};
use crate::registry::settings::{Endpoint, RegistrySettings};
use crate::registry::transport::{Request, Transport};

/// Begins to fetch a URL, `http:` if it names no scheme; its content, to be read once. The URL as it was asked for.
pub(crate) fn open(
    settings: &Arc<RegistrySettings>,
    url: &str,
    cancel: &Cancel,
) -> Result<(String, Box<dyn Read + Send>)> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let anywhere = Endpoint { url: url.clone(), host: host.to_owned(), verified: true, mirror: true };
    let transport = Transport::new(settings.clone(), cancel.clone());
    let response = transport.send(&Request::new(Method::GET, url.clone()), &anywhere)?;
    if !response.status.is_success() {
        return Err(RegistryError::Broken(format!("Got HTTP status code {} from {url}", response.status)));
    }
    Ok((url, Box::new(response.body.into_reader())))
}
