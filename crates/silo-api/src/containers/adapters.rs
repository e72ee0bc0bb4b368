//! `/silo/containers/{id}/adapters`: what `silo adapter` shows and sets.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use silo_engine::network::Bandwidth;
use silo_engine::{AdapterChange, AdapterState, Engine, MAX_EGRESS, MAX_INGRESS, NetworkEndpoint};

use crate::error::{Answer, ApiError};
use crate::params;

/// Limits in bits a second; 0: none.
pub(crate) fn limits(limits: &Bandwidth) -> Value {
    json!({"MaxEgress": limits.egress.unwrap_or(0), "MaxIngress": limits.ingress.unwrap_or(0)})
}

fn show(state: &AdapterState) -> Value {
    let adapter = state.adapter.as_ref();
    let c = &state.counters;
    json!({
        "Name": adapter.map_or("", |a| &a.interface), "Network": state.endpoint.network,
        "NetworkID": adapter.map_or(&state.endpoint.network_id, |a| &a.network_id),
        "EndpointID": adapter.map_or("", |a| &a.endpoint_id), "State": if adapter.is_some() { "up" } else { "down" },
        "MacAddress": adapter.map_or(&state.endpoint.mac, |a| &a.mac),
        "Addresses": adapter.map(|a| a.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_or_default(),
        "Bandwidth": limits(&state.limits),
        "Counters": {
            "RxBytes": c.rx_bytes, "RxPackets": c.rx_packets, "RxErrors": c.rx_errors, "RxDropped": c.rx_dropped,
            "TxBytes": c.tx_bytes, "TxPackets": c.tx_packets, "TxErrors": c.tx_errors, "TxDropped": c.tx_dropped,
        },
    })
}

pub(crate) async fn list(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let list: Vec<Value> = engine.adapters(&id).await?.iter().map(show).collect();
    Ok(axum::Json(list).into_response())
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Request {
    network: String,
    adapter: String,
    max_egress: Option<String>,
    max_ingress: Option<String>,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4: String,
    #[serde(rename = "IPv6Address")]
    ipv6: String,
}

pub(crate) async fn add(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let request: Request = params::json(body).await?;
    if request.network.is_empty() {
        return Err(ApiError::bad("Network must not be empty"));
    }
    let mut endpoint = NetworkEndpoint::on(&request.network);
    endpoint.ipam = !request.ipv4.is_empty() || !request.ipv6.is_empty();
    (endpoint.mac, endpoint.ipv4, endpoint.ipv6) = (request.mac_address, request.ipv4, request.ipv6);
    for (text, key) in [(request.max_egress, MAX_EGRESS), (request.max_ingress, MAX_INGRESS)] {
        if let Some(text) = text {
            endpoint.driver_opts.insert(key.to_owned(), text);
        }
    }
    engine.connect(&request.network, &id, endpoint).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn set(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let request: Request = params::json(body).await?;
    if request.max_egress.is_none() && request.max_ingress.is_none() {
        return Err(ApiError::bad("neither MaxEgress nor MaxIngress was given"));
    }
    let change = AdapterChange { max_egress: request.max_egress, max_ingress: request.max_ingress };
    engine.set_adapter(&id, &request.adapter, change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn remove(
    State(engine): State<Engine>,
    Path((id, network)): Path<(String, String)>,
) -> Answer {
    let network = engine.adapter_network(&id, &network)?;
    engine.disconnect(&network, &id, false).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
