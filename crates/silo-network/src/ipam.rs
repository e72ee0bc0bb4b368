//! Which subnets a new network gets: those that were asked for, checked, or free ones of the default pools.

use std::net::IpAddr;

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::links;
use crate::subnet::IpSubnet;

/// dockerd's: 172.17–31.0.0/16 and 192.168.0.0/16 in /20.
pub(crate) fn default_pools() -> Vec<(IpSubnet, u8)> {
    let sixteen = (17..=31).map(|n| (IpSubnet::containing(IpAddr::from([172, n, 0, 0]), 16), 16));
    sixteen.chain([(IpSubnet::containing(IpAddr::from([192, 168, 0, 0]), 16), 20)]).collect()
}

/// What the host has and routes.
pub(crate) fn used_by_host(socket: &mut Socket) -> Result<Vec<IpSubnet>> {
    let mut used: Vec<IpSubnet> = links::routes(socket)
        .map_err(kernel("reading the host's routes"))?
        .into_iter()
        .map(|(s, _)| s)
        .collect();
    let addresses = silo_sys::links::addresses(socket).map_err(kernel("reading the host's addresses"))?;
    used.extend(addresses.into_iter().map(|(_, a, prefix)| IpSubnet::containing(a, prefix)));
    Ok(used)
}

/// The first subnet of the pools that overlaps nothing used.
pub(crate) fn free_subnet(pools: &[(IpSubnet, u8)], used: &[IpSubnet]) -> Result<IpSubnet> {
    for (base, size) in pools {
        let mut next = Some(IpSubnet::containing(base.network(), (*size).max(base.prefix())));
        while let Some(subnet) = next.filter(|s| base.contains(s.network())) {
            if !used.iter().any(|u| u.overlaps(subnet)) {
                return Ok(subnet);
            }
            next = subnet.next();
        }
    }
    Err(NetworkError::NoSubnet)
}

/// `172.20.0.1/16` as gateway and subnet.
pub(crate) fn parse_default(text: &str) -> Result<(IpAddr, IpSubnet)> {
    let bad = |reason| NetworkError::Subnet { given: text.to_owned(), reason };
    let (address, subnet) =
        IpSubnet::with_address(text).map_err(|_| bad("is not written as gateway/prefix"))?;
    if subnet.is_ipv6() {
        return Err(bad("the gateway is no IPv4 address"));
    }
    if subnet.prefix() > 30 {
        return Err(bad("has no room for a gateway and a container; /30 is the smallest"));
    }
    if address == subnet.network() || address == subnet.last() {
        return Err(bad("the gateway must not be the first or last address"));
    }
    Ok((address, subnet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_subnets_are_checked() {
        assert!(parse_default("172.20.0.1/16").is_ok());
        for bad in [
            "172.20.0.0/16",
            "172.20.0.1",
            "x/16",
            "10.0.0.1/31",
            "10.0.0.255/24",
            "10.0.0.1/99",
            "fd00::1/64",
        ] {
            assert!(parse_default(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn the_first_free_subnet_of_the_pools_is_taken() {
        let used = |list: &[&str]| list.iter().map(|s| s.parse().unwrap()).collect::<Vec<IpSubnet>>();
        let free = |list: &[&str]| free_subnet(&default_pools(), &used(list)).unwrap().to_string();
        assert_eq!(free(&[]), "172.17.0.0/16");
        assert_eq!(free(&["172.17.5.0/24", "172.18.0.0/15"]), "172.20.0.0/16");
        assert_eq!(free(&["172.16.0.0/12", "192.168.0.0/20"]), "192.168.16.0/20");
        let all = used(&["172.16.0.0/12", "192.168.0.0/16"]);
        assert!(matches!(free_subnet(&default_pools(), &all), Err(NetworkError::NoSubnet)));
    }
}
