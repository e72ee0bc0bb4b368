//! Networks: which there are, who is on them; one file a verb.
//!
//! A network's record is stored; who is on it follows from the adapters of containers that run.
//!
//! ```text
//! create → (a container starts, or is connected) enter → entered → left → remove
//! ```

mod adapters;
mod bandwidth;
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

use std::collections::BTreeMap;
use std::sync::Mutex;

use silo_network::{ErrorKind, NetworkError, NetworkRecord};

use crate::db::Table;
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};
use crate::lock::lock;
use crate::spec::NetworkEndpoint;

pub use adapters::{AdapterChange, AdapterState};
pub use bandwidth::{MAX_EGRESS, MAX_INGRESS, limit_text};
pub use list::{NetworkUser, NetworkView};

pub(crate) use join::Joined;
pub(crate) use ports::gateway;

/// The networks that there are, and who is on them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By ID.
    list: BTreeMap<String, NetworkRecord>,
    /// (network, container) → endpoint; empty while it is being made.
    users: BTreeMap<(String, String), String>,
}

impl Book {
    /// A book of the networks that are always there, and of these.
    pub(crate) fn new(all: impl IntoIterator<Item = NetworkRecord>) -> Self {
        let list = all.into_iter().map(|n| (n.id.clone(), n)).collect();
        Self { state: Mutex::new(State { list, users: BTreeMap::new() }) }
    }

    /// All of them, by name.
    fn all(&self) -> Vec<NetworkRecord> {
        let mut all: Vec<_> = lock(&self.state).list.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether a network has a container with an adapter on it.
    fn is_used(&self, id: &str) -> bool {
        lock(&self.state).users.keys().any(|(network, _)| network == id)
    }

    /// A container is about to have an adapter on a network, which cannot be removed from now on.
    fn enter(&self, network: &NetworkRecord, container: &str, name: &str) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.list.contains_key(&network.id) {
            return Err(no_such(&network.id));
        }
        let key = (network.id.clone(), container.to_owned());
        if state.users.contains_key(&key) {
            return Err(EngineError::forbidden(format!(
                "endpoint with name {name} already exists in network {}",
                network.name
            )));
        }
        state.users.insert(key, String::new());
        Ok(())
    }

    /// It has it.
    pub(crate) fn entered(&self, network: &str, container: &str, endpoint: &str) {
        lock(&self.state).users.insert((network.to_owned(), container.to_owned()), endpoint.to_owned());
    }

    /// It has none any more.
    fn left(&self, network: &str, container: &str) {
        lock(&self.state).users.remove(&(network.to_owned(), container.to_owned()));
    }
}

/// No network of that name.
fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("network {name} not found"))
}

/// A refusal of the networks' own, in the engine's classes.
pub(crate) fn network_error(error: NetworkError) -> EngineError {
    let kind = match error.kind() {
        ErrorKind::Invalid => Kind::Invalid,
        ErrorKind::Forbidden => Kind::Forbidden,
        ErrorKind::Conflict => Kind::Conflict,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Internal => Kind::Internal,
    };
    EngineError { kind, message: error.to_string() }
}

/// What a start says before why it could not have its networks, as dockerd does.
pub(crate) fn at_start(error: EngineError) -> EngineError {
    EngineError { message: format!("failed to set up container networking: {}", error.message), ..error }
}

/// Whether a name is one that no network of a user's own can have.
fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default" | "nat")
}

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
            if let Err(e) = self.inner.networks.restore(&network) {
                tracing::error!("network {} ({}): {e}", network.name, network.id);
            }
            lock(&self.inner.book.state).list.insert(network.id.clone(), network);
        }
        Ok(())
    }
}
