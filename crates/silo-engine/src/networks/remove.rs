//! `network rm` and `network prune`.

use silo_network::NetworkRecord;

use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::lock::lock;

impl Engine {
    /// Removes a network that no running container is on.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let network = self.find_network(name)?;
        if network.builtin {
            return Err(EngineError::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        let engine = self.clone();
        blocking(move || {
            let _verb = lock(&engine.inner.network_verb);
            engine.strike_out(&network)?;
            // As dockerd, which tells of the making of both.
            if network.configuration.is_none() {
                engine.network_event(&network, "destroy", None);
            }
            Ok(())
        })
        .await
    }

    fn strike_out(&self, network: &NetworkRecord) -> Result<()> {
        self.refuse_configuration_in_use(network)?;
        {
            // Nobody enters it from here on.
            let mut state = lock(&self.inner.book.state);
            let users = state.users.iter().filter(|((id, _), _)| *id == network.id);
            let active: Vec<String> = users
                .map(|((_, container), endpoint)| {
                    let name = self
                        .find(container)
                        .map_or_else(|_| container.clone(), |e| e.with(|r| r.name.clone()));
                    let short: String = endpoint.chars().take(12).collect();
                    format!("name:{name:?} id:{short:?}")
                })
                .collect();
            if !active.is_empty() {
                return Err(EngineError::forbidden(format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    active.join(", ")
                )));
            }
            if state.list.remove(&network.id).is_none() {
                return Err(crate::network_book::no_such(&network.id));
            }
        }
        self.finish_leaving_network(&network.id);
        // What a crash leaves between the two is a network of the host's that the next start takes away.
        let removed = self.inner.db.delete(Table::Networks, &network.id).and_then(|()| {
            self.unmake_network(network).map_err(|e| EngineError {
                message: format!("error while removing network: {}", e.message),
                ..e
            })
        });
        if let Err(e) = removed {
            // It is there as long as something of it is.
            let _ = self.inner.db.put(Table::Networks, &network.id, network);
            lock(&self.inner.book.state).list.insert(network.id.clone(), network.clone());
            return Err(e);
        }
        Ok(())
    }

    /// Removes networks that no running container is on; returns their names.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        if let Some(unknown) = filters.unknown(&["until", "label", "label!"]) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let until = crate::time::until(filters)?;
        let mut removed = Vec::new();
        for network in self.networks() {
            let created: Option<jiff::Timestamp> = network.created.parse().ok();
            let unwanted = filters.has("label!") && filters.labels("label!", &network.labels);
            if network.builtin
                || network.configuration.is_some()
                || self.inner.book.is_used(&network.id)
                || unwanted
                || !filters.labels("label", &network.labels)
                || until.is_some_and(|u| created.is_some_and(|c| c >= u))
            {
                continue;
            }
            match self.remove_network(&network.id).await {
                Ok(()) => removed.push(network.name),
                // Somebody was quicker.
                Err(e) => tracing::info!("network {} is not pruned: {e}", network.name),
            }
        }
        self.inner.events.tell("network", "prune", "", [("reclaimed".to_owned(), "0".to_owned())].into());
        Ok(removed)
    }
}
