//! IPv4 subnets: parse, print, contain, overlap.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network with no host bits set, written `172.17.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: u32,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not `a.b.c.d/n`.
    #[error("subnet {0:?} is not written as a.b.c.d/n")]
    Malformed(String),
    /// Bits to the right of the prefix.
    #[error("subnet {given:?} has host bits set; did you mean {meant}?")]
    HostBits {
        /// As given.
        given: String,
        /// With the bits cleared.
        meant: Subnet,
    },
}

impl Subnet {
    /// The network that `address` lies in, `prefix` (at most 32) bits long.
    pub const fn containing(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { address: u32::from_be_bytes(address.octets()) & mask(prefix), prefix }
    }

    /// Its length in bits, 0–32.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address, which names it.
    pub fn network(self) -> Ipv4Addr {
        self.address.into()
    }

    /// Its last address.
    pub fn broadcast(self) -> Ipv4Addr {
        (self.address | !mask(self.prefix)).into()
    }

    /// The `n`th address counted from the first.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        self.address.wrapping_add(n).into()
    }

    /// Where an address stands in it, counted from the first.
    pub fn position(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| u32::from(address) - self.address)
    }

    /// Addresses in it that a host may have: all but the first and the last. 0 for /31 and /32.
    pub fn hosts(self) -> u32 {
        (!mask(self.prefix)).saturating_sub(1)
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.address
    }

    /// Whether two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.address & shorter == other.address & shorter
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if prefix > 32 {
            return Err(malformed());
        }
        let subnet = Self::containing(address, prefix);
        if subnet.network() != address {
            return Err(SubnetError::HostBits { given: text.to_owned(), meant: subnet });
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["172.17.0.0/16", "0.0.0.0/0", "10.0.0.1/32", "192.168.128.0/20"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "a/8"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError::Malformed(text.into())), "{text}");
        }
        let error = "172.17.0.1/16".parse::<Subnet>().unwrap_err().to_string();
        assert!(error.ends_with("did you mean 172.17.0.0/16?"), "{error}");
    }

    #[test]
    fn hosts_exclude_network_and_broadcast() {
        assert_eq!(subnet("172.17.0.0/16").hosts(), 65534);
        assert_eq!(subnet("10.0.0.0/30").hosts(), 2);
        assert_eq!(subnet("10.0.0.0/31").hosts(), 0);
        assert_eq!(subnet("10.0.0.0/32").hosts(), 0);
        assert_eq!(subnet("10.1.0.0/16").broadcast(), Ipv4Addr::new(10, 1, 255, 255));
    }

    #[test]
    fn overlap_is_by_the_shorter_prefix() {
        assert!(subnet("172.16.0.0/12").overlaps(subnet("172.17.0.0/16")));
        assert!(subnet("172.17.0.0/16").overlaps(subnet("172.16.0.0/12")));
        assert!(!subnet("172.17.0.0/16").overlaps(subnet("172.18.0.0/16")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.0.0.0/8")));
    }

    #[test]
    fn positions_are_counted_from_the_first_address() {
        assert_eq!(subnet("10.0.0.0/24").position(Ipv4Addr::new(10, 0, 0, 9)), Some(9));
        assert_eq!(subnet("10.0.0.0/24").position(Ipv4Addr::new(10, 0, 1, 9)), None);
        assert_eq!(subnet("10.0.0.0/24").nth(9), Ipv4Addr::new(10, 0, 0, 9));
    }
}
