//! One registry, or a copy of it, as the distribution specification has it: manifests, blobs, tags.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, StatusCode};

use crate::digest::Digest;
use crate::manifest::{ACCEPTED, MAX_MANIFEST};
use crate::registry::auth::{Authorizer, Credentials};
use crate::registry::cancel::Cancel;
use crate::registry::error::{RegistryError, Result};
use crate::registry::settings::{Endpoint, RegistrySettings};
use crate::registry::transport::{Request, Response, Transport, is_trouble};

/// Tags that one repository may have.
const MAX_TAGS: usize = 100_000;
/// Bytes of a page of tags.
const MAX_PAGE: u64 = 16 << 20;

/// How long a registry may take to say that it is one: what speaks no TLS may be silent when it is spoken to in it.
const GREETING_LIMIT: Duration = Duration::from_secs(15);

/// A manifest as it came.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    /// What the registry says that it is; may be empty.
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

/// A registry that has answered.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    auth: Authorizer,
    pub(crate) endpoint: Endpoint,
}

/// What is asked of a repository for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// The scope of a token (distribution specification, "Token Scope Documentation").
fn scope(repository: &str, access: Access) -> String {
    let actions = if access == Access::Push { "pull,push" } else { "pull" };
    format!("repository:{repository}:{actions}")
}

impl Client {
    /// Asks an endpoint whether it is a registry, and how it wants to be spoken to.
    pub(crate) fn connect(
        settings: &Arc<RegistrySettings>,
        endpoint: Endpoint,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Self> {
        let client = Self {
            transport: Transport::new(settings.clone(), cancel.clone()),
            auth: Authorizer::new(credentials.clone()),
            endpoint,
        };
        let mut request = Request::new(Method::GET, format!("{}/v2/", client.endpoint.url));
        request.limit = Some(GREETING_LIMIT);
        // Once: what cannot be reached may be reached in another way.
        let mut response = client.transport.once(&request, client.endpoint.verified)?;
        if is_trouble(response.status) {
            response = client.transport.send(&request, &client.endpoint)?;
        }
        match response.status {
            StatusCode::UNAUTHORIZED if client.auth.learn(&client.endpoint, &response) => Ok(client),
            status if status.is_success() => Ok(client),
            // Some registries do not serve it and serve the rest.
            StatusCode::NOT_FOUND if response.header("docker-distribution-api-version").is_some() => {
                Ok(client)
            }
            _ => Err(response.refusal()),
        }
    }

    /// The first of a registry's own endpoints that answers.
    pub(crate) fn find(
        settings: &Arc<RegistrySettings>,
        domain: &str,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut first = None;
        for endpoint in settings.endpoints(domain, false)? {
            match Self::connect(settings, endpoint, credentials, cancel) {
                Ok(client) => return Ok(client),
                Err(e) if e.is_absence() => first = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(first.unwrap_or(RegistryError::Cancelled))
    }

    /// Checks credentials; an identity token if the registry gives one.
    pub(crate) fn log_in(&self) -> Result<Option<String>> {
        let token = self.auth.log_in(&self.transport, &self.endpoint)?;
        if token.is_none() {
            let response =
                self.authorized(&[], Request::new(Method::GET, format!("{}/v2/", self.endpoint.url)))?;
            if !response.status.is_success() {
                return Err(response.refusal());
            }
        }
        Ok(token)
    }

    /// Sends with what the registry wants to be told for these scopes.
    pub(crate) fn authorized(&self, scopes: &[String], request: Request<'_>) -> Result<Response> {
        let response = self.transport.send(&self.signed(scopes, &request)?, &self.endpoint)?;
        if response.status == StatusCode::UNAUTHORIZED && self.auth.learn(&self.endpoint, &response) {
            return self.transport.send(&self.signed(scopes, &request)?, &self.endpoint);
        }
        Ok(response)
    }

    fn signed<'a>(&self, scopes: &[String], request: &Request<'a>) -> Result<Request<'a>> {
        let mut request = request.clone();
        // An upload's location may be elsewhere, where nobody is to learn who we are.
        if request.url.starts_with(&format!("{}/", self.endpoint.url)) {
            let header = self.auth.header(&self.transport, &self.endpoint, scopes)?;
            request.headers.extend(header.map(|h| ("authorization", h)));
        }
        Ok(request)
    }

    fn url(&self, repository: &str, rest: &str) -> String {
        format!("{}/v2/{repository}/{rest}", self.endpoint.url)
    }

    /// Fetches a manifest by tag or digest.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Result<Fetched> {
        let url = self.url(repository, &format!("manifests/{reference}"));
        let mut request = Request::new(Method::GET, url.clone());
        for media_type in ACCEPTED {
            request = request.header("accept", *media_type);
        }
        let response = self.authorized(&[scope(repository, Access::Pull)], request)?;
        if !response.status.is_success() {
            return Err(response.refusal());
        }
        let media_type = response.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_lowercase();
        let said = response.header("docker-content-digest").and_then(Digest::parse);
        let bytes = response.bytes(MAX_MANIFEST)?;
        let digest = Digest::of(&bytes);
        for wanted in [Digest::parse(reference), said].into_iter().flatten() {
            if wanted != digest {
                return Err(RegistryError::Broken(format!(
                    "manifest verification failed for digest {wanted}: {url} has {digest}"
                )));
            }
        }
        if media_type.starts_with("text/html") {
            return Err(RegistryError::Broken(format!(
                "{url} answered with a web page (text/html) instead of a manifest: is this a registry?"
            )));
        }
        Ok(Fetched { bytes, media_type, digest })
    }

