//! Settings of the daemon's networks: the default bridge, and what others are made from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Args;
use serde::Deserialize;
use silo_engine::network::{IpSubnet, NetworkConfig};

/// How networks are to be.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct NetworkArguments {
    /// Where subnets that nobody names come from, such as base=10.10.0.0/16,size=24; may be repeated [dockerd's pools]
    #[arg(long = "default-address-pool")]
    default_address_pools: Vec<String>,
    /// Give the default network IPv6 addresses, too
    #[arg(long)]
    ipv6: bool,
    /// IPv6 subnet of the default network, such as fd00:1::/64 [one of its own with --ipv6]
    #[arg(long)]
    fixed_cidr_v6: Option<String>,
    /// Whether containers of the default network reach each other [true]
    #[arg(long)]
    icc: Option<bool>,
    /// Largest packet on the default network, in bytes [1500]
    #[arg(long)]
    mtu: Option<u32>,
    /// Address that ports are published on when none is said [all]
    #[arg(long)]
    ip: Option<IpAddr>,
}

impl NetworkArguments {
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            default_address_pools: if self.default_address_pools.is_empty() {
                file.default_address_pools
            } else {
                self.default_address_pools
            },
            ipv6: self.ipv6 || file.ipv6,
            fixed_cidr_v6: self.fixed_cidr_v6.or(file.fixed_cidr_v6),
            icc: self.icc.or(file.icc),
            mtu: self.mtu.or(file.mtu),
            ip: self.ip.or(file.ip),
        }
    }

    pub(crate) fn settings(self, bridge: String, subnet: Option<String>) -> Result<NetworkConfig, String> {
        if let Some(mtu) = self.mtu.filter(|m| !(1280..=65_535).contains(m)) {
            return Err(format!("--mtu {mtu}: it is between 1280 and 65535"));
        }
        let pools: Result<_, String> = self.default_address_pools.iter().map(|text| pool(text)).collect();
        let mut options = BTreeMap::new();
        for (key, value) in [
            ("com.docker.network.bridge.enable_icc", self.icc.map(|v| v.to_string())),
            ("com.docker.network.driver.mtu", self.mtu.map(|v| v.to_string())),
            ("com.docker.network.bridge.host_binding_ipv4", self.ip.map(|v| v.to_string())),
        ] {
            if let Some(value) = value {
                options.insert(key.to_owned(), value);
            }
        }
        Ok(NetworkConfig {
            bridge,
            subnet,
            // Empty: one is chosen.
            subnet6: self.fixed_cidr_v6.or(self.ipv6.then(String::new)),
            default_pools: pools?,
            options,
        })
    }
}

/// `base=10.10.0.0/16,size=24`.
fn pool(text: &str) -> Result<(IpSubnet, u8), String> {
    let bad = |why: &str| {
        format!("--default-address-pool {text:?}: {why}; it is written as base=10.10.0.0/16,size=24")
    };
    let (mut base, mut size) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("base", value)) => {
                base = Some(value.parse::<IpSubnet>().map_err(|e| bad(&e.to_string()))?);
            }
            Some(("size", value)) => {
                size = Some(value.parse::<u8>().map_err(|_| bad("the size is no number"))?);
            }
            _ => return Err(bad("it has base and size")),
        }
    }
    let base = base.ok_or_else(|| bad("base is missing"))?;
    let size = size.ok_or_else(|| bad("size is missing"))?;
    let widest = if base.is_ipv6() { 128 } else { 30 };
    if size < base.prefix() || size > widest {
        return Err(bad("the size does not fit into the base"));
    }
    Ok((base, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read() {
        let (base, size) = pool("base=10.10.0.0/16,size=24").unwrap();
        assert_eq!((base.to_string().as_str(), size), ("10.10.0.0/16", 24));
        for bad in [
            "10.10.0.0/16",
            "base=10.10.0.0/16",
            "base=10.10.0.0/16,size=8",
            "base=x,size=24",
            "size=24",
            "a=b",
        ] {
            assert!(pool(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
