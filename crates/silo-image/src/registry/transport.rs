//! HTTP to registries: one agent a host, its certificates and proxy, limits of every wait, repeats after trouble.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{HeaderMap, Method, StatusCode};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::registry::cancel::Cancel;
use crate::registry::error::{RegistryError, Result};
use crate::registry::settings::{Endpoint, RegistrySettings};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long one read or write may take: a registry may look at a whole blob before it answers.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// The first pause after trouble; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of a refusal that are read.
const MAX_REFUSAL: u64 = 64 << 10;

/// What a request sends; each attempt begins at its beginning.
#[derive(Clone, Copy)]
pub(crate) enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// `length` bytes of a file from `start` on, counted as they go.
    Part {
        file: &'a Path,
        start: u64,
        length: u64,
        sent: &'a (dyn Fn(u64) + Sync),
    },
}

/// One request.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) sent: Sent<'a>,
    /// How long all of it may take.
    pub(crate) limit: Option<Duration>,
}

impl Request<'_> {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self { method, url, headers: Vec::new(), sent: Sent::Nothing, limit: None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ureq::Body,
    /// What was asked, for errors.
    pub(crate) url: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, of at most `most` bytes.
    pub(crate) fn bytes(self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(most + 1).read_to_end(&mut bytes);
        read.map_err(|e| RegistryError::Unreachable { url: self.url.clone(), why: e.to_string() })?;
        if bytes.len() as u64 > most {
            return Err(RegistryError::Broken(format!("{}: more than {most} bytes", self.url)));
        }
        Ok(bytes)
    }

    /// The registry's own words for a refusal.
    pub(crate) fn refusal(self) -> RegistryError {
        let status = self.status;
        let mut bytes = Vec::new();
        let _ = self.body.into_reader().take(MAX_REFUSAL).read_to_end(&mut bytes);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let first = &value["errors"][0];
        let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
        let (mut code, mut message) = (text("code"), text("message"));
        if code.is_empty() {
            // Without words of its own: those of the status.
            code = match status.as_u16() {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                429 => "TOOMANYREQUESTS",
                _ => "",
            }
            .to_owned();
            let words = ["message", "details", "error"].iter().find_map(|n| value[*n].as_str());
            message = match words {
                Some(words) => words.to_owned(),
                None if code == "UNAUTHORIZED" => "authentication required".to_owned(),
                None => format!("unexpected status from {}: {status}", self.url),
            };
        }
        RegistryError::Refused { status: status.as_u16(), code, message }
    }
}

/// Connections to registries for one piece of work.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) settings: Arc<RegistrySettings>,
    pub(crate) cancel: Cancel,
    /// By scheme, host and whether it must prove itself.
    agents: Mutex<HashMap<(bool, String, bool), ureq::Agent>>,
}

impl Transport {
    pub(crate) fn new(settings: Arc<RegistrySettings>, cancel: Cancel) -> Self {
        Self { settings, cancel, agents: Mutex::default() }
    }

