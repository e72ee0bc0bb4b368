//! A network's driver options (`-o key=value`), read once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::bandwidth::parse_rate;
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

/// How adapters of a macvlan reach each other (`IFLA_MACVLAN_MODE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MacvlanMode {
    /// Not at all.
    Private,
    /// By a switch that sends frames back.
    Vepa,
    /// Directly.
    #[default]
    Bridge,
    /// There is only one, which has the parent's hardware address.
    Passthru,
}

/// How an ipvlan treats packets (`IFLA_IPVLAN_MODE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum IpvlanMode {
    /// As a switch.
    #[default]
    L2,
    /// As a router.
    L3,
    /// As a router that the host's connection tracking sees.
    L3S,
}

/// Which packets an ipvlan's adapters send each other (`IFLA_IPVLAN_FLAGS`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum IpvlanFlag {
    /// Directly.
    #[default]
    Bridge,
    /// None.
    Private,
    /// By a switch that sends frames back.
    Vepa,
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
    /// `com.docker.network.bridge.inhibit_ipv4`: the host has no IPv4 address on the bridge.
    pub(crate) inhibit_ipv4: bool,
    /// `com.docker.network.bridge.host_binding_ipv4`.
    pub(crate) host_binding: Option<IpAddr>,
    /// `com.docker.network.bridge.gateway_mode_ipv4`, `…_ipv6`.
    pub(crate) gateway_mode: [GatewayMode; 2],
    /// `com.docker.network.driver.mtu`.
    pub(crate) mtu: Option<u32>,
    /// `com.docker.network.container_iface_prefix`.
    pub(crate) prefix: String,
    /// `parent`, of macvlan and ipvlan.
    pub(crate) parent: Option<String>,
    /// `macvlan_mode`.
    pub(crate) macvlan: MacvlanMode,
    /// `ipvlan_mode`.
    pub(crate) ipvlan: IpvlanMode,
    /// `ipvlan_flag`.
    pub(crate) ipvlan_flag: IpvlanFlag,
    /// `silo.guard`: whether its adapters send what is their own alone.
    pub(crate) guard: bool,
    /// `silo.max-egress`, `silo.max-ingress`: of its adapters that have no limit of their own.
    pub(crate) bandwidth: Bandwidth,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bridge: None,
            masquerade: true,
            icc: true,
            inhibit_ipv4: false,
            host_binding: None,
            gateway_mode: [GatewayMode::Nat; 2],
            mtu: None,
            prefix: "eth".to_owned(),
            parent: None,
            macvlan: MacvlanMode::Bridge,
            ipvlan: IpvlanMode::L2,
            ipvlan_flag: IpvlanFlag::Bridge,
            guard: true,
            bandwidth: Bandwidth::default(),
        }
    }
}

impl Options {
    /// Reads what a network of this driver was given. As dockerd, a driver ignores options that it does not know (they may
    /// be another driver's) but those that dockerd honours and this does not are refused.
    pub(crate) fn parse(driver: Driver, given: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in given {
            options.common(key, value)?;
            match driver {
                Driver::Bridge => options.bridge(key, value)?,
                Driver::Macvlan | Driver::Ipvlan => options.parented(driver, key, value)?,
                Driver::Host | Driver::Null => {}
            }
        }
        // What keeps those apart is that each has its own hardware address.
        if !options.guard && !options.icc {
            return Err(NetworkError::Invalid(
                "silo.guard=false and com.docker.network.bridge.enable_icc=false exclude each other".into(),
            ));
        }
        Ok(options)
    }

    fn common(&mut self, key: &str, value: &str) -> Result<()> {
        let rate = || parse_rate(value).map(Some).ok_or_else(|| failed(key, value, "no rate, as 100Mbps"));
        match key {
            "com.docker.network.driver.mtu" => {
                let mtu: i64 = value.parse().map_err(|_| {
                    failed(key, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
                })?;
                // 68 is IPv4's least; 0 is dockerd's for "not said".
                self.mtu = match mtu {
                    0 => None,
                    68..=65535 => u32::try_from(mtu).ok(),
                    _ => return Err(NetworkError::Invalid(format!("invalid MTU number: {mtu}"))),
                };
            }
            "com.docker.network.container_iface_prefix" => {
                if !interface_name(&format!("{value}0")) {
                    return Err(failed(key, value, "no prefix of an interface's name"));
                }
                self.prefix = value.to_owned();
            }
            "silo.max-egress" => self.bandwidth.egress = rate()?,
            "silo.max-ingress" => self.bandwidth.ingress = rate()?,
            _ => {}
        }
        Ok(())
    }

    fn bridge(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "com.docker.network.bridge.name" => {
                if !interface_name(value) {
                    return Err(NetworkError::BridgeName(value.to_owned()));
                }
                self.bridge = Some(value.to_owned());
            }
            "com.docker.network.bridge.enable_ip_masquerade" => self.masquerade = flag(key, value)?,
            "com.docker.network.bridge.enable_icc" => self.icc = flag(key, value)?,
            "silo.guard" => self.guard = flag(key, value)?,
            "com.docker.network.bridge.inhibit_ipv4" => self.inhibit_ipv4 = flag(key, value)?,
            "com.docker.network.bridge.host_binding_ipv4" => {
                self.host_binding = Some(value.parse().map_err(|_| failed(key, value, "nil ip"))?);
            }
            "com.docker.network.bridge.gateway_mode_ipv4" => self.gateway_mode[0] = gateway_mode(key, value)?,
            "com.docker.network.bridge.gateway_mode_ipv6" => self.gateway_mode[1] = gateway_mode(key, value)?,
            "com.docker.network.bridge.trusted_host_interfaces"
            | "com.docker.network.host_ipv4"
            | "com.docker.network.host_ipv6" => {
                return Err(NetworkError::Invalid(format!("option {key} is not supported")));
            }
            _ => {}
        }
        Ok(())
    }

