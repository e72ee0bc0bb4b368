//! What the name servers are told: who is on which network under which names, and what each container may ask for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use silo_network::{AdapterRecord, NamedEndpoint, Upstream, View};

use super::endpoint::dns_names;
use crate::engine::{Engine, Entry};
use crate::error::Result;
use crate::joined::{Joined, network_error};
use crate::placement;
use crate::record::{ContainerId, ContainerRecord};

/// dockerd's choice where the host names no server.
const FALLBACK: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
const DNS_PORT: u16 = 53;

impl Engine {
    /// Tells the names of a container that is about to start; returns the name server that it has of its own.
    pub(super) fn serve_names(&self, record: &ContainerRecord, joined: &Joined) -> Result<Option<IpAddr>> {
        let Some(namespace) = &joined.namespace else { return Ok(None) };
        self.change_names_of(record, &joined.adapters, namespace)
    }

    /// The same for one that runs and has other networks than before.
    pub(super) fn change_names(
        &self,
        record: &ContainerRecord,
        namespace: &OwnedFd,
    ) -> Result<Option<IpAddr>> {
        self.change_names_of(record, &record.adapters, namespace)
    }

    fn change_names_of(
        &self,
        record: &ContainerRecord,
        adapters: &[AdapterRecord],
        namespace: &OwnedFd,
    ) -> Result<Option<IpAddr>> {
        self.tell_names(record, adapters);
        self.refresh_links(record);
        // As dockerd: on the default network there is none.
        let wanted = adapters.iter().any(|a| !silo_network::is_predefined(&a.network));
        if !wanted {
            // One that it had goes on: its resolv.conf may be open.
            return Ok(None);
        }
        let form = placement::facts(record.isolation).resolver;
        let (names, id) = (&self.inner.names, &record.id.0);
        let view = self.view(record, adapters);
        let address = names.serve(id, namespace.as_fd(), form, view).map_err(network_error)?;
        Ok(Some(address))
    }

    fn tell_names(&self, record: &ContainerRecord, adapters: &[AdapterRecord]) {
        for adapter in adapters.iter().filter(|a| !silo_network::is_predefined(&a.network)) {
            let Some(endpoint) = record.spec.networks.iter().find(|e| e.network == adapter.network) else {
                continue;
            };
            self.inner.names.set(NamedEndpoint {
                network_id: adapter.network_id.clone(),
                network: adapter.network.clone(),
                endpoint_id: adapter.endpoint_id.clone(),
                container_id: record.id.0.clone(),
                names: dns_names(record, endpoint),
                addresses: adapter
                    .ipv4
                    .map(IpAddr::V4)
                    .into_iter()
                    .chain(adapter.ipv6.map(IpAddr::V6))
                    .collect(),
                primary: format!("{}.{}", record.name, adapter.network),
            });
        }
    }

    /// A container that runs has another name.
    pub(crate) fn tell_names_again(&self, entry: &Entry) {
        let record = entry.record();
        self.tell_names(&record, &record.adapters);
        self.refresh_links(&record);
    }

    /// Others may have links to a container that is there now.
    fn refresh_links(&self, to: &ContainerRecord) {
        for entry in self.entries() {
            let record = entry.record();
            let linked = record.spec.networks.iter().any(|e| !e.links.is_empty());
            if linked && record.id != to.id && record.state.status.is_running() {
                self.inner.names.set_view(&record.id.0, self.view(&record, &record.adapters));
            }
        }
    }

    fn view(&self, record: &ContainerRecord, adapters: &[AdapterRecord]) -> View {
        let mut own = BTreeMap::new();
        for link in record.spec.networks.iter().flat_map(|e| &e.links) {
            let (target, alias) = link.split_once(':').unwrap_or((link, link));
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            if let Ok(target) = self.find(target) {
                own.insert(alias.to_owned(), target.id.0.clone());
            }
        }
        let networks = adapters
            .iter()
            .filter(|a| !silo_network::is_predefined(&a.network))
            .map(|a| a.network_id.clone());
        let ndots = record.spec.dns_options.iter().filter_map(|o| o.strip_prefix("ndots:"));
        // Who is on internal networks alone must not get word out by a question, least of all through the host.
        let internal = |a: &AdapterRecord| self.find_network(&a.network_id).is_ok_and(|n| n.internal);
        View {
            networks: networks.collect(),
            own,
            upstream: if adapters.iter().all(internal) { Vec::new() } else { upstream(&record.spec.dns) },
            ndots: ndots.filter_map(|n| n.parse::<u32>().ok()).any(|n| n > 0),
        }
    }

    /// A container's adapters are no longer found by name.
    pub(crate) fn forget_names(&self, adapters: &[AdapterRecord]) {
        for adapter in adapters {
            self.inner.names.forget(&adapter.endpoint_id);
        }
    }

    /// A container that has ended asks for nothing.
    pub(crate) fn stop_names(&self, id: &ContainerId) {
        self.inner.names.stop(&id.0);
    }
}

/// The servers given with `--dns`, else the host's.
fn upstream(given: &[String]) -> Vec<Upstream> {
    let at = |address: IpAddr, from_host: bool| Upstream {
        address: SocketAddr::new(address, DNS_PORT),
        from_host,
    };
    if !given.is_empty() {
        return given.iter().filter_map(|s| s.parse().ok()).map(|a| at(a, false)).collect();
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|l| l.trim_start().strip_prefix("nameserver"));
    let found: Vec<Upstream> = servers
        .filter_map(|s| s.trim().parse::<IpAddr>().ok())
        // What is on the host's own loopback is asked from there.
        .map(|a| at(a, a.is_loopback()))
        .collect();
    if found.is_empty() { FALLBACK.into_iter().map(|a| at(a.into(), false)).collect() } else { found }
}
