//! The words: what an adapter, a published port and a network are, as stored and as shown.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;

/// How the container's end of its network is made: stated by the isolation, served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterForm {
    /// One end of a veth pair, in a network namespace on the host's kernel.
    Veth,
}

/// Names an adapter: 10 hex digits, the first of its endpoint ID; the host's end is called `silo<id>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdapterId(pub(crate) String);

impl AdapterId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware address, written `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// dockerd's rule: locally administered `02:42`, then the IPv4 address. One address, one MAC: a neighbour's
    /// ARP cache stays right when an address goes to the next container.
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is no hardware address of one interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MAC address {0:?} is not six pairs of hex digits of one interface (such as 02:42:ac:11:00:02)")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let error = || MacAddressError(text.to_owned());
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

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;

    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// What may be asked of a new adapter. `None`: chosen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdapterRequest {
    /// `--mac-address`.
    pub mac: Option<MacAddress>,
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
}

/// An adapter of a container on the default network, as stored with the container and as `inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterRecord {
    /// Its name here.
    pub id: AdapterId,
    /// The container it was made for, as the engine named it.
    pub container: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// 64 hex digits.
    pub network_id: String,
    /// `bridge`.
    pub network_name: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Hardware address.
    pub mac: MacAddress,
}

/// A fresh adapter: the namespace it is in and its record.
#[derive(Debug)]
pub struct Attached {
    /// The network namespace. No file names it: it lives as long as this descriptor or a process in it.
    pub netns: OwnedFd,
    /// To be stored; needed again by `detach`, `adopt` and `publish`.
    pub record: AdapterRecord,
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As Docker and nftables write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// The error is a whole sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("protocol {text:?} is not tcp, udp or sctp"))
    }
}

/// `-p`, one container port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRequest {
    /// Inside.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// On the host; `0.0.0.0`: every address.
    pub host_ip: Ipv4Addr,
    /// First and last host port to try; (0, 0): any free one.
    pub host_ports: (u16, u16),
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Inside.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// On the host; `0.0.0.0`: every address.
    pub host_ip: Ipv4Addr,
    /// On the host.
    pub host_port: u16,
}

/// A network as `docker network ls` and `inspect` show it. Names of containers are the engine's to add.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkInfo {
    /// 64 hex digits.
    pub id: String,
    /// `bridge`, `host`, `none`.
    pub name: &'static str,
    /// `bridge`, `host`, `null`.
    pub driver: &'static str,
    /// Nanoseconds since 1970 (UTC).
    pub created: i64,
    /// `IPAM.Config`; `None` for `host` and `none`.
    pub subnet: Option<(Subnet, Ipv4Addr)>,
    /// `Options`.
    pub options: Vec<(&'static str, String)>,
    /// Adapters on it now.
    pub adapters: Vec<AdapterRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_follows_the_address_as_dockerd_makes_it() {
        assert_eq!(MacAddress::of(Ipv4Addr::new(172, 17, 0, 2)).to_string(), "02:42:ac:11:00:02");
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
