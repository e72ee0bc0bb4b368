//! list, inspect.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Map, Value, json};
use silo_engine::network::{AdapterRecord, NetworkRecord};
use silo_engine::{Engine, NetworkView};

use crate::error::Answer;
use crate::params::Params;

fn pool(
    subnet: impl ToString,
    range: Option<impl ToString>,
    gateway: Option<impl ToString>,
    auxiliary: &BTreeMap<String, impl Serialize>,
) -> Value {
    let mut out = json!({"Subnet": subnet.to_string()});
    if let Some(range) = range {
        out["IPRange"] = range.to_string().into();
    }
    if let Some(gateway) = gateway {
        out["Gateway"] = gateway.to_string().into();
    }
    if !auxiliary.is_empty() {
        out["AuxiliaryAddresses"] = json!(auxiliary);
    }
    out
}

fn show(network: &NetworkRecord, containers: Map<String, Value>) -> Value {
    let config: Vec<Value> = match &network.configuration {
        None => {
            let pools = network.pools.iter();
            pools.map(|p| pool(p.subnet, p.range, p.gateway, &p.auxiliary)).collect()
        }
        Some(given) => given
            .iter()
            .map(|p| {
                let subnet = p.subnet.as_deref().unwrap_or_default();
                pool(subnet, p.range.as_deref(), p.gateway.as_deref(), &p.auxiliary)
            })
            .collect(),
    };
    let options = Some(&network.ipam_options).filter(|o| !o.is_empty());
    json!({
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local",
        "Driver": network.driver.name(), "EnableIPv4": network.ipv4, "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": options, "Config": config},
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": false,
        "ConfigFrom": {"Network": network.config_from}, "ConfigOnly": network.configuration.is_some(),
        "Containers": containers, "Options": network.options, "Labels": network.labels,
    })
}

/// An address with its prefix, as networks show their containers'; empty without one.
fn with_prefix(address: Option<impl std::fmt::Display>, prefix: u8) -> String {
    address.map_or(String::new(), |a| format!("{a}/{prefix}"))
}

fn user(name: &str, adapter: &AdapterRecord) -> Value {
    json!({
        "Name": name, "EndpointID": adapter.endpoint_id, "MacAddress": adapter.mac,
        "IPv4Address": with_prefix(adapter.ipv4, adapter.prefix),
        "IPv6Address": with_prefix(adapter.ipv6, adapter.prefix6),
    })
}

pub(crate) async fn list(State(engine): State<Engine>, query: Params) -> Answer {
    let found = engine.network_list(&query.filters()?)?;
    let rows: Vec<Value> = found.iter().map(|n| show(n, Map::new())).collect();
    Ok(axum::Json(rows).into_response())
}

pub(crate) async fn inspect(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let NetworkView { record, users } =
        engine.inspect_network(&id, query.get("scope").unwrap_or_default())?;
    let containers = users.iter().map(|u| (u.id.clone(), user(&u.name, &u.adapter))).collect();
    let mut out = show(&record, containers);
    if query.flag("verbose") {
        // Of a swarm's networks there is more.
        out["Services"] = json!({});
    }
    Ok(axum::Json(out).into_response())
}
