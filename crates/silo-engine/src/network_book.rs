//! The networks that there are, and who is on them, as every verb asks.

use std::collections::BTreeMap;
use std::sync::Mutex;

use silo_network::NetworkRecord;

use crate::error::{EngineError, Result};
use crate::lock::lock;

/// The networks that there are, and who is on them.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// By ID.
    pub(crate) list: BTreeMap<String, NetworkRecord>,
    /// (network, container) → endpoint; empty while it is being made.
    pub(crate) users: BTreeMap<(String, String), String>,
}

impl Book {
    /// A book of the networks that are always there, and of these.
    pub(crate) fn new(all: impl IntoIterator<Item = NetworkRecord>) -> Self {
        let list = all.into_iter().map(|n| (n.id.clone(), n)).collect();
        Self { state: Mutex::new(State { list, users: BTreeMap::new() }) }
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<NetworkRecord> {
        let mut all: Vec<_> = lock(&self.state).list.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether a network has a container with an adapter on it.
    pub(crate) fn is_used(&self, id: &str) -> bool {
        lock(&self.state).users.keys().any(|(network, _)| network == id)
    }

    /// A container is about to have an adapter on a network, which cannot be removed from now on.
    pub(crate) fn enter(&self, network: &NetworkRecord, container: &str, name: &str) -> Result<()> {
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
    pub(crate) fn left(&self, network: &str, container: &str) {
        lock(&self.state).users.remove(&(network.to_owned(), container.to_owned()));
    }
}

/// No network of that name.
pub(crate) fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("network {name} not found"))
}
