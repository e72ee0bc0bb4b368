//! Networks: which there are, who is on them; one file a verb.
//!
//! A network's record is stored; who is on it follows from the adapters of containers that run.
//!
//! ```text
//! create → (a container starts, or is connected) enter → entered → left → remove
//! ```

mod adapters;
mod bandwidth;
mod configuration;
mod connect;
mod create;
mod down;
mod endpoint;
mod events;
mod files;
mod join;
mod list;
mod names;
mod ports;
mod remove;

use silo_network::{NetworkRecord, is_predefined};

use crate::db::Table;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::lock::lock;
use crate::network_book::no_such;
use crate::spec::NetworkEndpoint;

pub use adapters::{AdapterChange, AdapterState};
pub use bandwidth::{MAX_EGRESS, MAX_INGRESS, limit_text};
pub use configuration::OPERATORS_FIELDS;
pub use create::{Configuration, NetworkRequest};
pub use list::{NetworkUser, NetworkView};

impl Engine {
    /// All networks, by name.
    pub fn networks(&self) -> Vec<NetworkRecord> {
        self.inner.book.all()
    }

    /// By full ID, name, or unique prefix of the ID, in dockerd's words when there is none.
    pub fn find_network(&self, term: &str) -> Result<NetworkRecord> {
        let state = lock(&self.inner.book.state);
        if let Some(network) = state.list.get(term) {
            return Ok(network.clone());
        }
        let pick = |how: &str, test: &dyn Fn(&NetworkRecord) -> bool| {
            let mut found = state.list.values().filter(|n| test(n));
            let Some(first) = found.next() else { return Ok(None) };
            match found.count() {
                0 => Ok(Some(first.clone())),
                more => Err(EngineError::invalid(format!(
                    "network {term} is ambiguous ({} matches found based on {how})",
                    more + 1
                ))),
            }
        };
        if let Some(found) = pick("name", &|n| n.name == term)? {
            return Ok(found);
        }
        if !term.is_empty()
            && let Some(found) = pick("ID prefix", &|n| n.id.starts_with(term))?
        {
            return Ok(found);
        }
        // Windows' word.
        if term == "nat" || term == "default" {
            return state.list.values().find(|n| n.name == "bridge").cloned().ok_or_else(|| no_such(term));
        }
        Err(no_such(term))
    }

    /// The network of a container's endpoint: once it has been connected, that one and no other of the same name.
    pub(crate) fn network_of(&self, endpoint: &NetworkEndpoint) -> Result<NetworkRecord> {
        if endpoint.network_id.is_empty() || is_predefined(&endpoint.network) {
            self.find_network(&endpoint.network)
        } else {
            lock(&self.inner.book.state)
                .list
                .get(&endpoint.network_id)
                .cloned()
                .ok_or_else(|| no_such(&endpoint.network_id))
        }
    }

    /// Has the host take over or make again what each stored network is made of.
    pub(crate) fn restore_networks(&self) -> Result<()> {
        for network in self.inner.db.all::<NetworkRecord>(Table::Networks)? {
            if network.configuration.is_none()
                && let Err(e) = self.inner.networks.restore(&network)
            {
                tracing::error!("network {} ({}): {e}", network.name, network.id);
            }
            lock(&self.inner.book.state).list.insert(network.id.clone(), network);
        }
        Ok(())
    }
}
