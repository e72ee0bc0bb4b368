//! `docker search`: the index that goes with the default registry, or one that still has the first version's search.

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::Method;

use crate::registry::auth::Credentials;
use crate::registry::cancel::Cancel;
use crate::registry::error::{RegistryError, Result};
use crate::registry::settings::{DEFAULT_DOMAIN, RegistrySettings};
use crate::registry::transport::{Request, Transport};

/// Where the default registry is searched.
const INDEX: &str = "index.docker.io";
/// Bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;

/// Repositories that match a term (`[host/]words`), as the index gives them. `limit`: at most so many, 1–100.
pub(crate) fn search(
    settings: &Arc<RegistrySettings>,
    term: &str,
    limit: u32,
    credentials: &Credentials,
    cancel: &Cancel,
) -> Result<Vec<Value>> {
    let (host, words) = match term.split_once('/') {
        Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => (host, words),
        _ => (INDEX, term),
    };
    let host = if host == DEFAULT_DOMAIN { INDEX } else { host };
    let words = words.strip_prefix("library/").unwrap_or(words);
    let transport = Transport::new(settings.clone(), cancel.clone());
    let mut last = RegistryError::Cancelled;
    for endpoint in settings.endpoints(host, false)? {
        let query = utf8_percent_encode(words, NON_ALPHANUMERIC);
        let url = format!("{}/v1/search?q={query}&n={limit}", endpoint.url);
        let mut request = Request::new(Method::GET, url);
        if !credentials.username.is_empty() && endpoint.url.starts_with("https:") {
            request.headers.extend(credentials.basic().map(|b| ("authorization", b)));
        }
        let response = match transport.once(&request, endpoint.verified) {
            Ok(response) => response,
            Err(e) => {
                last = e;
                continue;
            }
        };
        if response.status.as_u16() == 404 {
            return Err(RegistryError::Broken(format!(
                "registry {host} cannot be searched: it has no /v1/search (the distribution specification has none either)"
            )));
        }
        if !response.status.is_success() {
            return Err(response.refusal());
        }
        let bytes = response.bytes(MAX_ANSWER)?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|e| RegistryError::Broken(format!("the answer of {host} to a search: {e}")))?;
        return Ok(value["results"].as_array().cloned().unwrap_or_default());
    }
    Err(last)
}