    fn agent(&self, url: &str, verified: bool) -> Result<ureq::Agent> {
        let bad = || RegistryError::Broken(format!("{url:?} is no http or https URL"));
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let host = rest.split(['/', '?']).next().unwrap_or_default().to_owned();
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tls, host, verified);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = if tls { &self.settings.https_proxy } else { &self.settings.http_proxy };
        let direct = self.settings.no_proxy.as_deref().unwrap_or_default();
        let proxy = match proxy.as_ref().filter(|p| !p.is_empty() && !is_direct(&key.1, direct)) {
            Some(url) => Some(
                ureq::Proxy::new(url).map_err(|e| RegistryError::Settings(format!("proxy {url:?}: {e}")))?,
            ),
            None => None,
        };
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(proxy)
            .user_agent(concat!("silo/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_per_read(Some(SILENCE_LIMIT))
            .timeout_per_write(Some(SILENCE_LIMIT))
            .input_buffer_size(256 << 10)
            .output_buffer_size(256 << 10);
        if tls {
            config = config.tls_config(self.tls(&key.1, verified)?);
        }
        let agent = ureq::Agent::new_with_config(config.build());
        self.cancel.watch(&agent);
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn tls(&self, host: &str, verified: bool) -> Result<TlsConfig> {
        let mut roots = Vec::new();
        if verified {
            let system = rustls_native_certs::load_native_certs().certs;
            roots.extend(system.iter().map(|c| Certificate::from_der(c.as_ref()).to_owned()));
        }
        let mut client = None;
        for file in self.settings.certificate_files(host) {
            match file.extension().and_then(|x| x.to_str()) {
                Some("crt") => roots.extend(pem(&file)?.0),
                Some("cert") => {
                    let key = file.with_extension("key");
                    let (_, Some(private)) = pem(&key)? else {
                        return Err(RegistryError::Settings(format!("{} has no private key", key.display())));
                    };
                    client = Some(ClientCert::new_with_certs(&pem(&file)?.0, private));
                }
                _ => {}
            }
        }
        Ok(TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(client)
            .disable_verification(!verified)
            .build())
    }

    /// Sends once.
    pub(crate) fn once(&self, request: &Request<'_>, verified: bool) -> Result<Response> {
        self.cancel.check()?;
        let agent = self.agent(&request.url, verified)?;
        let unreachable = |why: String| match self.cancel.check() {
            Err(cancelled) => cancelled,
            Ok(()) => RegistryError::Unreachable { url: shown(&request.url), why },
        };
        let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let invalid = |e: ureq::http::Error| RegistryError::Broken(format!("{}: {e}", request.url));
        let answer = match &request.sent {
            Sent::Nothing => {
                // Without it the library sends such a method's body in chunks, none of them, where registries expect none.
                if request.method == Method::POST {
                    builder = builder.header("content-length", 0);
                }
                let plain = builder.body(()).map_err(invalid)?;
                agent.run(agent.configure_request(plain).timeout_global(request.limit).build())
            }
            Sent::Bytes(bytes) => agent.run(builder.body(*bytes).map_err(invalid)?),
            Sent::Part { file, start, length, sent } => {
                let opened = File::open(file).and_then(|mut f| f.seek(SeekFrom::Start(*start)).map(|_| f));
                let opened = opened.map_err(|e| RegistryError::Broken(format!("{}: {e}", file.display())))?;
                let mut reader = Counted { inner: opened.take(*length), done: *start, sent: *sent };
                let body = ureq::SendBody::from_reader(&mut reader);
                agent.run(builder.header("content-length", *length).body(body).map_err(invalid)?)
            }
        };
        let answer = answer.map_err(|e| unreachable(words(&e)))?;
        let (parts, body) = answer.into_parts();
        Ok(Response { status: parts.status, headers: parts.headers, body, url: request.url.clone() })
    }

    /// The pause before the next of several attempts, or the error if that was the last. `asked`: what the registry wants.
    pub(crate) fn pause(&self, attempt: u32, asked: Option<Duration>, last: RegistryError) -> Result<()> {
        if attempt >= self.settings.attempts {
            return Err(last);
        }
        let own = FIRST_PAUSE * 2u32.saturating_pow(attempt.saturating_sub(1));
        self.cancel.wait(asked.unwrap_or(own).min(LONGEST_PAUSE))
    }

    /// Sends, and again while the registry says that it is busy or in trouble.
    pub(crate) fn send(&self, request: &Request<'_>, endpoint: &Endpoint) -> Result<Response> {
        for attempt in 1.. {
            let response = match self.once(request, endpoint.verified) {
                Ok(response) => response,
                Err(e @ RegistryError::Unreachable { .. }) if !is_final(&e) => {
                    self.pause(attempt, None, e)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            if !is_trouble(response.status) {
                return Ok(response);
            }
            let asked = response.header("retry-after").and_then(retry_after);
            let last = response.refusal();
            self.pause(attempt, asked, last)?;
        }
        Err(RegistryError::Cancelled)
    }
}

/// Statuses that may be others a moment later.
pub(crate) fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What another attempt would not change: nobody listens there, or the other side cannot be trusted.
fn is_final(error: &RegistryError) -> bool {
    let RegistryError::Unreachable { why, .. } = error else { return true };
    ["refused", "certificate", "no such host", "no route", "HTTP response to HTTPS"]
        .iter()
        .any(|w| why.contains(w))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let when = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(when.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// An URL without what may be secret in it.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// An error of the library, in dockerd's words where it has some.
fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "dial tcp: lookup: no such host".to_owned(),
        ureq::Error::Rustls(rustls::Error::InvalidMessage(_)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        other => {
            let text = other.to_string();
            let plain = text.contains("InvalidContentType") || text.contains("corrupt message");
            if plain { "http: server gave HTTP response to HTTPS client".to_owned() } else { text }
        }
    }
}

/// Certificates and the last private key of a file.
fn pem(file: &Path) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>)> {
    let bad = |why: String| RegistryError::Settings(format!("{}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&bytes) {
        match item.map_err(|e| bad(e.to_string()))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(private) => key = Some(private),
            _ => {}
        }
    }
    Ok((certificates, key))
}

/// Whether `NO_PROXY` names a host, as Go reads it: names with all below them, addresses, subnets, `*`; this machine
/// always.
fn is_direct(host: &str, list: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address: Option<std::net::IpAddr> = name.parse().ok();
    if name == "localhost" || address.is_some_and(|a| a.is_loopback()) {
        return true;
    }
    list.split(',').map(str::trim).filter(|e| !e.is_empty()).any(|entry| {
        if let (Some(address), Some(net)) = (address, crate::registry::settings::subnet(entry)) {
            return crate::registry::settings::within(address, net);
        }
        let bare = entry.strip_prefix("*.").or(entry.strip_prefix('.')).unwrap_or(entry);
        entry == "*"
            || entry == host
            || name == bare
            || name.strip_suffix(bare).is_some_and(|h| h.ends_with('.'))
    })
}

/// A reader that tells how far it is.
struct Counted<'a, R> {
    inner: R,
    done: u64,
    sent: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        (self.sent)(self.done);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_reached_without_a_proxy() {
        let list = "example.com, .corp,*.lan,10.0.0.0/8,192.0.2.1,h:5000";
        for (host, direct) in [
            ("localhost:5000", true),
            ("127.0.0.2", true),
            ("example.com:443", true),
            ("a.example.com", true),
            ("badexample.com", false),
            ("x.corp", true),
            ("x.lan", true),
            ("10.9.8.7:5000", true),
            ("11.9.8.7", false),
            ("192.0.2.1", true),
            ("h:5000", true),
            ("h:5001", false),
        ] {
            assert_eq!(is_direct(host, list), direct, "{host}");
        }
        assert!(is_direct("any", "*") && !is_direct("any", ""));
    }

    #[test]
    fn pauses_that_registries_ask_for() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
