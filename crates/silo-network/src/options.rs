//! A network's driver options (`-o key=value`), read once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::error::{NetworkError, Result};
use crate::record::{Bandwidth, Driver};

/// How a bridge passes packets on, per family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum GatewayMode {
    /// Containers' addresses are hidden behind the host's.
    #[default]
    Nat,
    /// As nat, but whoever can route to the container reaches all its ports.
    NatUnprotected,
    /// Containers' addresses are seen outside; published ports are open there.
    Routed,
    /// The host has no address on the bridge: only with `--internal`.
    Isolated,
}

/// What the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `com.docker.network.bridge.name`.
    pub(crate) bridge: Option<String>,
    /// `com.docker.network.bridge.enable_ip_masquerade`.
    pub(crate) masquerade: bool,
    /// `com.docker.network.bridge.enable_icc`.
    pub(crate) icc: bool,
    /// `com.docker.network.bridge.host_binding_ipv4`.
    pub(crate) host_binding: Option<IpAddr>,
    /// `com.docker.network.bridge.gateway_mode_ipv4`, `…_ipv6`.
    pub(crate) gateway_mode: [GatewayMode; 2],
    /// `com.docker.network.driver.mtu`.
    pub(crate) mtu: Option<u32>,
    /// `com.docker.network.container_iface_prefix`.
    pub(crate) prefix: String,
    /// Default of its adapters: `max-egress`, `max-ingress`.
    pub(crate) bandwidth: Bandwidth,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bridge: None,
            masquerade: true,
            icc: true,
            host_binding: None,
            gateway_mode: [GatewayMode::Nat; 2],
            mtu: None,
            prefix: "eth".to_owned(),
            bandwidth: Bandwidth::default(),
        }
    }
}

impl Options {
    /// Reads what a network of this driver was given.
    pub(crate) fn parse(_driver: Driver, given: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in given {
            match key.as_str() {
                "com.docker.network.bridge.name" => options.bridge = Some(value.clone()),
                "com.docker.network.bridge.enable_ip_masquerade" => options.masquerade = flag(key, value)?,
                "com.docker.network.bridge.enable_icc" => options.icc = flag(key, value)?,
                _ => {}
            }
        }
        Ok(options)
    }
}

fn flag(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(NetworkError::Invalid(format!("invalid value for {key}: {value}"))),
    }
}
