//! The words: what a network, an adapter and a published port are, as asked for, as stored and as shown.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::subnet::IpSubnet;

/// How the container's end of its network is made: stated by the isolation, served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterForm {
    /// An interface in a network namespace on the host's kernel.
    Veth,
}

/// What carries a network's packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host with address translation; Windows calls it `nat`.
    #[default]
    Bridge,
    /// Each adapter is on the parent's own Ethernet, with a hardware address of its own; Windows: `transparent`.
    Macvlan,
    /// The same with the parent's hardware address; Windows: `l2bridge`.
    Ipvlan,
    /// The host's own network.
    Host,
    /// Loopback only.
    Null,
}

impl Driver {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Driver {
    type Err = NetworkError;

    /// Windows' names are understood, too.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match text {
            "bridge" | "nat" => Ok(Self::Bridge),
            "macvlan" | "transparent" => Ok(Self::Macvlan),
            "ipvlan" | "l2bridge" => Ok(Self::Ipvlan),
            "host" => Ok(Self::Host),
            "null" => Ok(Self::Null),
            other => Err(NetworkError::UnknownDriver(other.to_owned())),
        }
    }
}

/// One of `--subnet --ip-range --gateway --aux-address`, as given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSpec {
    /// `--subnet`; `None`: chosen here.
    pub subnet: Option<String>,
    /// `--ip-range`: where containers get addresses from.
    pub range: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// `--aux-address name=address`: of other hosts, not given to containers.
    pub auxiliary: BTreeMap<String, String>,
}

/// A network that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Unique in this daemon.
    pub name: String,
    /// What carries it.
    pub driver: Driver,
    /// Whether adapters get IPv4 addresses.
    pub ipv4: bool,
    /// Whether adapters get IPv6 addresses.
    pub ipv6: bool,
    /// No way out and none in.
    pub internal: bool,
    /// Kept and shown.
    pub attachable: bool,
    /// In the order given; a family without any gets one that is chosen here.
    pub pools: Vec<PoolSpec>,
    /// `-o key=value`.
    pub options: BTreeMap<String, String>,
    /// Kept and shown.
    pub labels: BTreeMap<String, String>,
    /// `--ipam-opt`: kept and shown, as by dockerd, whose default driver knows none.
    pub ipam_options: BTreeMap<String, String>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            driver: Driver::Bridge,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            pools: Vec::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
        }
    }
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Which addresses are of this network.
    pub subnet: IpSubnet,
    /// Where containers get theirs from; `None`: from all of the subnet.
    #[serde(default)]
    pub range: Option<IpSubnet>,
    /// The host's address on a bridge, the next router's on a macvlan or ipvlan.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Others' addresses, by name.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether the subnet was given; only then may a container ask for an address.
    #[serde(default)]
    pub given: bool,
}

/// A network, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hex digits.
    pub id: String,
    /// Unique in this daemon.
    pub name: String,
    /// What carries it.
    #[serde(default)]
    pub driver: Driver,
    /// Whether adapters get IPv4 addresses.
    #[serde(default)]
    pub ipv4: bool,
    /// Whether adapters get IPv6 addresses.
    #[serde(default)]
    pub ipv6: bool,
    /// No way out and none in.
    #[serde(default)]
    pub internal: bool,
    /// Kept and shown.
    #[serde(default)]
    pub attachable: bool,
    /// Its subnets, each family's in the order given.
    #[serde(default)]
    pub pools: Vec<PoolRecord>,
    /// `-o key=value`, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Kept and shown.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The bridge, or the parent of a macvlan or ipvlan; `None` for host and none.
    #[serde(default)]
    pub interface: Option<String>,
    /// The interface was there before the network and stays when that goes.
    #[serde(default)]
    pub foreign_interface: bool,
    /// RFC 3339, UTC.
    #[serde(default)]
    pub created: String,
    /// `bridge`, `host`, `none`: never removed, not stored.
    #[serde(default)]
    pub builtin: bool,
    /// Kept and shown.
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    /// `--config-only`: on the host nothing is made of it; other networks are made with its settings. Its subnets, as given.
    #[serde(default)]
    pub configuration: Option<Vec<PoolSpec>>,
    /// `--config-from`: name of the network whose settings it was made with; empty: its own.
    #[serde(default)]
    pub config_from: String,
}

/// Limits of an adapter in bits a second of Ethernet frames; `None`: unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the container sends.
    #[serde(default)]
    pub egress: Option<u64>,
    /// What the container receives.
    #[serde(default)]
    pub ingress: Option<u64>,
}

impl Bandwidth {
    /// Whether there is no limit.
    pub const fn is_unlimited(&self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }
}

