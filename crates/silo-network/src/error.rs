//! What can go wrong with networks, each with what was being done and to what.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::record::Protocol;
use crate::subnet::Subnet;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The name cannot be a link's.
    #[error("bridge name {0:?} must have 1 to 15 letters, digits, '-', '_' or '.'")]
    BridgeName(String),
    /// A link of that name is no bridge.
    #[error("{0:?} is a network interface of the host but no bridge; choose another bridge name")]
    NotABridge(String),
    /// A subnet too small to hold a container.
    #[error("subnet {0} has no room for a gateway and a container; /30 is the smallest")]
    SubnetTooSmall(Subnet),
    /// A configured subnet is used by the host.
    #[error("subnet {subnet} overlaps {route}, which the host routes to {device}; choose another")]
    SubnetTaken {
        /// Configured.
        subnet: Subnet,
        /// The host's.
        route: Subnet,
        /// By which link.
        device: String,
    },
    /// Every candidate is used.
    #[error(
        "no free subnet among 172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/16 and 10.0.0.0/8: configure one"
    )]
    NoSubnet,
    /// All addresses are given out.
    #[error("no available IPv4 addresses on this network's address pools: bridge ({subnet})")]
    PoolEmpty {
        /// Whose.
        subnet: Subnet,
    },
    /// A wished address is in use.
    #[error("Address already in use: {0}")]
    AddressTaken(Ipv4Addr),
    /// A wished address lies elsewhere or is reserved.
    #[error("address {address} is not one that a container of {subnet} can have")]
    AddressOutside {
        /// Wished.
        address: Ipv4Addr,
        /// The network's.
        subnet: Subnet,
    },
    /// A host port is in use.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortTaken {
        /// Host address.
        ip: Ipv4Addr,
        /// Host port.
        port: u16,
    },
    /// Every port of a range is in use.
    #[error("all {protocol} ports {first}-{last} on {ip} are in use")]
    PortRangeTaken {
        /// Transport.
        protocol: &'static str,
        /// Host address.
        ip: Ipv4Addr,
        /// First tried.
        first: u16,
        /// Last tried.
        last: u16,
    },
    /// A host port could not be bound for another reason.
    #[error("cannot bind {}/{ip}:{port} on the host: {source}", protocol.as_str())]
    PortBind {
        /// Transport.
        protocol: Protocol,
        /// Host address.
        ip: Ipv4Addr,
        /// Host port, 0 for any.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// A port request makes no sense.
    #[error("port request {0}: container port 0 or a host range that runs backwards")]
    PortRequest(String),
    /// The kernel refused a change of links, addresses or routes.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was being done, to what.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// nft refused a change.
    #[error("nft cannot {doing}: {reason}")]
    Firewall {
        /// What was being done.
        doing: &'static str,
        /// nft's words.
        reason: String,
    },
    /// A file of the state directory.
    #[error("network state {path}: {reason}", path = path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What this crate returns.
pub type Result<T> = std::result::Result<T, NetworkError>;

/// Says what was being done when the kernel refused.
pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let doing = doing.into();
    move |source| NetworkError::Kernel { doing, source }
}
