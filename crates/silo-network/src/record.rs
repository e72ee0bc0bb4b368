//! The words: what an adapter, a published port and a network are, as stored and as shown.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::NetworkError;

/// How the container's end of its network is made: stated by the isolation, served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterForm {
    /// One end of a veth pair, in a network namespace on the host's kernel.
    Veth,
}

/// An adapter of a container, as stored with the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterRecord {
    /// `bridge`.
    pub network: String,
    /// 64 hex digits.
    pub network_id: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// The end of the pair that stays on the host, a port of the bridge.
    pub host_interface: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// Where its default route leads.
    pub gateway: Ipv4Addr,
    /// Hardware address, `02:42:ac:11:00:02`.
    pub mac: String,
}

/// What may be asked of a new adapter; `None`: chosen here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// `--mac-address`.
    pub mac: Option<String>,
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
}

/// A fresh adapter: the namespace it is in and its record.
#[derive(Debug)]
pub struct Attached {
    /// The network namespace. No file names it: it lives as long as this descriptor or a process in it.
    pub namespace: OwnedFd,
    /// To be stored; needed again by `detach`, `adopt` and `publish`.
    pub adapter: AdapterRecord,
}

/// One container port that is to be reachable from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Inside.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// An IPv4 address of the host; empty: all.
    pub host_ip: String,
    /// First and last host port to try; (0, 0): any free one.
    pub host_ports: (u16, u16),
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Inside.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// An IPv4 address of the host; `0.0.0.0`: all.
    pub host_ip: String,
    /// On the host.
    pub host_port: u16,
}

/// How the default network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge; the nftables table is `silo_<bridge>`.
    pub bridge: String,
    /// Gateway and prefix, `172.20.0.1/16`; `None`: the first of the usual pools that the host does not route.
    pub subnet: Option<String>,
}

/// A network as `docker network ls` and `inspect` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInfo {
    /// `bridge`, `host`, `none`.
    pub name: String,
    /// 64 hex digits, the same for a bridge name at all times.
    pub id: String,
    /// `bridge`, `host`, `null`.
    pub driver: String,
    /// `local`.
    pub scope: String,
    /// `172.17.0.0/16`; `None` for host and none.
    pub subnet: Option<String>,
    /// The host's address on the bridge; `None` for host and none.
    pub gateway: Option<String>,
    /// The host's interface; `None` for host and none.
    pub bridge: Option<String>,
}

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
