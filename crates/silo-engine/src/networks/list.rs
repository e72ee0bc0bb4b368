//! `network ls` and `inspect`: networks with who is on them.

use silo_network::NetworkRecord;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::filters::Filters;

/// A container on a network.
#[derive(Debug, Clone)]
pub struct NetworkUser {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its adapter there.
    pub adapter: silo_network::AdapterRecord,
}

/// A network as it is shown.
#[derive(Debug, Clone)]
pub struct NetworkView {
    /// The network.
    pub record: NetworkRecord,
    /// Who has an adapter on it now.
    pub users: Vec<NetworkUser>,
}

const FILTERS: &[&str] = &["driver", "id", "label", "name", "scope", "type", "dangling"];

impl Engine {
    /// Networks by name; filters of `docker network ls`.
    pub fn network_list(&self, filters: &Filters) -> Result<Vec<NetworkRecord>> {
        if let Some(unknown) = filters.unknown(FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        for kind in filters.get("type") {
            if kind != "builtin" && kind != "custom" {
                return Err(EngineError::invalid(format!("invalid filter 'type={kind}'")));
            }
        }
        let mut dangling = None;
        for value in filters.get("dangling") {
            let wanted = match value.to_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(EngineError::invalid(format!("invalid filter 'dangling=[{value}]'"))),
            };
            if dangling.is_some_and(|other| other != wanted) {
                return Err(EngineError::invalid("invalid filter 'dangling=[true false]'"));
            }
            dangling = Some(wanted);
        }
        let any = |name: &str, test: &dyn Fn(&str) -> bool| {
            filters.get(name).is_empty() || filters.get(name).iter().any(|w| test(w))
        };
        Ok(self
            .networks()
            .into_iter()
            .filter(|n| {
                any("name", &|w| n.name.contains(w))
                    && any("id", &|w| n.id.contains(w))
                    && any("driver", &|w| w == n.driver.name())
                    && any("scope", &|w| w == "local")
                    && any("type", &|w| (w == "builtin") == n.builtin)
                    && filters.labels("label", &n.labels)
                    && dangling.is_none_or(|d| d != (n.builtin || self.inner.book.is_used(&n.id)))
            })
            .collect())
    }

    /// One network with who is on it. `scope`: only one of that scope, empty: of any.
    pub fn inspect_network(&self, term: &str, scope: &str) -> Result<NetworkView> {
        if !matches!(scope, "" | "local") {
            return Err(crate::network_book::no_such(term));
        }
        let record = self.find_network(term)?;
        let mut users = Vec::new();
        for entry in self.entries() {
            entry.with(|r| {
                if r.state.status.is_running()
                    && let Some(adapter) = r.adapter_on(&record.id)
                {
                    users.push(NetworkUser {
                        id: r.id.0.clone(),
                        name: r.name.clone(),
                        adapter: adapter.clone(),
                    });
                }
            });
        }
        Ok(NetworkView { record, users })
    }
}
