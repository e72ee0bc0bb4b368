//! Names: who is found under which name in which network, and the servers that tell it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use crate::error::NetworkError;

/// How a container reaches its name server: stated by the isolation, served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolverForm {
    /// On the loopback of its network namespace.
    Loopback,
    /// At an address that it reaches over its adapter.
    Link,
}

/// An adapter and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The network that knows the names.
    pub network_id: String,
    /// The adapter.
    pub endpoint_id: String,
    /// Whose it is.
    pub container_id: String,
    /// The container's name, short ID and aliases.
    pub names: Vec<String>,
    /// What the names mean.
    pub addresses: Vec<IpAddr>,
    /// What an address is called: `name.network`.
    pub primary: String,
}

/// What one container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Networks whose names it knows.
    pub networks: Vec<String>,
    /// Names of its own (`--link`): alias → container ID.
    pub own: BTreeMap<String, String>,
    /// Who is asked what no network knows.
    pub upstream: Vec<SocketAddr>,
}

/// Names of all networks.
#[derive(Debug, Default)]
pub struct Names {}

impl Names {
    /// Makes an endpoint known, in place of what it was called before.
    pub fn set(&self, _endpoint: NamedEndpoint) {
        todo!("names")
    }

    /// Forgets an endpoint.
    pub fn forget(&self, _endpoint_id: &str) {
        todo!("names")
    }

    /// Serves a container; returns what its `resolv.conf` names.
    pub fn serve(
        &self,
        _container_id: &str,
        _namespace: BorrowedFd<'_>,
        _form: ResolverForm,
        _view: View,
    ) -> Result<IpAddr, NetworkError> {
        todo!("names")
    }

    /// Changes what a container sees.
    pub fn set_view(&self, _container_id: &str, _view: View) {
        todo!("names")
    }

    /// Ends a container's server.
    pub fn stop(&self, _container_id: &str) {
        todo!("names")
    }
}
