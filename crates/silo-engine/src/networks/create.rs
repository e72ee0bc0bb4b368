//! `network create`: checks, the host's side, the record; each step beside its undo.

use silo_network::{NetworkRecord, NetworkSpec};

use super::configuration;
use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::joined::network_error;
use crate::lock::lock;

/// Where a network's configuration comes from and goes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Configuration {
    /// Its own.
    #[default]
    Own,
    /// `--config-only`: it is a configuration of other networks, and nothing on the host.
    Only,
    /// `--config-from`: that of the configuration network of this name.
    From(String),
}

/// A network that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// What is said of it.
    pub spec: NetworkSpec,
    /// Where its configuration comes from.
    pub configuration: Configuration,
}

impl Engine {
    /// Makes a network.
    pub async fn create_network(&self, request: NetworkRequest) -> Result<NetworkRecord> {
        let engine = self.clone();
        blocking(move || {
            // Of two with the same name one comes second.
            let _verb = lock(&engine.inner.network_verb);
            let network = engine.create_network_blocking(&request)?;
            engine.network_event(&network, "create", None);
            Ok(network)
        })
        .await
    }

    fn create_network_blocking(&self, request: &NetworkRequest) -> Result<NetworkRecord> {
        silo_network::check_name(&request.spec.name).map_err(network_error)?;
        let name = &request.spec.name;
        if self.networks().iter().any(|n| n.name == *name) {
            return Err(EngineError::conflict(format!("network with name {name} already exists")));
        }
        let network = self.make_network(request)?;
        if let Err(e) = self.inner.db.put_durably(Table::Networks, &network.id, &network) {
            if let Err(e) = self.unmake_network(&network) {
                tracing::warn!("network {}: {e}", network.name);
            }
            return Err(e);
        }
        lock(&self.inner.book.state).list.insert(network.id.clone(), network.clone());
        Ok(network)
    }

    fn make_network(&self, request: &NetworkRequest) -> Result<NetworkRecord> {
        let (spec, config_from) = match &request.configuration {
            Configuration::Own => (&request.spec, String::new()),
            Configuration::Only => return configuration::record(&request.spec),
            Configuration::From(name) => (&self.configured(&request.spec, name)?, name.clone()),
        };
        super::bandwidth::check(&spec.options, "network option")?;
        let made = self.inner.networks.create(spec).map_err(network_error)?;
        Ok(NetworkRecord { config_from, ..made })
    }

    /// Takes away what a network has on the host.
    pub(super) fn unmake_network(&self, network: &NetworkRecord) -> Result<()> {
        match network.configuration {
            Some(_) => Ok(()),
            None => self.inner.networks.remove(network).map_err(network_error),
        }
    }
}
