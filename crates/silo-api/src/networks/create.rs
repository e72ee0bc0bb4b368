//! create: every field is honoured, has its zero value, or is refused by name.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use silo_engine::network::{Driver, NetworkSpec, PoolSpec};
use silo_engine::{Configuration, Engine, NetworkRequest, OPERATORS_FIELDS};

use crate::error::{Answer, ApiError};
use crate::params;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<ConfigFrom>,
    #[serde(rename = "EnableIPv4")]
    ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Ipam {
    driver: String,
    options: BTreeMap<String, String>,
    config: Vec<Pool>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Pool {
    subnet: String,
    #[serde(rename = "IPRange")]
    range: String,
    gateway: String,
    auxiliary_addresses: BTreeMap<String, String>,
}

fn request(create: Create) -> Answer<NetworkRequest> {
    let forbidden = |message: &str| ApiError { status: StatusCode::FORBIDDEN, message: message.to_owned() };
    let from = create.config_from.map(|from| from.network).filter(|name| !name.is_empty());
    let configuration = match (create.config_only, from) {
        (false, None) => Configuration::Own,
        (true, None) => Configuration::Only,
        (false, Some(name)) => Configuration::From(name),
        (true, Some(_)) => {
            return Err(forbidden("a configuration network cannot depend on another configuration network"));
        }
    };
    if create.config_only && (create.ingress || !create.scope.is_empty()) {
        return Err(forbidden(OPERATORS_FIELDS));
    }
    let of_swarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                    this node to swarm and try again.";
    if create.ingress || create.driver == "overlay" || matches!(create.scope.as_str(), "swarm" | "global") {
        return Err(forbidden(of_swarm));
    }
    if !matches!(create.scope.as_str(), "" | "local") {
        return Err(ApiError::bad(format!("invalid scope: {}", create.scope)));
    }
    if !matches!(create.ipam.driver.as_str(), "" | "default") {
        return Err(ApiError::bad(format!(
            "invalid ipam driver {:?}: silo has \"default\" and no others",
            create.ipam.driver
        )));
    }
    let driver = match create.driver.as_str() {
        "" | "default" => "bridge",
        // Another network's driver, which is nobody's to know yet.
        _ if create.config_only => "null",
        other => other,
    };
    let driver: Driver = driver.parse::<Driver>().map_err(|e| ApiError::not_found(e.to_string()))?;
    let some = |text: String| Some(text).filter(|t| !t.is_empty());
    let spec = NetworkSpec {
        name: create.name,
        driver,
        ipv4: create.ipv4.unwrap_or(true),
        ipv6: create.ipv6.unwrap_or(false),
        internal: create.internal,
        attachable: create.attachable,
        pools: create
            .ipam
            .config
            .into_iter()
            .map(|p| PoolSpec {
                subnet: some(p.subnet),
                range: some(p.range),
                gateway: some(p.gateway),
                auxiliary: p.auxiliary_addresses,
            })
            .collect(),
        options: create.options,
        labels: create.labels,
        ipam_options: create.ipam.options,
    };
    Ok(NetworkRequest { spec, configuration })
}

pub(crate) async fn create(State(engine): State<Engine>, body: Body) -> Answer {
    let create: Create = params::json(body).await?;
    let network = engine.create_network(request(create)?).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({"Id": network.id, "Warning": ""}))).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(body: Value, expected: Result<&dyn Fn(&NetworkSpec) -> bool, &str>) {
        let create: Create = crate::names::from_value(body.clone()).unwrap();
        match (request(create).map(|r| r.spec), expected) {
            (Ok(spec), Ok(test)) => assert!(test(&spec), "{body}: {spec:?}"),
            (Err(e), Err(text)) => assert!(e.message.contains(text), "{body}: {}", e.message),
            (Ok(_), Err(text)) => panic!("{body} should fail with {text}"),
            (Err(e), Ok(_)) => panic!("{body}: {}", e.message),
        }
    }

    #[test]
    fn requests_of_networks() {
        check(
            json!({"Name": "x"}),
            Ok(&|s| s.name == "x" && s.driver.name() == "bridge" && s.ipv4 && !s.ipv6 && s.pools.is_empty()),
        );
        check(json!({"Name": "x", "Driver": "nat"}), Ok(&|s| s.driver.name() == "bridge"));
        check(json!({"Name": "x", "EnableIPv4": false, "EnableIPv6": true}), Ok(&|s| !s.ipv4 && s.ipv6));
        check(
            json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16", "AuxiliaryAddresses": {"a": "10.1.0.5"}}]}}),
            Ok(&|s| {
                s.pools[0].subnet.as_deref() == Some("10.1.0.0/16") && s.pools[0].auxiliary["a"] == "10.1.0.5"
            }),
        );
        check(json!({"Name": "x", "Driver": "overlay"}), Err("not a swarm manager"));
        check(json!({"Name": "x", "Ingress": true}), Err("not a swarm manager"));
        check(
            json!({"Name": "x", "ConfigOnly": true, "ConfigFrom": {"Network": "y"}}),
            Err("cannot depend on another"),
        );
        check(json!({"Name": "x", "ConfigOnly": true, "Scope": "local"}), Err("can only contain"));
        check(json!({"Name": "x", "ConfigOnly": true, "Driver": "weave"}), Ok(&|s| s.name == "x"));
        check(json!({"Name": "x", "Driver": "weave"}), Err("plugin \"weave\" not found"));
        check(json!({"Name": "x", "IPAM": {"Driver": "dhcp"}}), Err("dhcp"));
    }
}
