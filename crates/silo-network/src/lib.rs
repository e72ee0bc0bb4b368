//! Networks, adapters, addresses and published ports of containers: one bridge, made and undone by netlink and nftables.
//!
//! Owns the words adapter and published port. Every call is synchronous and short (an asynchronous caller runs it on a
//! blocking thread) and [`Network`] may be shared between threads.
//! Must not know: what a container is beyond the name it is given, the database, isolation, guests.

mod error;
mod files;
mod firewall;
mod links;
mod namespace;
mod network;
mod pool;
mod ports;
mod record;
mod subnet;

pub use error::NetworkError;
pub use files::{hosts_file, resolv_conf};
pub use network::Network;
pub use record::{
    AdapterForm, AdapterRecord, AttachOptions, Attached, NetworkConfig, NetworkInfo, PortRequest,
    PublishedPort,
};
pub use subnet::{Subnet, SubnetError};
