//! A start's part of networks: the namespace and an adapter on each network; undone by leaving.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use silo_network::{AdapterRecord, Attached, Driver, NetworkRecord};
use silo_sandbox::{KNOWS_NETWORKS, MachineNetwork};

use super::endpoint;
use super::ports::gateway;
use crate::container::refuse_to_join;
use crate::engine::{Engine, Entry};
use crate::error::{EngineError, Result, sandbox_error};
use crate::joined::at_start;
use crate::joined::{Joined, network_error};
use crate::lock::lock;
use crate::placement::{self, Adapters};
use crate::record::{ContainerId, ContainerRecord};
use crate::spec::{NetworkEndpoint, NetworkMode};

impl Engine {
    /// Makes the network namespace, unless there is one already, and the adapters that the container asks for.
    pub(crate) fn join_networks(&self, record: &ContainerRecord, made: Option<OwnedFd>) -> Result<Joined> {
        let networks = &self.inner.networks;
        Ok(match &record.spec.network {
            NetworkMode::Host => Joined::default(),
            NetworkMode::None if record.spec.networks.len() < 2 => {
                let namespace =
                    made.map_or_else(|| networks.create_empty_namespace(), Ok).map_err(network_error)?;
                Joined { namespace: Some(namespace), ..Default::default() }
            }
            NetworkMode::Container(other) => {
                let other = self.find(other)?;
                let (pid, running) = other.with(|r| (r.state.pid, r.state.status.is_running()));
                if !running {
                    return Err(EngineError::conflict(format!(
                        "cannot join network of a non running container: {}",
                        other.id
                    )));
                }
                refuse_to_join(&other, "network")?;
                Joined { namespace: Some(namespace_of(pid)?), ..Default::default() }
            }
            NetworkMode::None | NetworkMode::Bridge | NetworkMode::Named(_) => {
                self.join_each(record, made).map_err(at_start)?
            }
        })
    }

    fn join_each(&self, record: &ContainerRecord, made: Option<OwnedFd>) -> Result<Joined> {
        // `none` is where there is no adapter.
        let endpoints: Vec<_> = record.spec.networks.iter().filter(|e| e.network != "none").collect();
        let mut joined = Joined { namespace: made, ..Default::default() };
        if endpoints.is_empty() && joined.namespace.is_none() {
            joined.namespace = Some(self.inner.networks.create_empty_namespace().map_err(network_error)?);
        }
        for endpoint in endpoints {
            match self.attach_to(record, endpoint, joined.namespace.take()) {
                Ok(Attached { namespace, adapter }) => {
                    joined.namespace = Some(namespace);
                    joined.adapters.push(adapter);
                }
                Err(e) => {
                    self.leave_networks(&record.id, &joined.adapters);
                    return Err(e);
                }
            }
        }
        let routed = self.set_gateways(record, &joined.adapters, joined.namespace.as_ref());
        let named = routed.and_then(|()| self.serve_names(record, &joined));
        match named {
            Ok(nameserver) => joined.nameserver = nameserver,
            Err(e) => {
                self.leave_networks(&record.id, &joined.adapters);
                return Err(e);
            }
        }
        Ok(joined)
    }

    /// An adapter on one network.
    pub(super) fn attach_to(
        &self,
        record: &ContainerRecord,
        endpoint: &NetworkEndpoint,
        namespace: Option<OwnedFd>,
    ) -> Result<Attached> {
        let network = self.network_of(endpoint)?;
        endpoint::check(endpoint, &network)?;
        may_join(record, &network)?;
        let options = self.attach_options(record, endpoint, &network)?;
        let form = placement::facts(record.isolation).adapter;
        let (book, id) = (&self.inner.book, &record.id.0);
        book.enter(&network, id, &record.name)?;
        match self.inner.networks.attach(&network.id, id, form, &options, namespace) {
            Ok(attached) => {
                book.entered(&network.id, id, &attached.adapter.endpoint_id);
                Ok(attached)
            }
            Err(e) => {
                book.left(&network.id, id);
                Err(network_error(e))
            }
        }
    }

    /// Sets the default routes of a namespace where an attach alone does not say them.
    pub(super) fn set_gateways(
        &self,
        record: &ContainerRecord,
        adapters: &[AdapterRecord],
        namespace: Option<&OwnedFd>,
    ) -> Result<()> {
        let (Some(namespace), true) = (namespace, adapters.len() > 1) else { return Ok(()) };
        self.route(record, adapters, namespace)
    }

    /// Sets the default routes of a namespace to exactly those that its adapters give it.
    pub(super) fn route(
        &self,
        record: &ContainerRecord,
        adapters: &[AdapterRecord],
        namespace: &OwnedFd,
    ) -> Result<()> {
        let (v4, v6) = (gateway(record, adapters, false), gateway(record, adapters, true));
        self.inner.networks.set_gateway(namespace.as_fd(), v4, v6).map_err(network_error)
    }

    /// Gives adapters back; their namespace goes with the last process in it.
    pub(crate) fn leave_networks(&self, id: &ContainerId, adapters: &[AdapterRecord]) {
        self.leave_networks_in(id, adapters, None);
    }

