//! `silo adapter ls` and `set`: a container's adapters with their limits and counters.

use std::os::fd::{AsFd, OwnedFd};

use silo_network::{AdapterRecord, Bandwidth, Counters, NetworkRecord};

use super::bandwidth::{self, MAX_EGRESS, MAX_INGRESS};
use super::join;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::joined::network_error;
use crate::record::ContainerRecord;
use crate::spec::NetworkEndpoint;

/// An adapter as it is shown; of a container that does not run, what its next start gives it.
#[derive(Debug, Clone)]
pub struct AdapterState {
    /// As asked for.
    pub endpoint: NetworkEndpoint,
    /// As it is while the container runs.
    pub adapter: Option<AdapterRecord>,
    /// What it may carry.
    pub limits: Bandwidth,
    /// What it has carried since the start.
    pub counters: Counters,
}

/// New limits, as texts; `None`: as it is.
#[derive(Debug, Clone, Default)]
pub struct AdapterChange {
    /// `100Mbps`, `unlimited`.
    pub max_egress: Option<String>,
    /// The same for what comes in.
    pub max_ingress: Option<String>,
}

impl Engine {
    /// A container's adapters.
    pub async fn adapters(&self, container: &str) -> Result<Vec<AdapterState>> {
        let entry = self.find(container)?;
        let namespace = namespace(&entry).await;
        let (engine, record) = (self.clone(), entry.record());
        blocking(move || {
            let inside = || namespace.as_ref().map(AsFd::as_fd);
            let mut list = Vec::new();
            for endpoint in record.spec.networks.iter().filter(|_| record.spec.network.has_adapters()) {
                let adapter = record.adapter_of(endpoint).cloned();
                let limits = match &adapter {
                    Some(adapter) => adapter.limits,
                    None => engine.limits(&record, endpoint)?,
                };
                let counters = match &adapter {
                    Some(adapter) => {
                        engine.inner.networks.counters(adapter, inside()).map_err(network_error)?
                    }
                    None => Counters::default(),
                };
                list.push(AdapterState { endpoint: endpoint.clone(), adapter, limits, counters });
            }
            Ok(list)
        })
        .await
    }

    fn limits(&self, record: &ContainerRecord, endpoint: &NetworkEndpoint) -> Result<Bandwidth> {
        let network: NetworkRecord = self.network_of(endpoint).unwrap_or_default();
        bandwidth::of(&endpoint.driver_opts, &record.spec.config.labels, &network.options)
    }

    /// Sets the limits of an adapter, by its network's name or ID or its name inside; empty: of each. Those of a container
    /// that runs hold at once.
    pub async fn set_adapter(&self, container: &str, adapter: &str, change: AdapterChange) -> Result<()> {
        for (text, option) in [(&change.max_egress, "max-egress"), (&change.max_ingress, "max-ingress")] {
            if let Some(text) = text {
                bandwidth::parse(text).map_err(|e| EngineError::invalid(format!("{option}: {e}")))?;
            }
        }
        let entry = self.find(container)?;
        let _verb = entry.verb.lock().await;
        let mut record = entry.record();
        let names: Vec<String> = record
            .spec
            .networks
            .iter()
            .filter(|_| record.spec.network.has_adapters())
            .filter(|e| adapter.is_empty() || is_called(&record, e, adapter))
            .map(|e| e.network.clone())
            .collect();
        if names.is_empty() {
            return Err(EngineError::not_found(match adapter {
                "" => format!("container {} has no adapters", record.name),
                _ => format!("container {} has no adapter {adapter}", record.name),
            }));
        }
        for endpoint in record.spec.networks.iter_mut().filter(|e| names.contains(&e.network)) {
            for (text, key) in [(&change.max_egress, MAX_EGRESS), (&change.max_ingress, MAX_INGRESS)] {
                if let Some(text) = text {
                    endpoint.driver_opts.insert(key.to_owned(), text.clone());
                }
            }
        }
        let (engine, mut after) = (self.clone(), record.clone());
        let namespace = namespace(&entry).await;
        let adapters = blocking(move || {
            let inside = || namespace.as_ref().map(AsFd::as_fd);
            for name in &names {
                let Some(endpoint) = after.spec.networks.iter().find(|e| e.network == *name) else {
                    continue;
                };
                let limits = engine.limits(&after, endpoint)?;
                if let Some(adapter) = after.adapters.iter_mut().find(|a| a.network == *name) {
                    engine.inner.networks.set_bandwidth(adapter, inside(), limits).map_err(network_error)?;
                    adapter.limits = limits;
                }
            }
            Ok(after.adapters)
        })
        .await?;
        self.change(&entry, |r| {
            r.spec.networks = std::mem::take(&mut record.spec.networks);
            // Those of a run that has ended meanwhile are nobody's.
            if !r.adapters.is_empty() {
                r.adapters = adapters;
            }
        })
    }
}

impl Engine {
    /// The network of a container's adapter, by its name inside or the network's.
    pub fn adapter_network(&self, container: &str, adapter: &str) -> Result<String> {
        let record = self.find(container)?.record();
        let found = record.spec.networks.iter().find(|e| is_called(&record, e, adapter));
        found.map(|e| e.network.clone()).ok_or_else(|| {
            EngineError::not_found(format!("container {} has no adapter {adapter}", record.name))
        })
    }
}

/// Where its adapters are, while it runs.
async fn namespace(entry: &Entry) -> Option<OwnedFd> {
    let supervisor = join::supervisor(entry).await.ok()?;
    join::namespace_of(supervisor).ok()
}

fn is_called(record: &ContainerRecord, endpoint: &NetworkEndpoint, name: &str) -> bool {
    let adapter = record.adapter_of(endpoint);
    endpoint.network == name
        || (name.len() >= 3 && endpoint.network_id.starts_with(name))
        || adapter
            .is_some_and(|a| a.interface == name || (name.len() >= 3 && a.endpoint_id.starts_with(name)))
}
