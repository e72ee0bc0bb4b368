//! `/networks`: the built-in ones. Others come with a later version and are refused.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use silo_engine::network::NetworkRecord;
use silo_engine::{Engine, Filters};

use crate::error::{Answer, ApiError};
use crate::params::Params;

async fn show(engine: &Engine, network: &NetworkRecord, with_containers: bool) -> Answer<Value> {
    let mut containers = Map::new();
    if with_containers {
        for summary in engine.list(false, 0, false, &Filters::default()).await? {
            let record = summary.record;
            if let Some(adapter) = record.adapter.filter(|a| a.network_id == network.id) {
                containers.insert(
                    record.id.0,
                    json!({"Name": record.name, "EndpointID": adapter.endpoint_id, "MacAddress": adapter.mac,
                           "IPv4Address": adapter.ipv4.map_or(String::new(), |a| format!("{a}/{}", adapter.prefix)), "IPv6Address": ""}),
                );
            }
        }
    }
    let config: Vec<Value> = network
        .pools
        .iter()
        .map(|p| json!({"Subnet": p.subnet.to_string(), "Gateway": p.gateway.map(|g| g.to_string())}))
        .collect();
    let options = &network.options;
    Ok(json!({
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local",
        "Driver": network.driver.name(), "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": config},
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": containers, "Options": options, "Labels": {},
    }))
}

pub(crate) async fn list(State(engine): State<Engine>, query: Params) -> Answer {
    let filters = query.filters()?;
    if let Some(unknown) = filters.unknown(&["driver", "id", "label", "name", "scope", "type", "dangling"]) {
        return Err(ApiError::bad(format!("invalid filter '{unknown}'")));
    }
    let mut list = Vec::new();
    for network in engine.network().builtin() {
        let any = |name: &str, test: &dyn Fn(&str) -> bool| {
            filters.get(name).is_empty() || filters.get(name).iter().any(|w| test(w))
        };
        if any("name", &|w| network.name.contains(w))
            && any("id", &|w| network.id.starts_with(w))
            && any("driver", &|w| w == network.driver.name())
            && any("scope", &|w| w == "local")
            && any("type", &|w| w == "builtin")
            && filters.get("label").is_empty()
        {
            list.push(show(&engine, &network, false).await?);
        }
    }
    Ok(axum::Json(list).into_response())
}

pub(crate) async fn inspect(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let found = engine
        .network()
        .builtin()
        .into_iter()
        .find(|n| n.name == id || (id.len() >= 3 && n.id.starts_with(&id)));
    let network = found.ok_or_else(|| ApiError::not_found(format!("network {id} not found")))?;
    Ok(axum::Json(show(&engine, &network, true).await?).into_response())
}

pub(crate) async fn prune() -> Answer {
    Ok(axum::Json(json!({"NetworksDeleted": null})).into_response())
}

/// Verbs of networks of one's own.
pub(crate) async fn later() -> (StatusCode, axum::Json<Value>) {
    let message = "this version of silo has the networks bridge, host and none, and no others";
    (StatusCode::NOT_IMPLEMENTED, axum::Json(json!({"message": message})))
}
