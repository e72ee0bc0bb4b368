//! What is asked of an endpoint: checked against its network in dockerd's words, and as the network takes it.

use std::net::IpAddr;

use silo_network::{AttachOptions, NetworkRecord};

use super::bandwidth;
use crate::engine::{Engine, Entry};
use crate::error::{EngineError, Result};
use crate::record::ContainerRecord;
use crate::spec::{ContainerSpec, NetworkEndpoint, NetworkMode};

/// Driver option of an endpoint: its name inside.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
/// Driver option of an endpoint that is not honoured.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

impl Engine {
    /// Names a new container's networks as they are named, and checks what is asked of those that there are; one that is
    /// not is found out at the start, as with dockerd.
    pub(crate) fn resolve_networks(&self, spec: &mut ContainerSpec) -> Result<()> {
        spec.complete_networks();
        let mut list: Vec<NetworkEndpoint> = Vec::new();
        for mut endpoint in std::mem::take(&mut spec.networks) {
            if let Ok(network) = self.find_network(&endpoint.network) {
                check(&endpoint, &network)?;
                endpoint.network = network.name;
            }
            // By its name and by its ID.
            match list.iter_mut().find(|e| e.network == endpoint.network) {
                Some(same) if *same == NetworkEndpoint::on(&endpoint.network) => *same = endpoint,
                Some(_) => {}
                None => list.push(endpoint),
            }
        }
        let none = |e: &NetworkEndpoint| e.network == "none";
        if list.len() > 1 {
            if list.iter().any(|e| e.network == "host") {
                return Err(EngineError::invalid(SHARED));
            }
            if list.iter().any(none) {
                return Err(EngineError::invalid(NO_NETWORK));
            }
        }
        spec.networks = list;
        bandwidth::check(&spec.config.labels, "label")
    }

    /// Before a start: networks that were not there when the container was created are named as they are named.
    pub(crate) fn name_networks(&self, entry: &Entry) {
        let mut networks = entry.with(|r| r.spec.networks.clone());
        let mut changed = false;
        for endpoint in networks.iter_mut().filter(|e| e.network_id.is_empty()) {
            if let Ok(network) = self.find_network(&endpoint.network)
                && network.name != endpoint.network
            {
                endpoint.network = network.name;
                changed = true;
            }
        }
        if changed {
            self.note(entry, |r| r.spec.networks = networks);
        }
    }

    /// What an attach is to do for an endpoint.
    pub(super) fn attach_options(
        &self,
        record: &ContainerRecord,
        endpoint: &NetworkEndpoint,
        network: &NetworkRecord,
    ) -> Result<AttachOptions> {
        let (ipv4, ipv6) = addresses(endpoint)?;
        Ok(AttachOptions {
            mac: Some(endpoint.mac.clone()).filter(|m| !m.is_empty()),
            ipv4,
            ipv6,
            link_local: link_local(endpoint)?,
            interface: endpoint.driver_opts.get(INTERFACE_NAME).cloned(),
            bandwidth: bandwidth::of(&endpoint.driver_opts, &record.spec.config.labels, &network.options)?,
        })
    }
}

/// dockerd's words for a container that cannot be on more than its network.
pub(super) const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
/// The same for `none`.
pub(super) const NO_NETWORK: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

type Addresses = (Option<std::net::Ipv4Addr>, Option<std::net::Ipv6Addr>);

fn addresses(endpoint: &NetworkEndpoint) -> Result<Addresses> {
    let ipv4 = match endpoint.ipv4.as_str() {
        "" => None,
        text => {
            Some(text.parse().map_err(|_| EngineError::invalid(format!("invalid IPv4 address: {text}")))?)
        }
    };
    let ipv6 = match endpoint.ipv6.as_str() {
        "" => None,
        text => {
            Some(text.parse().map_err(|_| EngineError::invalid(format!("invalid IPv6 address: {text}")))?)
        }
    };
    Ok((ipv4, ipv6))
}

fn link_local(endpoint: &NetworkEndpoint) -> Result<Vec<IpAddr>> {
    let parse = |text: &String| {
        text.parse().map_err(|_| EngineError::invalid(format!("invalid link-local IP address: {text}")))
    };
    endpoint.link_local.iter().map(parse).collect()
}

/// dockerd's checks of an endpoint's settings.
pub(super) fn check(endpoint: &NetworkEndpoint, network: &NetworkRecord) -> Result<()> {
    let wrong = |why: String| {
        Err(EngineError::invalid(format!(
            "invalid config for network {}: invalid endpoint settings:\n{why}",
            network.name
        )))
    };
    let (ipv4, ipv6) = addresses(endpoint)?;
    link_local(endpoint)?;
    bandwidth::check(&endpoint.driver_opts, "driver option")?;
    if endpoint.driver_opts.contains_key(SYSCTLS) {
        return Err(EngineError::invalid(format!("driver option {SYSCTLS} is not supported by silo")));
    }
    let wished: Vec<IpAddr> = ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)).collect();
    if network.builtin {
        if !wished.is_empty() {
            return wrong("user specified IP address is supported on user defined networks only".to_owned());
        }
        if !endpoint.aliases.is_empty() {
            return wrong("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
    }
    for address in wished {
        let family: Vec<_> =
            network.pools.iter().filter(|p| p.given && p.subnet.is_ipv6() == address.is_ipv6()).collect();
        if family.is_empty() {
            return wrong(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            );
        }
        if !family.iter().any(|p| p.subnet.contains(address)) {
            return wrong(format!("no configured subnet or ip-range contain the IP address {address}"));
        }
    }
    Ok(())
}

/// The names that a container has on a network of a user's own: its name, its aliases, the first digits of its ID and its
/// host name.
pub(crate) fn dns_names(record: &ContainerRecord, endpoint: &NetworkEndpoint) -> Vec<String> {
    let hostname = &record.spec.config.hostname;
    let all = std::iter::once(record.name.as_str())
        .chain(endpoint.aliases.iter().map(String::as_str))
        .chain([record.id.short(), hostname.as_str()]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|n| !n.is_empty()) {
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}

impl ContainerRecord {
    /// The names by which others on that network find it; none on the networks that are always there.
    pub fn dns_names(&self, endpoint: &NetworkEndpoint) -> Vec<String> {
        if silo_network::is_predefined(&endpoint.network) { Vec::new() } else { dns_names(self, endpoint) }
    }

    /// The network that each of its endpoints is on, by its adapters.
    pub fn adapter_of(&self, endpoint: &NetworkEndpoint) -> Option<&silo_network::AdapterRecord> {
        self.adapters.iter().find(|a| a.network == endpoint.network)
    }

    /// Its endpoint on a network.
    pub(crate) fn endpoint_on(&self, network: &NetworkRecord) -> Option<&NetworkEndpoint> {
        self.spec.networks.iter().find(|e| e.network == network.name || e.network == network.id)
    }
}

/// Whether a mode can have further networks, or why not.
pub(super) fn can_have_more(mode: &NetworkMode) -> Result<()> {
    match mode {
        NetworkMode::Host => Err(EngineError::invalid(
            "container cannot be disconnected from host network or connected to host network",
        )),
        NetworkMode::Container(_) => Err(EngineError::invalid(SHARED)),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => Ok(()),
    }
}