/// An adapter of a container, as stored with the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterRecord {
    /// Name of the network.
    pub network: String,
    /// 64 hex digits.
    pub network_id: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// Of the network.
    #[serde(default)]
    pub driver: Driver,
    /// Its name inside: `eth0`.
    #[serde(default = "first_interface")]
    pub interface: String,
    /// The end of the pair that stays on the host, a port of the bridge; empty for macvlan and ipvlan.
    #[serde(default)]
    pub host_interface: String,
    /// Its address.
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// Bits of the subnet; 0 without an address.
    #[serde(default)]
    pub prefix: u8,
    /// Where its default route can lead.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// Bits of the IPv6 subnet; 0 without an address.
    #[serde(default)]
    pub prefix6: u8,
    /// Where its IPv6 default route can lead.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// `--link-local-ip`: further addresses.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// Hardware address, `02:42:ac:11:00:02`; an ipvlan's is the parent's.
    pub mac: String,
    /// What it may carry.
    #[serde(default)]
    pub limits: Bandwidth,
}

fn first_interface() -> String {
    "eth0".to_owned()
}

impl AdapterRecord {
    /// Its hardware address.
    ///
    /// # Errors
    /// A record of no adapter has none.
    pub fn hardware_address(&self) -> Result<[u8; 6], crate::NetworkError> {
        Ok(self.mac.parse::<crate::mac::MacAddress>()?.0)
    }

    /// All its addresses but those the kernel makes.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.prefixed().into_iter().map(|(address, _)| address).collect()
    }

    /// The same, each with the length of its prefix.
    pub fn prefixed(&self) -> Vec<(IpAddr, u8)> {
        let (v4, v6) = (self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6));
        let given = v4.map(|ip| (ip, self.prefix)).into_iter().chain(v6.map(|ip| (ip, self.prefix6)));
        let link_local = self.link_local.iter().map(|ip| (*ip, if ip.is_ipv6() { 64 } else { 16 }));
        given.chain(link_local).collect()
    }
}

/// What may be asked of a new adapter; `None`: chosen here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// `--mac-address`.
    pub mac: Option<String>,
    /// `--ip`.
    pub ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ipv6: Option<Ipv6Addr>,
    /// `--link-local-ip`.
    pub link_local: Vec<IpAddr>,
    /// Its name inside; `None`: the first free `ethN` (or what the network's prefix is).
    pub interface: Option<String>,
    /// What it may carry; a side without a limit gets the network's default.
    pub bandwidth: Bandwidth,
}

/// A fresh adapter: the namespace it is in and its record.
#[derive(Debug)]
pub struct Attached {
    /// The network namespace. No file names it: it lives as long as this descriptor or a process in it.
    pub namespace: OwnedFd,
    /// To be stored; needed again by `detach`, `adopt` and `publish`.
    pub adapter: AdapterRecord,
}

/// What an adapter carried, seen from the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Faulty packets received.
    pub rx_errors: u64,
    /// Packets not received for lack of room.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets not sent for lack of room.
    pub tx_dropped: u64,
}

/// One container port that is to be reachable from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Inside.
    pub container_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// An address of the host; empty: all, of both families.
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
    /// An address of the host; `0.0.0.0` and `::`: all of that family.
    pub host_ip: String,
    /// On the host.
    pub host_port: u16,
}

/// How networks are to be in this daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the default bridge; the nftables table is `silo_<bridge>`.
    pub bridge: String,
    /// Gateway and prefix of the default bridge, `172.20.0.1/16`; `None`: the first of the usual pools that is free.
    pub subnet: Option<String>,
    /// `--fixed-cidr-v6`: the default bridge has IPv6, too.
    pub subnet6: Option<String>,
    /// Options of the default bridge, over its usual ones (`--icc`, `--mtu`, `--ip`).
    pub options: BTreeMap<String, String>,
    /// Where subnets that nobody named come from: (base, bits of each). Empty: dockerd's.
    pub default_pools: Vec<(IpSubnet, u8)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_names_of_drivers_are_understood() {
        for (text, driver) in [
            ("nat", Driver::Bridge),
            ("transparent", Driver::Macvlan),
            ("l2bridge", Driver::Ipvlan),
            ("null", Driver::Null),
        ] {
            assert_eq!(text.parse::<Driver>().unwrap(), driver);
        }
        assert!("overlay".parse::<Driver>().unwrap_err().to_string().contains("overlay"));
    }

    #[test]
    fn adapters_of_earlier_versions_are_read() {
        let old = r#"{"network":"bridge","network_id":"a","endpoint_id":"b","host_interface":"sv0","ipv4":"172.17.0.2","prefix":16,"gateway":"172.17.0.1","mac":"02:42:ac:11:00:02"}"#;
        let adapter: AdapterRecord = serde_json::from_str(old).unwrap();
        assert_eq!(adapter.interface, "eth0");
        assert_eq!(adapter.ipv4, Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!(adapter.gateway, Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(adapter.driver, Driver::Bridge);
    }
}
