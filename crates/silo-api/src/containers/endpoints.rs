//! A container's endpoints in dockerd's shape, for inspect and `ps`.

use serde_json::{Map, Value, json};
use silo_engine::{ContainerRecord, NetworkEndpoint};

use super::adapters::limits;
use crate::version::ApiVersion;

/// Before this version the names that a container has anyway were among its aliases.
const NAMES_APART: ApiVersion = ApiVersion((1, 45));

fn ipam(endpoint: &NetworkEndpoint) -> Value {
    let mut out = Map::new();
    for (name, text) in [("IPv4Address", &endpoint.ipv4), ("IPv6Address", &endpoint.ipv6)] {
        if !text.is_empty() {
            out.insert(name.to_owned(), text.clone().into());
        }
    }
    if !endpoint.link_local.is_empty() {
        out.insert("LinkLocalIPs".to_owned(), json!(endpoint.link_local));
    }
    if out.is_empty() && !endpoint.ipam { Value::Null } else { out.into() }
}

fn or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// `NetworkSettings.Networks`, also of a container that does not run.
pub(crate) fn networks(record: &ContainerRecord, version: ApiVersion) -> Value {
    let mut all = Map::new();
    for endpoint in &record.spec.networks {
        let adapter = record.adapter_of(endpoint);
        let names = record.dns_names(endpoint);
        let mut aliases = endpoint.aliases.clone();
        if version < NAMES_APART && !names.is_empty() {
            for own in [record.id.short(), &record.spec.config.hostname] {
                if !own.is_empty() && !aliases.iter().any(|a| a == own) {
                    aliases.push(own.to_owned());
                }
            }
        }
        let text = |address: Option<String>| address.unwrap_or_default();
        let mut out = json!({
            "IPAMConfig": ipam(endpoint), "Links": or_null(&endpoint.links), "Aliases": or_null(&aliases),
            "MacAddress": adapter.map_or(&endpoint.mac, |a| &a.mac),
            "DriverOpts": if endpoint.driver_opts.is_empty() { Value::Null } else { json!(endpoint.driver_opts) },
            "GwPriority": endpoint.gw_priority,
            "NetworkID": adapter.map_or(&endpoint.network_id, |a| &a.network_id),
            "EndpointID": adapter.map_or("", |a| &a.endpoint_id),
            "Gateway": text(adapter.and_then(|a| a.gateway).map(|g| g.to_string())),
            "IPAddress": text(adapter.and_then(|a| a.ipv4).map(|ip| ip.to_string())),
            "IPPrefixLen": adapter.map_or(0, |a| a.prefix),
            "IPv6Gateway": text(adapter.and_then(|a| a.gateway6).map(|g| g.to_string())),
            "GlobalIPv6Address": text(adapter.and_then(|a| a.ipv6).map(|ip| ip.to_string())),
            "GlobalIPv6PrefixLen": adapter.map_or(0, |a| a.prefix6), "DNSNames": or_null(&names),
        });
        if let Some(adapter) = adapter.filter(|a| !a.limits.is_unlimited()) {
            out["Bandwidth"] = limits(&adapter.limits);
        }
        all.insert(endpoint.network.clone(), out);
    }
    all.into()
}
