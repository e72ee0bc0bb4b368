//! Which adapter has the default route, and the ports that are published on it.

use silo_network::{AdapterRecord, PublishedPort};

use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::joined::at_start;
use crate::joined::network_error;
use crate::record::{ContainerId, ContainerRecord};

/// The adapter that has the default route of a family, as dockerd chooses it: the highest priority, then the first by name;
/// one of an internal network never.
pub(crate) fn gateway<'a>(
    record: &ContainerRecord,
    adapters: &'a [AdapterRecord],
    ipv6: bool,
) -> Option<&'a AdapterRecord> {
    let priority = |adapter: &AdapterRecord| {
        record.spec.networks.iter().find(|e| e.network == adapter.network).map_or(0, |e| e.gw_priority)
    };
    let leads = |a: &&AdapterRecord| if ipv6 { a.gateway6.is_some() } else { a.gateway.is_some() };
    adapters
        .iter()
        .filter(leads)
        .min_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| a.network.cmp(&b.network)))
}

impl Engine {
    /// Publishes what the container asks for on the adapter that has the default route.
    pub(crate) async fn publish(
        &self,
        record: &ContainerRecord,
        adapters: &[AdapterRecord],
    ) -> Result<Vec<PublishedPort>> {
        let requests = crate::ports::requests(&record.spec);
        let adapter = gateway(record, adapters, false).or_else(|| gateway(record, adapters, true));
        let (Some(adapter), false) = (adapter.cloned(), requests.is_empty()) else { return Ok(Vec::new()) };
        let (engine, id) = (self.clone(), record.id.clone());
        blocking(move || {
            engine.inner.networks.publish(&id.0, &adapter, &requests).map_err(|e| at_start(network_error(e)))
        })
        .await
    }

    pub(crate) async fn unpublish(&self, id: &ContainerId) {
        let (engine, id) = (self.clone(), id.clone());
        let _ = blocking(move || {
            if let Err(e) = engine.inner.networks.unpublish(&id.0) {
                tracing::warn!("network: {e}");
            }
            Ok(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(network: &str, gateway: bool) -> AdapterRecord {
        AdapterRecord {
            network: network.to_owned(),
            gateway: gateway.then_some(std::net::Ipv4Addr::new(10, 0, 0, 1)),
            ..Default::default()
        }
    }

    #[test]
    fn the_default_route_is_the_highest_prioritys_then_the_first_by_name() {
        let record: ContainerRecord = serde_json::from_value(serde_json::json!({
            "id": "a", "name": "c", "created": "2026-01-01T00:00:00Z", "image_id": "", "os": "linux",
            "isolation": "process", "mounts": [], "id_range": 0, "state": {}, "restart_count": 0,
            "stopped_by_user": false, "published": [], "health": null,
            "spec": {"networks": [{"network": "zz", "gw_priority": 1}, {"network": "aa"}, {"network": "bb"}]},
        }))
        .unwrap();
        let all = [adapter("aa", false), adapter("bb", true), adapter("cc", true), adapter("zz", true)];
        assert_eq!(gateway(&record, &all, false).unwrap().network, "zz");
        assert_eq!(gateway(&record, &all[..3], false).unwrap().network, "bb");
        assert!(gateway(&record, &all[..1], false).is_none());
        assert!(gateway(&record, &all, true).is_none());
    }
}
