//! Network: mode, endpoint, ports, links.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use silo_engine::{Link, NetworkEndpoint, NetworkMode, PortSpec};

use super::body::{HostConfig, PortBinding};
use super::refused::typed;
use crate::error::{Answer, ApiError};
use crate::version::ApiVersion;

/// From this version on a container may be created with several networks.
const SEVERAL_NETWORKS: ApiVersion = ApiVersion((1, 44));

pub(super) fn network_mode(text: &str) -> Answer<NetworkMode> {
    Ok(match text {
        "" | "default" | "bridge" | "nat" => NetworkMode::Bridge,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        other => match other.strip_prefix("container:") {
            Some(id) if !id.is_empty() => NetworkMode::Container(id.to_owned()),
            // As dockerd: an unknown network is found out at the start.
            _ => NetworkMode::Named(other.to_owned()),
        },
    })
}

/// What a client may say of an endpoint (`EndpointSettings`); what `inspect` answers beside it is sent back by some clients.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct EndpointBody {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<IpamBody>,
    links: Vec<String>,
    aliases: Vec<String>,
    mac_address: String,
    driver_opts: BTreeMap<String, String>,
    gw_priority: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IpamBody {
    #[serde(rename = "IPv4Address")]
    ipv4: String,
    #[serde(rename = "IPv6Address")]
    ipv6: String,
    #[serde(rename = "LinkLocalIPs")]
    link_local: Vec<String>,
}

/// One endpoint, as a create and a connect request have it.
pub(crate) fn endpoint(network: &str, settings: Value) -> Answer<NetworkEndpoint> {
    let body: EndpointBody = typed(settings)?;
    let ipam = body.ipam.is_some();
    let addresses = body.ipam.unwrap_or_default();
    for text in &body.links {
        link(text)?;
    }
    Ok(NetworkEndpoint {
        network: network.to_owned(),
        network_id: String::new(),
        mac: body.mac_address,
        ipv4: addresses.ipv4,
        ipv6: addresses.ipv6,
        link_local: addresses.link_local,
        aliases: body.aliases,
        links: body.links,
        driver_opts: body.driver_opts,
        gw_priority: body.gw_priority,
        ipam,
    })
}

/// `NetworkingConfig` beside the mode: the mode's network first. `mac`: of the whole container, as clients of before say
/// it; `links`: the host config's, which on a network of one's own are the endpoint's.
pub(super) fn endpoints(
    networking: Value,
    mode: &NetworkMode,
    mac: String,
    links: &[String],
    version: ApiVersion,
) -> Answer<Vec<NetworkEndpoint>> {
    let config: Networking = typed(networking)?;
    if version < SEVERAL_NETWORKS && config.endpoints_config.len() > 1 {
        let names: Vec<&str> = config.endpoints_config.keys().map(String::as_str).collect();
        return Err(ApiError::bad(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    let mut list = Vec::new();
    for (name, settings) in config.endpoints_config {
        // The networks that are there always have several names.
        let name = network_mode(&name)?.name().unwrap_or(name);
        list.push(endpoint(&name, settings)?);
    }
    let Some(main) = mode.name() else {
        if !mac.is_empty() {
            return Err(ApiError::bad("conflicting options: mac-address and the network mode"));
        }
        if !list.is_empty() {
            return Err(ApiError::bad(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        return Ok(list);
    };
    match list.iter().position(|e| e.network == main) {
        Some(at) => {
            let first = list.remove(at);
            list.insert(0, first);
        }
        // As dockerd: without a mode the endpoints are all there is.
        None if !list.is_empty() && *mode == NetworkMode::Bridge => {}
        None => list.insert(0, NetworkEndpoint::on(&main)),
    }
    if let Some(first) = list.first_mut() {
        if !mac.is_empty() {
            if !first.mac.is_empty() && first.mac != mac {
                return Err(ApiError::bad(
                    "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
                     or be left empty",
                ));
            }
            first.mac = mac;
        }
        if matches!(mode, NetworkMode::Named(_)) && first.links.is_empty() {
            first.links = links.to_vec();
        }
    }
    Ok(list)
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Networking {
    endpoints_config: BTreeMap<String, Value>,
}

/// `container:alias`, `container`, or (from inspect) `/container:/this/alias`.
pub(super) fn link(text: &str) -> Answer<Link> {
    let bad = || ApiError::bad(format!("bad format for links: {text}"));
    let (target, alias) = match text.split_once(':') {
        Some((target, alias)) => (target, alias.rsplit('/').next().unwrap_or(alias)),
        None => (text, text),
    };
    let target = target.trim_start_matches('/');
    if target.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(bad());
    }
    Ok(Link { target: target.to_owned(), alias: alias.to_owned() })
}

pub(super) fn ports(host: &HostConfig) -> Answer<Vec<PortSpec>> {
    let mut all = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let container_port =
            number.parse().map_err(|_| ApiError::bad(format!("invalid port specification: {port:?}")))?;
        let none = [PortBinding::default()];
        for binding in if bindings.is_empty() { &none[..] } else { bindings } {
            let bad = || ApiError::bad(format!("invalid port specification: {:?}", binding.host_port));
            let (first, last) =
                binding.host_port.split_once('-').unwrap_or((&binding.host_port, &binding.host_port));
            let parse = |t: &str| if t.is_empty() { Ok(0) } else { t.parse::<u16>().map_err(|_| bad()) };
            all.push(PortSpec {
                container_port,
                protocol: protocol.to_owned(),
                host_ip: binding.host_ip.clone(),
                host_ports: (parse(first)?, parse(last)?),
            });
        }
    }
    Ok(all)
}
