//! What can go wrong with networks, each with what was being done and to what.

use std::io;
use std::net::Ipv4Addr;

use crate::subnet::Subnet;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The name cannot be a link's.
    #[error("bridge name {0:?} must have 1 to 15 letters, digits, '-', '_' or '.'")]
    BridgeName(String),
    /// A link of that name is no bridge.
    #[error("{0:?} is a network interface of the host but no bridge; choose another bridge name")]
    NotABridge(String),
    /// A configured subnet cannot be used.
    #[error("subnet {given:?}: {reason}")]
    Subnet {
        /// As configured.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Every candidate is used.
    #[error(
        "no free subnet among 172.17.0.0/16 to 172.31.0.0/16 and 10.88.0.0/16 to 10.255.0.0/16: configure one"
    )]
    NoSubnet,
    /// All addresses are given out.
    #[error("no available IPv4 addresses on this network's address pools: bridge ({0})")]
    PoolEmpty(Subnet),
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
    /// A wished hardware address is none.
    #[error(
        "invalid MAC address: {0:?} is not six pairs of hex digits of one interface, as 02:42:ac:11:00:02"
    )]
    Mac(String),
    /// The interface name that follows from the container's id is in use.
    #[error("container {0} is attached already")]
    AlreadyAttached(String),
    /// A port request makes no sense.
    #[error("invalid port request {port}: {reason}")]
    PortRequest {
        /// As asked.
        port: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A published port could not be made to work.
    #[error("driver failed programming external connectivity on endpoint {container} ({endpoint}): {reason}")]
    Publish {
        /// The container's short id.
        container: String,
        /// Its endpoint's id.
        endpoint: String,
        /// Which port, and why.
        reason: String,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was being done, to what.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// nft refused a change, or is missing.
    #[error("nft cannot {doing}: {reason}")]
    Firewall {
        /// What was being done.
        doing: String,
        /// nft's words.
        reason: String,
    },
}

impl NetworkError {
    /// Whether what was asked is at fault, not the host.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::BridgeName(_)
                | Self::Subnet { .. }
                | Self::AddressTaken(_)
                | Self::AddressOutside { .. }
                | Self::Mac(_)
                | Self::PortRequest { .. }
        )
    }
}

/// What this crate returns.
pub(crate) type Result<T> = std::result::Result<T, NetworkError>;

/// Says what was being done when the kernel refused.
pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let doing = doing.into();
    move |source| NetworkError::Kernel { doing, source }
}
