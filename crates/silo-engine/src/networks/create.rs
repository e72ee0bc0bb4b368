//! `network create`: checks, the host's side, the record; each step beside its undo.

use silo_network::{Driver, NetworkRecord, NetworkSpec};

use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::joined::network_error;
use crate::lock::lock;
use crate::network_book::is_predefined;

impl Engine {
    /// Makes a network.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkRecord> {
        let engine = self.clone();
        blocking(move || {
            // Of two with the same name one comes second.
            let _verb = lock(&engine.inner.network_verb);
            let network = engine.create_network_blocking(&spec)?;
            engine.network_event(&network, "create", None);
            Ok(network)
        })
        .await
    }

    fn create_network_blocking(&self, spec: &NetworkSpec) -> Result<NetworkRecord> {
        if spec.name.trim().is_empty() {
            return Err(EngineError::invalid("invalid name: name is empty"));
        }
        if is_predefined(&spec.name) {
            return Err(EngineError::forbidden(format!(
                "operation is not permitted on predefined {} network",
                spec.name
            )));
        }
        if matches!(spec.driver, Driver::Host | Driver::Null) {
            return Err(EngineError::forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                spec.driver
            )));
        }
        if self.networks().iter().any(|n| n.name == spec.name) {
            return Err(EngineError::conflict(format!("network with name {} already exists", spec.name)));
        }
        super::bandwidth::check(&spec.options, "network option")?;
        let network = self.inner.networks.create(spec).map_err(network_error)?;
        if let Err(e) = self.inner.db.put_durably(Table::Networks, &network.id, &network) {
            if let Err(e) = self.inner.networks.remove(&network) {
                tracing::warn!("network {}: {e}", network.name);
            }
            return Err(e);
        }
        lock(&self.inner.book.state).list.insert(network.id.clone(), network.clone());
        Ok(network)
    }
}
