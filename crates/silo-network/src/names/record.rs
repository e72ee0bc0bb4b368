//! The words: who has which names on which network, and what one container may ask for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Where a container's server listens: stated by the isolation, served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolverForm {
    /// On 127.0.0.11 of the namespace that the container's programs are in.
    Loopback,
    /// On a link-local address of the namespace's loopback: the container's programs are behind the namespace, and whoever
    /// carries the adapter on to them takes the address along. The namespace has no way out of its own: upstream servers
    /// are asked from the host.
    Link,
}

/// An adapter's names, as others of its network find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// 64 hex digits.
    pub network_id: String,
    /// The network's name: `web.backend` is the container `web` on the network `backend`.
    pub network: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// 64 hex digits.
    pub container_id: String,
    /// The container's name, its short ID, aliases, host name.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// What a reverse look-up answers, without the last dot: `web.backend`.
    pub primary: String,
}

/// A server that is asked for names that no container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    /// Its address and port.
    pub address: SocketAddr,
    /// Asked from the host's network namespace, not from the container's: servers on the host's loopback.
    pub from_host: bool,
}

/// What one container may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// IDs of the networks it is in.
    pub networks: Vec<String>,
    /// `--link`: its own names for other containers, by their IDs; found on networks that both are in.
    pub own: BTreeMap<String, String>,
    /// Asked in this order.
    pub upstream: Vec<Upstream>,
    /// An option `ndots` above 0 was given: names of one label are not asked upstream, so that the search list is tried.
    pub ndots: bool,
}
