//! Image references: `name`, `name:tag`, `host:port/path/name@sha256:…`, made whole as Docker makes them whole.

use std::fmt;

use crate::digest::Digest;
use crate::error::{ImageError, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// A normalised reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Registry.
    pub domain: String,
    /// Path in it.
    pub path: String,
    /// Tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// Digest.
    pub digest: Option<Digest>,
}

fn invalid(why: &str) -> ImageError {
    ImageError::InvalidReference(why.to_owned())
}

fn valid_component(text: &str) -> bool {
    // distribution/reference: alphanumerics separated by one of . _ __ or any number of -
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit())) {
        let tail = &rest[start..];
        let end = tail.find(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).unwrap_or(tail.len());
        let separator = &tail[..end];
        if !(separator == "."
            || separator == "_"
            || separator == "__"
            || separator.bytes().all(|b| b == b'-'))
        {
            return false;
        }
        rest = &tail[end..];
    }
    true
}

fn valid_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((h, p)) if !p.contains(']') => (h, Some(p)),
        _ => (domain, None),
    };
    let ip6 = host.starts_with('[') && host.ends_with(']');
    let name = host.split('.').all(|part| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    (ip6 || name) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

impl Reference {
    /// Parses and makes whole; `latest` where neither tag nor digest is given.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid(&format!(
                ": repository name ({text}) cannot be 64-byte hexadecimal strings"
            )));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok_or_else(|| invalid(""))?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_ref().is_some_and(|t| !valid_tag(t)) {
            return Err(invalid(""));
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first.to_owned(), path.to_owned())
            }
            _ => (DEFAULT_DOMAIN.to_owned(), name.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN.to_owned() } else { domain };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid(&format!(": repository name ({path}) must be lowercase")));
        }
        if path.is_empty()
            || !valid_domain(&domain)
            || !path.split('/').all(valid_component)
            || name.len() > 255
        {
            return Err(invalid(""));
        }
        let path =
            if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path };
        let tag = if digest.is_none() { Some(tag.unwrap_or_else(|| "latest".to_owned())) } else { tag };
        Ok(Self { domain, path, tag, digest })
    }

    /// As users write it: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push_str(&format!(":{tag}"));
        }
        if let Some(digest) = &self.digest {
            text.push_str(&format!("@{digest}"));
        }
        text
    }

    /// Whole, with the digest if there is one and without a tag then.
    pub(crate) fn canonical(&self) -> String {
        let tag = if self.digest.is_some() { None } else { self.tag.clone() };
        Self { tag, ..self.clone() }.to_string()
    }

    /// `host/path`, whole.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository with another tag.
    pub fn tagged(&self, tag: &str) -> Result<Self> {
        if !valid_tag(tag) {
            return Err(invalid(""));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest.
    pub(crate) fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// As users write it, without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path).to_owned()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_made_whole() {
        for (text, whole, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("localhost/a:x", "localhost/a:x", "localhost/a:x"),
            (
                "localhost:5000/a/b-c__d.e",
                "localhost:5000/a/b-c__d.e:latest",
                "localhost:5000/a/b-c__d.e:latest",
            ),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("example.com/X/y", "", ""),
        ] {
            match Reference::parse(text) {
                Ok(r) => assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (whole, familiar)),
                Err(e) => assert!(whole.is_empty(), "{text}: {e}"),
            }
        }
        for bad in ["", "A", "a:", "a:-x", "a//b", "-a", "a_", "a..b", "a@sha256:12", "a b", "_/x"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
