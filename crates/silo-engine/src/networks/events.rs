//! Events of networks, as dockerd tells them.

use silo_network::NetworkRecord;

use crate::engine::Engine;
use crate::record::ContainerRecord;
use crate::spec::NetworkMode;

impl Engine {
    /// Tells what happened to a network, or to a container on it.
    pub(crate) fn network_event(&self, network: &NetworkRecord, action: &str, container: Option<&str>) {
        let mut attributes = std::collections::BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.to_string()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.inner.events.tell("network", action, &network.id, attributes);
    }

    /// A container's start or end is one of an endpoint on each of its networks. Another's own networks tell for
    /// themselves.
    pub(crate) fn network_events(&self, record: &ContainerRecord, action: &str) {
        if record.spec.config.network_disabled || matches!(record.spec.network, NetworkMode::Container(_)) {
            return;
        }
        for endpoint in &record.spec.networks {
            if let Ok(network) = self.network_of(endpoint) {
                self.network_event(&network, action, Some(&record.id.0));
            }
        }
    }
}