    /// Begins to fetch a blob, from `start` on; the answer is 200 or 206.
    pub(crate) fn blob(&self, repository: &str, digest: &Digest, start: u64) -> Result<Response> {
        let mut request = Request::new(Method::GET, self.url(repository, &format!("blobs/{digest}")));
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let response = self.authorized(&[scope(repository, Access::Pull)], request)?;
        match response.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(response.refusal()),
        }
    }

    /// Begins to fetch what a foreign layer's URL names: from anywhere, and nobody's business who we are.
    pub(crate) fn foreign(&self, url: &str, start: u64) -> Result<Response> {
        let mut request = Request::new(Method::GET, url.to_owned());
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        let anywhere = Endpoint { verified: true, mirror: true, ..self.endpoint.clone() };
        let response = self.transport.send(&request, &anywhere)?;
        match response.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            _ => Err(response.refusal()),
        }
    }

    /// A small blob, whole and verified.
    pub(crate) fn small_blob(&self, repository: &str, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let response = self.blob(repository, digest, 0)?;
        let url = response.url.clone();
        let bytes = response.bytes(most)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RegistryError::Broken(format!(
                "filesystem layer verification failed for digest {digest}: {url} has {found}"
            )));
        }
        Ok(bytes)
    }

    /// Bytes of a blob that a repository has.
    pub(crate) fn has_blob(&self, repository: &str, digest: &Digest, access: Access) -> Result<Option<u64>> {
        let request = Request::new(Method::HEAD, self.url(repository, &format!("blobs/{digest}")));
        let response = self.authorized(&[scope(repository, access)], request)?;
        match response.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                Ok(Some(response.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0)))
            }
            _ => Err(response.refusal()),
        }
    }

    /// All tags of a repository, in the registry's order.
    pub(crate) fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut all = Vec::new();
        let mut next = Some(self.url(repository, "tags/list"));
        while let Some(url) = next.take() {
            let response =
                self.authorized(&[scope(repository, Access::Pull)], Request::new(Method::GET, url.clone()))?;
            if !response.status.is_success() {
                return Err(response.refusal());
            }
            let link = response.header("link").and_then(next_page).map(|l| self.absolute(&url, &l));
            let page: Page = serde_json::from_slice(&response.bytes(MAX_PAGE)?)
                .map_err(|e| RegistryError::Broken(format!("{url}: the list of tags: {e}")))?;
            let tags = page.tags.unwrap_or_default();
            // A page without tags that names a further one would never end.
            next = link.filter(|_| !tags.is_empty());
            all.extend(tags);
            if all.len() > MAX_TAGS {
                return Err(RegistryError::Broken(format!("{repository} has more than {MAX_TAGS} tags")));
            }
        }
        Ok(all)
    }

    /// A location that a registry names, which may be without scheme and host.
    pub(crate) fn absolute(&self, base: &str, location: &str) -> String {
        if location.contains("://") {
            return location.to_owned();
        }
        let host_end = base.find("://").map_or(0, |at| at + 3);
        let end = base[host_end..].find('/').map_or(base.len(), |at| host_end + at);
        match location.starts_with('/') {
            true => format!("{}{location}", &base[..end]),
            false => format!("{}/{location}", base.rsplit_once('/').map_or(base, |(dir, _)| dir)),
        }
    }

    /// Sends to a repository with the right to push, and to pull from another.
    pub(crate) fn pushing(
        &self,
        repository: &str,
        from: Option<&str>,
        request: Request<'_>,
    ) -> Result<Response> {
        let mut scopes = vec![scope(repository, Access::Push)];
        scopes.extend(from.map(|from| scope(from, Access::Pull)));
        self.authorized(&scopes, request)
    }
}

/// The `next` of a `Link` header (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    let part = header.split(',').find(|p| p.contains("rel=\"next\"") || p.contains("rel=next"))?;
    Some(part.split('<').nth(1)?.split('>').next()?.to_owned())
}
