//! list, inspect.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use silo_engine::network::{AdapterRecord, NetworkRecord};
use silo_engine::{Engine, NetworkView};

use crate::error::Answer;
use crate::params::Params;

fn show(network: &NetworkRecord, containers: Map<String, Value>) -> Value {
    let config: Vec<Value> = network
        .pools
        .iter()
        .map(|pool| {
            let mut out = json!({"Subnet": pool.subnet.to_string()});
            if let Some(range) = &pool.range {
                out["IPRange"] = range.to_string().into();
            }
            if let Some(gateway) = &pool.gateway {
                out["Gateway"] = gateway.to_string().into();
            }
            if !pool.auxiliary.is_empty() {
                out["AuxiliaryAddresses"] = json!(pool.auxiliary);
            }
            out
        })
        .collect();
    json!({
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local",
        "Driver": network.driver.name(), "EnableIPv4": network.ipv4, "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Options": null, "Config": config},
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": false,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
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