    /// The same in a namespace that stays.
    pub(super) fn leave_networks_in(
        &self,
        id: &ContainerId,
        adapters: &[AdapterRecord],
        namespace: Option<&OwnedFd>,
    ) {
        self.forget_names(adapters);
        for adapter in adapters {
            if let Err(e) = self.inner.networks.detach(adapter, namespace.map(AsFd::as_fd)) {
                tracing::warn!("network: {e}");
            }
            self.inner.book.left(&adapter.network_id, &id.0);
        }
    }

    /// Takes the last run's adapters away, if that is still to be done.
    pub(crate) fn finish_leaving(&self, entry: &Entry) {
        let mut leaving = lock(&entry.leaving);
        let adapters = std::mem::take(&mut *leaving);
        self.leave_networks(&entry.id, &adapters);
        lock(&self.inner.leaving_entries).retain(|e| e.id != entry.id);
    }

    /// A run has ended, its adapters are to be taken away: who asks for a network meanwhile does not wait for that.
    pub(crate) fn begin_leaving(&self, entry: &std::sync::Arc<Entry>, adapters: &[AdapterRecord]) {
        self.stop_names(&entry.id);
        self.forget_names(adapters);
        for adapter in adapters {
            self.inner.book.left(&adapter.network_id, &entry.id.0);
        }
        *lock(&entry.leaving) = adapters.to_vec();
        lock(&self.inner.leaving_entries).push(entry.clone());
    }

    /// Takes away at once what ended runs have left on a network.
    pub(super) fn finish_leaving_network(&self, network: &str) {
        let entries = lock(&self.inner.leaving_entries).clone();
        for entry in entries {
            let there = lock(&entry.leaving).iter().any(|a| a.network_id == network);
            if there {
                self.finish_leaving(&entry);
            }
        }
    }
}

impl Engine {
    /// After a restart of the daemon: what a container that runs has of networks is in use.
    /// `supervisor`: the shim's, which is in the container's network namespace.
    pub(crate) fn readopt_networks(&self, record: &ContainerRecord, supervisor: i32) {
        for adapter in &record.adapters {
            self.inner.networks.adopt(adapter);
            self.inner.book.entered(&adapter.network_id, &record.id.0, &adapter.endpoint_id);
        }
        if let Some(adapter) =
            gateway(record, &record.adapters, false).or_else(|| gateway(record, &record.adapters, true))
        {
            self.inner.networks.readopt_ports(&record.id.0, adapter, &record.published);
        }
        if record.adapters.is_empty() {
            return;
        }
        let named = namespace_of(supervisor).and_then(|ns| self.change_names(record, &ns));
        if let Err(e) = named {
            tracing::warn!("container {}: its name server: {e}", record.id);
        }
    }
}

/// Refuses networks whose adapters are of no use where the container runs.
fn may_join(record: &ContainerRecord, network: &NetworkRecord) -> Result<()> {
    if network.configuration.is_some() {
        return Err(EngineError::forbidden("cannot create endpoint on configuration-only network"));
    }
    let carried = placement::facts(record.isolation).adapters == Adapters::Carried;
    if carried && matches!(network.driver, Driver::Macvlan | Driver::Ipvlan) {
        return Err(EngineError::invalid(format!(
            "container {}: network {} has the driver {}, which with {} isolation no container can be on: its machine speaks with \
             a hardware address that such an adapter does not let in",
            record.name,
            network.name,
            network.driver,
            record.isolation.as_str()
        )));
    }
    Ok(())
}

/// What a machine is told of a container's adapters.
pub(super) fn for_machine(
    record: &ContainerRecord,
    adapters: &[AdapterRecord],
) -> Result<Vec<MachineNetwork>> {
    let leads = |a: &AdapterRecord, ipv6| {
        gateway(record, adapters, ipv6).is_some_and(|g| g.endpoint_id == a.endpoint_id)
    };
    let of = |a: &AdapterRecord| {
        let mac = a.hardware_address().map_err(network_error)?;
        let gateways = [
            a.gateway.map(IpAddr::V4).filter(|_| leads(a, false)),
            a.gateway6.map(IpAddr::V6).filter(|_| leads(a, true)),
        ];
        Ok(MachineNetwork {
            name: a.interface.clone(),
            mac,
            addresses: a.prefixed(),
            gateways: gateways.into_iter().flatten().collect(),
            ..MachineNetwork::default()
        })
    };
    adapters.iter().map(of).collect()
}

/// The process of the host's that is in the network namespace of a container that runs and whose networks are to change: its
/// shim. One that an earlier daemon has started may not know of that.
pub(super) async fn supervisor(entry: &Entry) -> Result<i32> {
    let state = entry.running()?.state().await.map_err(sandbox_error)?;
    let (isolation, name) = entry.with(|r| (r.isolation, r.name.clone()));
    if placement::facts(isolation).adapters == Adapters::Carried && state.version < KNOWS_NETWORKS {
        return Err(EngineError::conflict(format!(
            "container {name} was started by an earlier version of silo: its networks change only while it is stopped"
        )));
    }
    Ok(state.shim_pid)
}

/// The network namespace that a process of the host's is in.
pub(super) fn namespace_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())
        .map_err(|e| EngineError::internal(format!("{path}: {e}")))
}
