//! A create request's JSON → [`ContainerSpec`]: every field is honoured, has its zero value, or is refused by name.

mod body;
mod face;
mod limits;
mod mounts;
mod network;
mod policy;
mod refused;
mod security;

use serde_json::{Value, json};
use silo_engine::sandbox::Isolation;
use silo_engine::{ContainerSpec, NetworkMode};

use crate::error::{Answer, ApiError};
use crate::version::ApiVersion;

pub(crate) use body::{ConfigBody, HostConfig};
pub(crate) use limits::{check_limits, devices};
pub(crate) use network::endpoint;
pub(crate) use policy::restart_policy;
pub(crate) use refused::{refuse_unhonoured, typed};

/// A whole request in the words of an API version, nulls taken out.
pub(crate) fn create(mut value: Value, version: ApiVersion) -> Answer<ContainerSpec> {
    if !value.is_object() {
        return Err(ApiError::bad("config cannot be empty in order to create a container"));
    }
    let host_value = value.get_mut("HostConfig").map(Value::take).unwrap_or(json!({}));
    let networking = value.get_mut("NetworkingConfig").map(Value::take).unwrap_or(Value::Null);
    // docker-py puts it beside `HostConfig`.
    let runtime = value.get_mut("Runtime").map(Value::take).filter(|r| !refused::is_zero(r));
    let mut host_value = host_value;
    face::spelled(&mut host_value);
    if let (Some(runtime), Some(host)) = (runtime, host_value.as_object_mut()) {
        host.insert("Runtime".to_owned(), runtime);
    }
    refuse_unhonoured(&host_value)?;
    let face = face::face(&host_value);
    let host: HostConfig = typed(host_value)?;
    let body: ConfigBody = typed(value)?;
    check_limits(&host, false)?;
    for (name, mode, allowed) in [
        ("PidMode", &host.pid_mode, &["host"][..]),
        ("IpcMode", &host.ipc_mode, &["host", "private", "shareable", "none"]),
        ("UTSMode", &host.uts_mode, &["host"]),
        ("CgroupnsMode", &host.cgroupns_mode, &["host", "private"]),
    ] {
        let joins = mode.starts_with("container:") && matches!(name, "PidMode" | "IpcMode");
        if !(mode.is_empty() || joins || allowed.contains(&mode.as_str())) {
            return Err(ApiError::bad(format!("invalid {name}: {mode}")));
        }
    }
    let isolation = match host.isolation.as_str() {
        "" | "default" => None,
        other => Some(Isolation::parse(other).ok_or_else(|| {
            ApiError::bad(format!("invalid isolation {other:?}: there are \"process\" and \"hyperv\""))
        })?),
    };
    let network =
        if body.network_disabled { NetworkMode::None } else { network::network_mode(&host.network_mode)? };
    let mut config_body = body;
    let (image, mac) = (std::mem::take(&mut config_body.image), std::mem::take(&mut config_body.mac_address));
    let mut config = config_body.into_config();
    let networks = network::endpoints(networking, &network, mac, &host.links, version)?;
    if network == NetworkMode::Host && config.hostname.is_empty() {
        config.hostname =
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    }
    for port in host.port_bindings.keys().filter(|_| network.has_adapters()) {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        if !config.exposed_ports.contains(&port) {
            config.exposed_ports.push(port);
        }
    }
    // On networks of one's own they are the endpoint's.
    let links = match network {
        NetworkMode::Named(_) => Vec::new(),
        _ => host.links.iter().map(|l| network::link(l)).collect::<Answer<_>>()?,
    };
    let restart = restart_policy(&host.restart_policy, host.auto_remove)?;
    Ok(ContainerSpec {
        image,
        platform: String::new(),
        config,
        mounts: mounts::mounts(&host)?,
        limits: limits::limits(&host),
        security: security::security(&host)?,
        networks,
        network,
        isolation,
        storage_size: limits::storage_size(&host.storage_opt)?,
        restart,
        log: policy::log_config(&host.log_config)?,
        ports: network::ports(&host)?,
        face,
        volumes_from: host.volumes_from,
        links,
        pid_mode: host.pid_mode,
        ipc_mode: host.ipc_mode,
        uts_mode: host.uts_mode,
        cgroupns_mode: host.cgroupns_mode,
        auto_remove: host.auto_remove,
        of_build: false,
        hidden_env: Default::default(),
        init: host.init,
        publish_all_ports: host.publish_all_ports,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
        extra_hosts: host.extra_hosts,
        additional_groups: host.group_add,
        annotations: host.annotations,
        console_size: host.console_size.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
