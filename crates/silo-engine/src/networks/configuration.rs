//! Configuration networks (`--config-only`) and networks with the configuration of one (`--config-from`): the engine's alone, on
//! the host nothing is made of the former. dockerd's libnetwork, `validateConfiguration` and `applyConfigurationTo`.

use silo_network::{Driver, NetworkRecord, NetworkSpec};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::joined::network_error;

/// What is said, as by dockerd, to a request for a configuration network with such a field.
pub const OPERATORS_FIELDS: &str = "configuration network can only contain network specific fields. Network operator fields like \
                                    [ ingress | internal | attachable | scope ] are not supported.";

/// The record of a configuration network; its options are looked at when they are used.
pub(super) fn record(spec: &NetworkSpec) -> Result<NetworkRecord> {
    if spec.internal || spec.attachable {
        return Err(EngineError::forbidden(OPERATORS_FIELDS));
    }
    silo_network::check_pools(&spec.pools).map_err(network_error)?;
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
    /// What a network is made of that has the configuration of another.
    pub(super) fn configured(&self, spec: &NetworkSpec, from: &str) -> Result<NetworkSpec> {
        let own = NetworkSpec {
            name: spec.name.clone(),
            driver: spec.driver,
            internal: spec.internal,
            attachable: spec.attachable,
            ..NetworkSpec::default()
        };
        if own != (NetworkSpec { options: own.options.clone(), ..spec.clone() }) {
            return Err(EngineError::forbidden(
                "user specified configurations are not supported if the network depends on a configuration network",
            ));
        }
        if !spec.options.is_empty() {
            return Err(EngineError::forbidden(
                "network driver options are not supported if the network depends on a configuration network",
            ));
        }
        let found = self.networks().into_iter().find(|n| n.name == from);
        let Some(NetworkRecord {
            configuration: Some(pools), ipv4, ipv6, options, labels, ipam_options, ..
        }) = found
        else {
            return Err(EngineError::not_found(format!("configuration network {from:?} does not exist")));
        };
        Ok(NetworkSpec { ipv4, ipv6, pools, options, labels, ipam_options, ..own })
    }

    /// Refuses to take away a configuration network that others were made with.
    pub(super) fn refuse_configuration_in_use(&self, network: &NetworkRecord) -> Result<()> {
        let used = |n: &NetworkRecord| network.configuration.is_some() && n.config_from == network.name;
        if self.networks().iter().any(used) {
            return Err(EngineError::forbidden(format!(
                "error while removing network: configuration network {:?} is in use",
                network.name
            )));
        }
        Ok(())
    }
}