    fn parented(&mut self, driver: Driver, key: &str, value: &str) -> Result<()> {
        let bad = |reason: String| Err(NetworkError::Invalid(reason));
        match (driver, key) {
            (_, "parent") if value == "lo" => {
                return bad(format!("loopback interface is not a valid {driver} parent link"));
            }
            (_, "parent") if value.is_empty() => {}
            (_, "parent") => self.parent = Some(value.to_owned()),
            (Driver::Macvlan, "macvlan_mode") => {
                self.macvlan = match value {
                    "" | "bridge" => MacvlanMode::Bridge,
                    "private" => MacvlanMode::Private,
                    "vepa" => MacvlanMode::Vepa,
                    "passthru" => MacvlanMode::Passthru,
                    _ => {
                        return bad(format!(
                            "requested macvlan mode '{value}' is not valid, 'bridge' mode is the macvlan driver default"
                        ));
                    }
                }
            }
            (Driver::Ipvlan, "ipvlan_mode") => {
                self.ipvlan = match value {
                    "" | "l2" => IpvlanMode::L2,
                    "l3" => IpvlanMode::L3,
                    "l3s" => IpvlanMode::L3S,
                    _ => {
                        return bad(format!(
                            "requested ipvlan mode '{value}' is not valid, 'l2' mode is the ipvlan driver default"
                        ));
                    }
                }
            }
            (Driver::Ipvlan, "ipvlan_flag") => {
                self.ipvlan_flag = match value {
                    "" | "bridge" => IpvlanFlag::Bridge,
                    "private" => IpvlanFlag::Private,
                    "vepa" => IpvlanFlag::Vepa,
                    _ => {
                        return bad(format!(
                            "requested ipvlan flag '{value}' is not valid, 'bridge' flag is the ipvlan driver default"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the kernel takes it for an interface.
pub(crate) fn interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

fn failed(key: &str, value: &str, reason: &str) -> NetworkError {
    NetworkError::Invalid(format!("failed to parse {key} value: {value} ({reason})"))
}

fn flag(key: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(failed(key, value, &format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))),
    }
}

fn gateway_mode(key: &str, value: &str) -> Result<GatewayMode> {
    match value {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(failed(key, value, &format!("unknown gateway mode {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: Driver, key: &str, value: &str) -> Result<Options> {
        Options::parse(driver, &[(key.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn options_are_read_and_checked() {
        let icc = parse(Driver::Bridge, "com.docker.network.bridge.enable_icc", "false").unwrap();
        assert!(!icc.icc);
        let mtu = parse(Driver::Macvlan, "com.docker.network.driver.mtu", "1400").unwrap();
        assert_eq!(mtu.mtu, Some(1400));
        for (driver, key, value, words) in [
            (Driver::Bridge, "com.docker.network.bridge.enable_icc", "ja", "failed to parse com.docker"),
            (Driver::Bridge, "com.docker.network.driver.mtu", "-1", "invalid MTU number: -1"),
            (Driver::Bridge, "com.docker.network.bridge.host_binding_ipv4", "x", "(nil ip)"),
            (Driver::Bridge, "com.docker.network.bridge.gateway_mode_ipv4", "x", "unknown gateway mode x"),
            (Driver::Bridge, "com.docker.network.bridge.name", "way-too-long-a-name", "way-too-long"),
            (Driver::Bridge, "com.docker.network.host_ipv4", "10.0.0.1", "host_ipv4 is not supported"),
            (Driver::Macvlan, "parent", "lo", "loopback interface is not a valid macvlan parent link"),
            (Driver::Macvlan, "macvlan_mode", "x", "requested macvlan mode 'x' is not valid"),
            (Driver::Ipvlan, "ipvlan_mode", "l4", "requested ipvlan mode 'l4' is not valid"),
            (Driver::Bridge, "silo.max-egress", "fast", "no rate"),
            (Driver::Bridge, "silo.guard", "off", "failed to parse silo.guard value: off"),
        ] {
            let error = parse(driver, key, value).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn who_is_trusted_is_not_kept_apart() {
        let both = [("silo.guard", "false"), ("com.docker.network.bridge.enable_icc", "false")];
        let both = both.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert!(
            Options::parse(Driver::Bridge, &both).unwrap_err().to_string().contains("exclude each other")
        );
        assert!(!parse(Driver::Bridge, "silo.guard", "false").unwrap().guard);
    }

    #[test]
    fn options_of_other_drivers_are_ignored_as_by_dockerd() {
        assert_eq!(parse(Driver::Bridge, "parent", "lo").unwrap(), Options::default());
        assert_eq!(parse(Driver::Bridge, "foo", "bar").unwrap(), Options::default());
    }
}
