//! What can go wrong with networks, each with what was being done and to what; dockerd's words where it has them.

use std::io;
use std::net::IpAddr;

use crate::subnet::IpSubnet;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked makes no sense.
    Invalid,
    /// What was asked is not allowed here, or now.
    Forbidden,
    /// It clashes with what there is.
    Conflict,
    /// No such network, driver, interface.
    NotFound,
    /// The host's.
    Internal,
}

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
    /// No such driver.
    #[error("could not find plugin {0} in v1 plugin registry: plugin \"{0}\" not found")]
    UnknownDriver(String),
    /// This kernel cannot make such links.
    #[error("this host's kernel has no {driver}: {source}")]
    NoDriver {
        /// What is missing.
        driver: &'static str,
        /// The kernel's words.
        source: io::Error,
    },
    /// No network of that name or ID.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// What was asked makes no sense; the text is dockerd's.
    #[error("{0}")]
    Invalid(String),
    /// What was asked is not allowed; the text is dockerd's.
    #[error("{0}")]
    Forbidden(String),
    /// It clashes with what there is; the text is dockerd's.
    #[error("{0}")]
    Conflict(String),
    /// A configured subnet cannot be used.
    #[error("subnet {given:?}: {reason}")]
    Subnet {
        /// As configured.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Every candidate is used.
    #[error("all predefined address pools have been fully subnetted")]
    NoSubnet,
    /// Subnets overlap.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} is used by network {by}"
    )]
    Overlap {
        /// Asked for.
        subnet: IpSubnet,
        /// Who has it.
        by: String,
    },
    /// All addresses are given out.
    #[error("no available {family} addresses on this network's address pools: {network} ({id})")]
    PoolEmpty {
        /// `IPv4`, `IPv6`.
        family: &'static str,
        /// Its name.
        network: String,
        /// Its ID.
        id: String,
    },
    /// A wished address is in use.
    #[error("Address already in use")]
    AddressTaken(IpAddr),
    /// A wished address lies elsewhere.
    #[error("no configured subnet contains IP address {0}")]
    AddressOutside(IpAddr),
    /// A wished hardware address is none.
    #[error(
        "invalid MAC address: {0:?} is not six pairs of hex digits of one interface, as 02:42:ac:11:00:02"
    )]
    Mac(String),
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
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BridgeName(_)
            | Self::Subnet { .. }
            | Self::AddressOutside(_)
            | Self::Invalid(_)
            | Self::Mac(_)
            | Self::PortRequest { .. } => ErrorKind::Invalid,
            Self::Forbidden(_) | Self::Overlap { .. } | Self::AddressTaken(_) | Self::NoDriver { .. } => {
                ErrorKind::Forbidden
            }
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NoNetwork(_) | Self::UnknownDriver(_) => ErrorKind::NotFound,
            Self::NotABridge(_)
            | Self::NoSubnet
            | Self::PoolEmpty { .. }
            | Self::Publish { .. }
            | Self::Kernel { .. }
            | Self::Firewall { .. } => ErrorKind::Internal,
        }
    }

    /// Whether what was asked is at fault, not the host.
    pub fn is_invalid(&self) -> bool {
        self.kind() != ErrorKind::Internal
    }
}

/// What this crate returns.
pub(crate) type Result<T> = std::result::Result<T, NetworkError>;

/// Says what was being done when the kernel refused.
pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let doing = doing.into();
    move |source| NetworkError::Kernel { doing, source }
}
