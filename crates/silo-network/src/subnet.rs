//! Subnets of IPv4 and IPv6: parse, print, contain, overlap.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A subnet with no host bits set, written `172.17.0.0/16` or `fd00::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpSubnet {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not `address/bits`.
    #[error("invalid CIDR address: {0}")]
    Malformed(String),
    /// Bits to the right of the prefix.
    #[error("it should be {0}")]
    HostBits(IpSubnet),
}

/// Bits of an address of this family.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// As a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// The address of that number, of the family of `like`.
fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        // Wraps as IPv4 addresses do.
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl IpSubnet {
    /// The subnet that an address lies in; `prefix` is at most 32 or 128.
    pub fn containing(inside: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(width(inside));
        let mask = mask(inside, prefix);
        Self { address: address(inside, number(inside) & mask), prefix }
    }

    /// As `address/bits`, host bits set or not, apart: the address and its subnet.
    pub fn with_address(text: &str) -> Result<(IpAddr, Self), SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (inside, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let inside: IpAddr = inside.parse().map_err(|_| malformed())?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if prefix > width(inside) {
            return Err(malformed());
        }
        Ok((inside, Self::containing(inside, prefix)))
    }

    /// Whether its addresses are IPv6.
    pub const fn is_ipv6(self) -> bool {
        self.address.is_ipv6()
    }

    /// Its length in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Bits of its addresses: 32 or 128.
    pub const fn width(self) -> u8 {
        width(self.address)
    }

    /// Its first address, which names it.
    pub const fn network(self) -> IpAddr {
        self.address
    }

    /// Its last address.
    pub fn last(self) -> IpAddr {
        address(self.address, number(self.address) | self.size_less_one())
    }

    /// How many addresses it has but one: the largest position.
    pub fn size_less_one(self) -> u128 {
        !mask(self.address, self.prefix) & full(self.address)
    }

    /// The `n`th address counted from the first.
    pub fn nth(self, n: u128) -> IpAddr {
        address(self.address, number(self.address).wrapping_add(n))
    }

    /// Where an address stands in it, counted from the first.
    pub fn position(self, of: IpAddr) -> Option<u128> {
        self.contains(of).then(|| number(of) - number(self.address))
    }

    /// Whether an address lies in it.
    pub fn contains(self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4()
            && number(other) & mask(self.address, self.prefix) == number(self.address)
    }

    /// Whether two subnets share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The next of the same length; `None` after the last of all.
    pub fn next(self) -> Option<Self> {
        let first = number(self.last()).checked_add(1).filter(|n| *n <= full(self.address))?;
        Some(Self { address: address(self.address, first), prefix: self.prefix })
    }
}

/// All bits of an address of this family.
const fn full(of: IpAddr) -> u128 {
    match of {
        IpAddr::V4(_) => u32::MAX as u128,
        IpAddr::V6(_) => u128::MAX,
    }
}

fn mask(of: IpAddr, prefix: u8) -> u128 {
    match u32::from(width(of) - prefix) {
        128 => 0,
        hosts => (u128::MAX << hosts) & full(of),
    }
}

impl fmt::Display for IpSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpSubnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (inside, subnet) = Self::with_address(text)?;
        if subnet.network() != inside {
            return Err(SubnetError::HostBits(subnet));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for IpSubnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<IpSubnet> for String {
    fn from(subnet: IpSubnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> IpSubnet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn text_goes_both_ways() {
        for text in [
            "172.17.0.0/16",
            "0.0.0.0/0",
            "10.0.0.1/32",
            "192.168.128.0/20",
            "fd00::/64",
            "::/0",
            "fd00::1/128",
        ] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in
            ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/+8", "a/8", "fd00::/129"]
        {
            assert_eq!(text.parse::<IpSubnet>(), Err(SubnetError::Malformed(text.into())), "{text}");
        }
        let error = "172.17.0.1/16".parse::<IpSubnet>().unwrap_err();
        assert_eq!(error.to_string(), "it should be 172.17.0.0/16");
    }

    #[test]
    fn last_and_next_stay_in_the_family() {
        assert_eq!(subnet("10.1.0.0/16").last(), ip("10.1.255.255"));
        assert_eq!(subnet("fd00::/64").last(), ip("fd00::ffff:ffff:ffff:ffff"));
        assert_eq!(subnet("10.1.0.0/16").next(), Some(subnet("10.2.0.0/16")));
        assert_eq!(subnet("255.255.0.0/16").next(), None);
        assert_eq!(subnet("fd00::/64").next(), Some(subnet("fd00:0:0:1::/64")));
        assert_eq!(subnet("0.0.0.0/0").size_less_one(), u128::from(u32::MAX));
        assert_eq!(subnet("10.0.0.1/32").size_less_one(), 0);
    }

    #[test]
    fn overlap_is_by_the_shorter_prefix() {
        assert!(subnet("172.16.0.0/12").overlaps(subnet("172.17.0.0/16")));
        assert!(subnet("172.17.0.0/16").overlaps(subnet("172.16.0.0/12")));
        assert!(!subnet("172.17.0.0/16").overlaps(subnet("172.18.0.0/16")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("0.0.0.0/0").overlaps(subnet("fd00::/8")));
        assert!(subnet("fd00::/8").overlaps(subnet("fd12::/64")));
    }

    #[test]
    fn positions_are_counted_from_the_first_address() {
        assert_eq!(subnet("10.0.0.0/24").position(ip("10.0.0.9")), Some(9));
        assert_eq!(subnet("10.0.0.0/24").position(ip("10.0.1.9")), None);
        assert_eq!(subnet("10.0.0.0/24").nth(9), ip("10.0.0.9"));
        assert_eq!(subnet("fd00::/64").nth(9), ip("fd00::9"));
        assert_eq!(subnet("fd00::/64").position(ip("0.0.0.9")), None);
    }
}
