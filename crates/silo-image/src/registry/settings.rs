//! How registries are reached: which are insecure, who mirrors whom, certificates, proxies.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::registry::error::{RegistryError, Result};

/// Host of the default registry; its references say `docker.io`.
const DEFAULT_HOST: &str = "registry-1.docker.io";
/// The default registry's name in references.
pub(crate) const DEFAULT_DOMAIN: &str = "docker.io";
/// What clients call the default registry when they log in.
pub const DEFAULT_SERVER: &str = "https://index.docker.io/v1/";

/// Settings of the daemon for registries.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// `host[:port]` or `address/prefix` of registries that need no valid certificate and may speak plain HTTP. The
    /// loopback's always are.
    pub insecure: Vec<String>,
    /// URLs that are asked before the default registry.
    pub mirrors: Vec<String>,
    /// Directories with `host[:port]/{*.crt,*.cert,*.key}`, as dockerd's `/etc/docker/certs.d`.
    pub certificates: Vec<PathBuf>,
    /// Proxy for `http:`.
    pub http_proxy: Option<String>,
    /// Proxy for `https:`.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without one, by commas.
    pub no_proxy: Option<String>,
    /// Layers that are downloaded at once, of all pulls.
    pub downloads: usize,
    /// Layers that are uploaded at once, of all pushes.
    pub uploads: usize,
    /// How often a request is tried.
    pub attempts: u32,
}

impl Default for RegistrySettings {
    /// dockerd's.
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into(), "/etc/silo/certs.d".into()],
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            downloads: 3,
            uploads: 5,
            attempts: 5,
        }
    }
}

/// One address under which a registry may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https://host:port`, without a slash at the end.
    pub(crate) url: String,
    /// `host[:port]`.
    pub(crate) host: String,
    /// Its certificate must be valid.
    pub(crate) verified: bool,
    /// Somebody else's copies.
    pub(crate) mirror: bool,
}

impl RegistrySettings {
    /// An error that names the first setting that cannot be meant.
    pub fn check(&self) -> std::result::Result<(), RegistryError> {
        for mirror in &self.mirrors {
            endpoint_of(mirror, self, true)?;
        }
        for entry in self.insecure.iter().filter(|e| e.contains('/')) {
            if subnet(entry).is_none() {
                return Err(RegistryError::Settings(format!(
                    "insecure registry {entry:?} is neither host[:port] nor address/prefix"
                )));
            }
        }
        for proxy in [&self.http_proxy, &self.https_proxy].into_iter().flatten() {
            ureq::Proxy::new(proxy).map_err(|e| RegistryError::Settings(format!("proxy {proxy:?}: {e}")))?;
        }
        Ok(())
    }

    /// Where to look for a registry, in order. `mirrors`: copies will do.
    pub(crate) fn endpoints(&self, domain: &str, mirrors: bool) -> Result<Vec<Endpoint>> {
        let mut all = Vec::new();
        let host = if domain == DEFAULT_DOMAIN { DEFAULT_HOST } else { domain };
        if mirrors && domain == DEFAULT_DOMAIN {
            for mirror in &self.mirrors {
                all.push(endpoint_of(mirror, self, true)?);
            }
        }
        let insecure = self.is_insecure(host);
        let at = |scheme: &str| Endpoint {
            url: format!("{scheme}://{host}"),
            host: host.to_owned(),
            verified: !insecure,
            mirror: false,
        };
        all.push(at("https"));
        if insecure {
            all.push(at("http"));
        }
        Ok(all)
    }

    /// The files of a registry in the certificate directories.
    pub(crate) fn certificate_files(&self, host: &str) -> Vec<PathBuf> {
        let dirs = self.certificates.iter().map(|dir| dir.join(host));
        let mut files: Vec<PathBuf> = dirs
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        files.sort();
        files
    }

