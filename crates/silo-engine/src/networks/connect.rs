//! `network connect` and `disconnect`, of containers that run and of others; each step beside its undo.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use silo_network::{AdapterRecord, Attached, NetworkRecord};

use super::endpoint::{self, NO_NETWORK, can_have_more};
use super::join;
use super::ports::gateway;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result, sandbox_error};
use crate::joined::network_error;
use crate::placement::{self, Adapters};
use crate::record::{ContainerRecord, Status};
use crate::spec::NetworkEndpoint;

impl Engine {
    /// Connects a container to a network: at once if it runs, else from its next start on.
    pub async fn connect(&self, network: &str, container: &str, mut endpoint: NetworkEndpoint) -> Result<()> {
        let entry = self.find(container)?;
        let _verb = entry.verb.lock().await;
        refuse_if_removed(&entry, network)?;
        let network = self.find_network(network)?;
        let record = entry.record();
        can_have_more(&record.spec.network)?;
        if network.name == "host" {
            return Err(EngineError::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let others = record.spec.networks.iter().filter(|e| e.network != network.name);
        let none = |e: &NetworkEndpoint| e.network == "none";
        if others.clone().any(none) || (network.name == "none" && others.count() > 0) {
            return Err(EngineError::invalid(NO_NETWORK));
        }
        endpoint.network.clone_from(&network.name);
        endpoint::check(&endpoint, &network)?;
        if !record.state.status.is_running() {
            endpoint.network_id.clear();
            self.change(&entry, |r| {
                r.spec.networks.retain(|e| e.network != network.name);
                r.spec.networks.push(endpoint);
            })?;
            self.network_event(&network, "connect", Some(&entry.id.0));
            return Ok(());
        }
        endpoint.network_id.clone_from(&network.id);
        self.connect_running(&entry, endpoint).await?;
        self.network_event(&network, "connect", Some(&entry.id.0));
        Ok(())
    }

    async fn connect_running(&self, entry: &Arc<Entry>, endpoint: NetworkEndpoint) -> Result<()> {
        let mut record = entry.record();
        let (engine, before) = (self.clone(), record.clone());
        let supervisor = join::supervisor(entry).await?;
        self.note(entry, |r| r.networks_changing = true);
        let made = blocking(move || {
            let namespace = join::namespace_of(supervisor)?;
            let Attached { namespace, adapter } = engine.attach_to(&record, &endpoint, Some(namespace))?;
            record.spec.networks.retain(|e| e.network != endpoint.network);
            record.spec.networks.push(endpoint);
            record.adapters.push(adapter);
            Ok((record, Arc::new(namespace)))
        });
        let (record, namespace) = match made.await {
            Ok(made) => made,
            Err(e) => {
                self.note(entry, |r| r.networks_changing = false);
                return Err(e);
            }
        };
        if let Err(e) = self.settle_networks(entry, &record, &namespace).await {
            if let Err(e) = self.settle_networks(entry, &before, &namespace).await {
                tracing::warn!("container {}: its networks as they were: {e}", before.id);
            }
            let (engine, new) = (self.clone(), record.adapters[before.adapters.len()..].to_vec());
            let left = blocking(move || {
                engine.leave_networks_in(&record.id, &new, Some(&namespace));
                Ok(())
            });
            left.await?;
            self.note(entry, |r| r.networks_changing = false);
            return Err(e);
        }
        self.keep_networks(entry, &before, record.spec.networks, record.adapters).await
    }

    /// What follows from the adapters of a container that runs: its default routes, its names and those it may ask for.
    async fn settle_networks(
        &self,
        entry: &Arc<Entry>,
        record: &ContainerRecord,
        namespace: &Arc<OwnedFd>,
    ) -> Result<()> {
        let adapters = placement::facts(record.isolation).adapters;
        entry.running()?;
        let (engine, of, here) = (self.clone(), record.clone(), namespace.clone());
        let nameserver = blocking(move || {
            if adapters == Adapters::Here {
                engine.route(&of, &of.adapters, &here)?;
            }
            engine.change_names(&of, &here)
        })
        .await?;
        if adapters == Adapters::Carried {
            let networks = join::for_machine(record, &record.adapters)?;
            entry.running()?.set_networks(networks).await.map_err(sandbox_error)?;
        }
        let (engine, of) = (self.clone(), record.clone());
        blocking(move || engine.rewrite_network_files(&of, nameserver)).await?;
        match adapters {
            Adapters::Here => Ok(()),
            // It has copies of them.
            Adapters::Carried => entry.running()?.refresh().await.map_err(sandbox_error),
        }
    }

    /// After a restart of the daemon, once what nobody has is swept: a change that it has cut short is finished.
    pub(crate) async fn finish_changing_networks(&self, entry: &Arc<Entry>) {
        let _verb = entry.verb.lock().await;
        let record = entry.record();
        if !record.networks_changing || !record.state.status.is_running() {
            return;
        }
        let finished = async {
            let supervisor = join::supervisor(entry).await?;
            let (engine, known) = (self.clone(), record.adapters.clone());
            let carried = placement::facts(record.isolation).adapters == Adapters::Carried;
            let swept = blocking(move || {
                let namespace = join::namespace_of(supervisor)?;
                if !carried {
                    let networks = &engine.inner.networks;
                    networks.sweep_namespace(namespace.as_fd(), &known).map_err(network_error)?;
                }
                Ok(Arc::new(namespace))
            });
            self.settle_networks(entry, &record, &swept.await?).await
        };
        if let Err(e) = finished.await {
            tracing::warn!("container {}: its networks after a change that was cut short: {e}", entry.id);
            return;
        }
        self.note(entry, |r| r.networks_changing = false);
    }

    /// Notes the networks that a running container has now, and moves its ports if another adapter has the default route.
    async fn keep_networks(
        &self,
        entry: &Arc<Entry>,
        old: &ContainerRecord,
        networks: Vec<NetworkEndpoint>,
        adapters: Vec<AdapterRecord>,
    ) -> Result<()> {
        self.note(entry, |r| {
            r.spec.networks = networks;
            r.adapters = adapters;
            r.networks_changing = false;
        });
        let new = entry.record();
        let published_on = |r: &ContainerRecord| {
            let adapter = gateway(r, &r.adapters, false).or_else(|| gateway(r, &r.adapters, true));
            adapter.map(|a| a.endpoint_id.clone())
        };
        if published_on(old) == published_on(&new) || crate::ports::requests(&new.spec).is_empty() {
            return Ok(());
        }
        self.unpublish(&entry.id).await;
        let published = self.publish(&new, &new.adapters).await;
        self.note(entry, |r| r.published = published.as_ref().cloned().unwrap_or_default());
        published.map(drop)
    }

    /// Disconnects a container from a network. `force`: also when there is no such network any more.
    pub async fn disconnect(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let entry = self.find(container)?;
        let _verb = entry.verb.lock().await;
        refuse_if_removed(&entry, network)?;
        let record = entry.record();
        let found = self.find_network(network);
        let name = found.as_ref().map_or(network, |n| n.name.as_str()).to_owned();
        let network = if !record.state.status.is_running() || (found.is_err() && force) {
            if !record.spec.networks.iter().any(|e| e.network == name) {
                return Err(EngineError::internal(format!(
                    "container {} is not connected to the network {name}",
                    entry.id
                )));
            }
            self.change(&entry, |r| r.spec.networks.retain(|e| e.network != name))?;
            found.ok()
        } else {
            let network = found?;
            if network.name == "host" {
                return Err(EngineError::invalid(
                    "container cannot be disconnected from host network or connected to host network",
                ));
            }
            self.disconnect_running(&entry, &network).await?;
            Some(network)
        };
        if let Some(network) = network {
            self.network_event(&network, "disconnect", Some(&entry.id.0));
        }
        Ok(())
    }

    async fn disconnect_running(&self, entry: &Arc<Entry>, network: &NetworkRecord) -> Result<()> {
        let mut record = entry.record();
        let Some(adapter) = record.adapter_on(&network.id).cloned() else {
            // Of `none` there is an endpoint and no adapter.
            if network.name == "none" && record.endpoint_on(network).is_some() {
                return self.change(entry, |r| r.spec.networks.retain(|e| e.network != "none"));
            }
            return Err(EngineError::internal(format!(
                "container {} is not connected to network {}",
                entry.id, network.name
            )));
        };
        let before = record.clone();
        record.spec.networks.retain(|e| e.network != network.name);
        record.adapters.retain(|a| a.endpoint_id != adapter.endpoint_id);
        let supervisor = join::supervisor(entry).await?;
        let namespace = Arc::new(blocking(move || join::namespace_of(supervisor)).await?);
        // First: an adapter that nobody has is swept, one that is gone would be somebody's for ever.
        self.note(entry, |r| {
            r.spec.networks.clone_from(&record.spec.networks);
            r.adapters.clone_from(&record.adapters);
            r.networks_changing = true;
        });
        let settle = self.settle_networks(entry, &record, &namespace);
        let (engine, id, here) = (self.clone(), record.id.clone(), namespace.clone());
        let leave = blocking(move || {
            engine.leave_networks_in(&id, &[adapter], Some(&here));
            Ok(())
        });
        let settled = match placement::facts(record.isolation).adapters {
            Adapters::Here => leave.await.and(settle.await),
            // What is carried on is let go of first.
            Adapters::Carried => settle.await.and(leave.await),
        };
        let unfinished = settled.is_err();
        if let Err(e) = settled {
            tracing::warn!("container {}: after it left a network: {e}", record.id);
        }
        let kept = self.keep_networks(entry, &before, record.spec.networks, record.adapters).await;
        if unfinished {
            // The next start of the daemon tries again.
            self.note(entry, |r| r.networks_changing = true);
        }
        kept
    }
}

fn refuse_if_removed(entry: &Entry, network: &str) -> Result<()> {
    match entry.status() {
        Status::Removing | Status::Dead => Err(EngineError::conflict(format!(
            "Container {} is marked for removal and cannot be connected or disconnected to the network {network}",
            entry.id
        ))),
        _ => Ok(()),
    }
}
