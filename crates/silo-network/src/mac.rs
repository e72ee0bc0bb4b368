//! Hardware addresses of interfaces: parse, print, make.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use rand::Rng;

use crate::error::NetworkError;

/// A hardware address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MacAddress(pub(crate) [u8; 6]);

impl MacAddress {
    /// dockerd's rule: locally administered `02:42`, then the IPv4 address. One address, one MAC: a neighbour's
    /// ARP cache stays right when an address goes to the next container.
    pub(crate) fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// One that a text always gives, for what has no IPv4 address.
    pub(crate) fn of_text(text: &str) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let [a, b, c, d, e, f, ..] = hasher.finish().to_ne_bytes();
        Self([a & 0xfc | 0x02, b, c, d, e, f])
    }

    /// For an adapter without an IPv4 address.
    pub(crate) fn random() -> Self {
        let mut bytes: [u8; 6] = rand::rng().random();
        bytes[0] = bytes[0] & 0xfc | 0x02;
        Self(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        // The lowest bit of the first byte marks a group; the kernel takes neither that nor all zeroes.
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_follows_the_address_as_dockerd_makes_it() {
        assert_eq!(MacAddress::of(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
        let random = MacAddress::random();
        assert_eq!(random.0[0] & 3, 2, "{random}");
        assert_ne!(random, MacAddress::random());
    }

    #[test]
    fn mac_of_no_single_interface_is_refused() {
        for good in ["02:42:ac:11:00:02", "92-D0-C6-0A-29-33"] {
            assert!(good.parse::<MacAddress>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:42:ac:11:00:02",
            "2:42:ac:11:0:2",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
