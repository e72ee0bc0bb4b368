//! Networks, adapters, addresses and published ports of containers: one bridge, made and undone by netlink and nftables.
//!
//! Owns the words adapter and published port. Every call is synchronous and short (an asynchronous caller runs it on a
//! blocking thread) and `Network` may be shared between threads.
//! Must not know: what a container is beyond the name it is given, the database, isolation, guests.

mod error;
mod record;
mod subnet;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

pub use error::{NetworkError, Result};
pub use record::{
    AdapterForm, AdapterId, AdapterRecord, AdapterRequest, Attached, MacAddress, MacAddressError,
    NetworkInfo, PortRequest, Protocol, PublishedPort,
};
pub use subnet::{Subnet, SubnetError};

/// How the default network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge; the nftables table has the same.
    pub bridge: String,
    /// `None`: the first of Docker's pools that the host does not route.
    pub subnet: Option<Subnet>,
    /// Of the bridge and the adapters.
    pub mtu: u32,
}

impl NetworkConfig {
    /// `silo0` for the default root; for any other a name made from it, so that daemons with roots of their own never meet.
    pub fn for_root(root: &Path) -> Self {
        todo!()
    }
}

/// The default network of one daemon.
#[derive(Debug)]
pub struct Network {}

impl Network {
    /// Makes bridge and firewall table, or takes over those of an earlier run. `state_dir` (made when missing) keeps
    /// network IDs and the subnet. Ports and addresses of running containers are told by `adopt` and `adopt_ports`, then `sweep`.
    pub fn open(state_dir: &Path, config: NetworkConfig) -> Result<Self> {
        todo!()
    }
    /// A new network namespace with loopback and `eth0`, addressed, routed and on the bridge.
    pub fn attach(&self, container: &str, form: AdapterForm, request: AdapterRequest) -> Result<Attached> {
        todo!()
    }
    /// A new network namespace with loopback only: `--network none`.
    pub fn create_empty_namespace(&self) -> Result<OwnedFd> {
        todo!()
    }
    /// After a daemon restart: this adapter is in use.
    pub fn adopt(&self, record: &AdapterRecord) -> Result<()> {
        todo!()
    }
    /// Takes the adapter and its published ports away; the address is free again as soon as the link is gone.
    /// Nothing happens when it is already gone.
    pub fn detach(&self, id: &AdapterId) {
        todo!()
    }
    /// After a daemon restart, once all live adapters are adopted: removes what an earlier run left of all others
    /// (links, port rules). Returns how many links it removed.
    pub fn sweep(&self, live: &[AdapterId]) -> Result<usize> {
        todo!()
    }
    /// Publishes ports of a container, all or none.
    pub fn publish(&self, adapter: &AdapterRecord, requests: &[PortRequest]) -> Result<Vec<PublishedPort>> {
        todo!()
    }
    /// After a daemon restart: these ports are published. A host port that another program took meanwhile stays forwarded.
    pub fn adopt_ports(&self, adapter: &AdapterRecord, ports: &[PublishedPort]) -> Result<()> {
        todo!()
    }
    /// Withdraws all published ports of an adapter (`detach` does it too).
    pub fn unpublish(&self, id: &AdapterId) -> Result<()> {
        todo!()
    }
    /// The gateway: the host's address on the bridge, what `host-gateway` stands for in `--add-host`.
    pub fn gateway(&self) -> Ipv4Addr {
        todo!()
    }
    /// `bridge`, `host` and `none`.
    pub fn list(&self) -> Vec<NetworkInfo> {
        todo!()
    }
    /// By name, whole ID or an unambiguous beginning of it.
    pub fn find(&self, name_or_id: &str) -> Option<NetworkInfo> {
        todo!()
    }
    /// Removes bridge and table: for tests, demos and uninstalling. Running containers lose their network.
    pub fn teardown(self) -> Result<()> {
        todo!()
    }
}

/// What `/etc/hosts` of a container is made of.
#[derive(Debug, Clone, Default)]
pub struct HostsFile<'a> {
    /// Host name.
    pub hostname: &'a str,
    /// May be empty.
    pub domain: &'a str,
    /// `None` with `--network none`.
    pub ip: Option<Ipv4Addr>,
    /// `--add-host`: `name:address`, `name=address`, `name:host-gateway`.
    pub extra_hosts: &'a [String],
    /// What `host-gateway` stands for.
    pub gateway: Option<Ipv4Addr>,
}

/// The text of `/etc/hosts`; the error is a sentence naming the bad `--add-host`.
pub fn hosts_file(of: &HostsFile<'_>) -> std::result::Result<String, String> {
    todo!()
}

/// The text of `/etc/resolv.conf` for a container with a network of its own: the host's, with `dns`, `search`, `options`
/// taking the place of its lines when not empty, and without name servers on the host's loopback.
pub fn resolv_conf(host: &str, dns: &[String], search: &[String], options: &[String]) -> String {
    todo!()
}
