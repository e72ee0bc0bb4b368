//! Content digests (`sha256:…`) and chain IDs (OCI image specification, "Layer ChainID").

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The identity of layers one on the other, lowest first.
pub type ChainId = Digest;

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::digest(bytes).as_slice())
    }

    /// Of a finished hash.
    pub(crate) fn from_hash(hash: &[u8]) -> Self {
        Self(format!("sha256:{}", hash.iter().map(|b| format!("{b:02x}")).collect::<String>()))
    }

    /// Parses; only sha256 is known.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(text.to_owned()))
    }

    /// With the algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The chain of `parent` (`None`: nothing) with a further layer.
    pub fn chain(parent: Option<&ChainId>, diff: &Digest) -> ChainId {
        match parent {
            None => diff.clone(),
            Some(parent) => Self::of(format!("{parent} {diff}").as_bytes()),
        }
    }
}

/// Bytes that are to have a digest: their end is an error if they have not.
pub(crate) struct Proved<R> {
    inner: R,
    hash: Sha256,
    wanted: Digest,
}

impl<R: Read> Proved<R> {
    pub(crate) fn new(inner: R, wanted: Digest) -> Self {
        Self { inner, hash: Sha256::new(), wanted }
    }
}

impl<R: Read> Read for Proved<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            self.hash.update(&buffer[..n]);
            return Ok(n);
        }
        let found = Digest::from_hash(&self.hash.clone().finalize());
        if found != self.wanted {
            let why = format!("{} is damaged: what is here has the digest {found}", self.wanted);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no sha256 digest"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_chains() {
        let empty = Digest::of(b"");
        assert_eq!(empty.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::chain(None, &empty), empty);
        let two = Digest::chain(Some(&empty), &empty);
        assert_eq!(two, Digest::of(format!("{empty} {empty}").as_bytes()));
        for bad in [
            "",
            "sha256:12",
            "md5:e3b0",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        ] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
    }
}
