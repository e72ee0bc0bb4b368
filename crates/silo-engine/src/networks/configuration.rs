//! Networks whose settings others are made with (`--config-only`, `--config-from`): the engine's alone, on the host nothing is
//! made of them.

use silo_network::{Driver, NetworkRecord, NetworkSpec};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids::random_id;

/// The record of a network that lends its settings, which are looked at when they are used.
pub(super) fn record(spec: &NetworkSpec) -> Result<NetworkRecord> {
    if spec.internal || spec.attachable {
        return Err(EngineError::forbidden(
            "configuration network can only contain network specific fields. Network operator fields like \
             [ ingress | internal | attachable | scope ] are not supported.",
        ));
    }
    Ok(NetworkRecord {
        id: random_id(),
        name: spec.name.clone(),
        driver: Driver::Null,
        ipv4: spec.ipv4,
        ipv6: spec.ipv6,
        options: spec.options.clone(),
        labels: spec.labels.clone(),
        ipam_options: spec.ipam_options.clone(),
        created: jiff::Timestamp::now().to_string(),
        configuration: Some(spec.pools.clone()),
        ..NetworkRecord::default()
    })
}

impl Engine {
    /// What a network is made of that has another's settings.
    pub(super) fn borrowed(&self, spec: &NetworkSpec, lender: &str) -> Result<NetworkSpec> {
        let own = NetworkSpec {
            name: spec.name.clone(),
            driver: spec.driver,
            internal: spec.internal,
            attachable: spec.attachable,
            ..NetworkSpec::default()
        };
        if own != *spec {
            return Err(EngineError::forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        let lenders = self.networks();
        let found =
            lenders.iter().find_map(|n| Some((n, n.configuration.as_ref().filter(|_| n.name == lender)?)));
        let (network, pools) = found.ok_or_else(|| {
            EngineError::not_found(format!("configuration network {lender:?} does not exist"))
        })?;
        Ok(NetworkSpec {
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            pools: pools.clone(),
            options: network.options.clone(),
            labels: network.labels.clone(),
            ipam_options: network.ipam_options.clone(),
            ..own
        })
    }

    /// Refuses to take away a network whose settings another one has.
    pub(super) fn refuse_if_lent(&self, network: &NetworkRecord) -> Result<()> {
        let lent = |n: &NetworkRecord| network.configuration.is_some() && n.config_from == network.name;
        if self.networks().iter().any(lent) {
            return Err(EngineError::forbidden(format!(
                "configuration network {:?} is in use",
                network.name
            )));
        }
        Ok(())
    }
}