    /// Whether a registry need not prove who it is: named so, or on this machine and without a certificate authority of its
    /// own in the certificate directories.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        if self.insecure.iter().any(|e| e == host) {
            return true;
        }
        let has_authority =
            || self.certificate_files(host).iter().any(|f| f.extension().is_some_and(|x| x == "crt"));
        let nets: Vec<(IpAddr, u8)> = self.insecure.iter().filter_map(|e| subnet(e)).collect();
        let addresses = addresses(host, !nets.is_empty());
        addresses.iter().any(|a| nets.iter().any(|net| within(*a, *net)))
            || addresses.iter().any(IpAddr::is_loopback) && !has_authority()
    }
}

/// An endpoint by its URL.
fn endpoint_of(url: &str, settings: &RegistrySettings, mirror: bool) -> Result<Endpoint> {
    let bad =
        || RegistryError::Settings(format!("registry mirror {url:?} is no http or https URL of a host"));
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let rest = rest.trim_end_matches('/');
    let host = rest.split('/').next().unwrap_or_default();
    if !matches!(scheme, "http" | "https") || host.is_empty() || rest.contains(['@', '?', '#']) {
        return Err(bad());
    }
    Ok(Endpoint {
        url: format!("{scheme}://{rest}"),
        host: host.to_owned(),
        verified: !settings.is_insecure(host),
        mirror,
    })
}

/// What a host name says by itself: an address, or this machine. Name servers are asked only if `resolve`: otherwise whether
/// a registry is trusted does not hang on them.
fn addresses(host: &str, resolve: bool) -> Vec<IpAddr> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if let Ok(address) = name.parse() {
        return vec![address];
    }
    if name == "localhost" {
        return vec![IpAddr::from([127, 0, 0, 1])];
    }
    if !resolve {
        return Vec::new();
    }
    (name, 0).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect()).unwrap_or_default()
}

pub(crate) fn subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

pub(crate) fn within(address: IpAddr, (net, prefix): (IpAddr, u8)) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    };
    let ((a, size), (n, other)) = (bits(address), bits(net));
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    size == other && a & mask == n & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_insecure() {
        let settings = RegistrySettings {
            insecure: vec!["10.1.0.0/16".into(), "192.0.2.7:5000".into()],
            certificates: Vec::new(),
            ..Default::default()
        };
        for (host, insecure) in [
            ("localhost:5000", true),
            ("127.3.4.5", true),
            ("[::1]:5000", true),
            ("10.1.2.3:80", true),
            ("10.2.2.3:80", false),
            ("192.0.2.7:5000", true),
            ("192.0.2.7:5001", false),
        ] {
            assert_eq!(settings.is_insecure(host), insecure, "{host}");
        }
    }

    #[test]
    fn a_certificate_authority_makes_the_loopback_secure() {
        let dir = tempfile::tempdir().unwrap();
        let settings = RegistrySettings { certificates: vec![dir.path().to_owned()], ..Default::default() };
        assert!(settings.is_insecure("localhost:5000"));
        std::fs::create_dir(dir.path().join("localhost:5000")).unwrap();
        std::fs::write(dir.path().join("localhost:5000/ca.crt"), "").unwrap();
        assert!(!settings.is_insecure("localhost:5000") && settings.is_insecure("localhost:5001"));
    }

    #[test]
    fn where_a_registry_is_looked_for() {
        let settings = RegistrySettings {
            mirrors: vec!["http://127.0.0.1:6000/".into()],
            certificates: Vec::new(),
            ..Default::default()
        };
        let urls = |domain: &str, mirrors: bool| -> Vec<String> {
            settings.endpoints(domain, mirrors).unwrap().into_iter().map(|e| e.url).collect()
        };
        assert_eq!(urls("docker.io", true), ["http://127.0.0.1:6000", "https://registry-1.docker.io"]);
        assert_eq!(urls("docker.io", false), ["https://registry-1.docker.io"]);
        assert_eq!(urls("127.0.0.1:5000", true), ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]);
        for bad in ["ftp://a", "a", "http://", "http://a@b"] {
            let settings = RegistrySettings { mirrors: vec![bad.into()], ..Default::default() };
            assert!(settings.check().unwrap_err().to_string().contains(bad), "{bad}");
        }
        let bad = RegistrySettings { insecure: vec!["10.0.0.0/99".into()], ..Default::default() };
        assert!(bad.check().is_err());
    }
}
