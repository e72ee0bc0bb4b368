//! Network: mode, endpoint, ports, links.

use serde_json::Value;
use silo_engine::{EndpointSpec, Link, NetworkMode, PortSpec};

use super::body::{HostConfig, PortBinding};
use super::refused::is_zero;
use crate::error::{Answer, ApiError};

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

pub(super) fn endpoint(value: &Value, mode: &NetworkMode, mac: String) -> Answer<EndpointSpec> {
    let mut endpoint = EndpointSpec { mac, ..Default::default() };
    for (name, settings) in value.get("EndpointsConfig").and_then(Value::as_object).into_iter().flatten() {
        if network_mode(name)? != *mode {
            return Err(ApiError::bad(format!(
                "NetworkingConfig.EndpointsConfig: a container has one network, {name:?} is a second"
            )));
        }
        if settings.get("Aliases").is_some_and(|v| !is_zero(v)) {
            return Err(ApiError::bad(
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            ));
        }
        for field in
            ["Links", "DriverOpts", "GwPriority", "IPAMConfig/IPv6Address", "IPAMConfig/LinkLocalIPs"]
        {
            if settings.pointer(&format!("/{field}")).is_some_and(|v| !is_zero(v)) {
                return Err(ApiError::bad(format!(
                    "NetworkingConfig.EndpointsConfig.{name}.{field} is not supported by this version of silo"
                )));
            }
        }
        if let Some(mac) = settings.get("MacAddress").and_then(Value::as_str).filter(|m| !m.is_empty()) {
            mac.clone_into(&mut endpoint.mac);
        }
        if let Some(ip) = settings.pointer("/IPAMConfig/IPv4Address").and_then(Value::as_str) {
            ip.clone_into(&mut endpoint.ipv4);
        }
    }
    Ok(endpoint)
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
