//! Networks, adapters, addresses, published ports and names of containers, made and undone by netlink and nftables.
//!
//! Owns the words network, adapter and published port. Every call is synchronous and short (an asynchronous caller runs it
//! on a blocking thread) and [`Networks`] may be shared between threads.
//! Must not know: what a container is beyond the name it is given, the database, isolation, guests.

mod adapter;
mod bandwidth;
mod bridge;
mod error;
mod files;
mod firewall;
mod firewall_elements;
mod firewall_flows;
mod firewall_nft;
mod firewall_rules;
mod guard;
mod ipam;
mod links;
mod mac;
mod names;
mod namespace;
mod network;
mod networks;
mod options;
mod parent;
mod pool;
mod ports;
mod ports_hold;
mod ports_proxy;
mod ports_publish;
mod ports_request;
mod record;
mod settings;
mod shaping;
mod subnet;

#[cfg(test)]
mod firewall_lab;
#[cfg(test)]
mod firewall_tests;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod tests;

pub use bandwidth::parse_rate;
pub use error::{ErrorKind, NetworkError};
pub use files::{hosts_file, resolv_conf};
pub use ipam::check_pools;
pub use names::{NamedEndpoint, Names, ResolverForm, Upstream, View, fuzz_dns_message};
pub use networks::{Networks, check_name, is_predefined};
pub use record::{
    AdapterForm, AdapterRecord, AttachOptions, Attached, Bandwidth, Counters, Driver, NetworkConfig,
    NetworkRecord, NetworkSpec, PoolRecord, PoolSpec, PortRequest, PublishedPort,
};
pub use subnet::{IpSubnet, SubnetError};
