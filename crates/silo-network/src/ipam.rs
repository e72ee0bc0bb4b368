//! Which subnets a new network gets: those that were asked for, checked, or free ones of the default pools.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};

use silo_sys::netlink::Socket;

use crate::error::{NetworkError, Result, kernel};
use crate::links;
use crate::pool::{Pool, Refusal};
use crate::record::{Driver, NetworkRecord, NetworkSpec, PoolRecord, PoolSpec};
use crate::subnet::{IpSubnet, SubnetError};

/// dockerd's: 172.17–31.0.0/16 and 192.168.0.0/16 in /20.
fn docker_pools() -> impl Iterator<Item = (IpSubnet, u8)> {
    let sixteen = (17..=31).map(|n| (IpSubnet::containing(IpAddr::from([172, n, 0, 0]), 16), 16));
    sixteen.chain([(IpSubnet::containing(IpAddr::from([192, 168, 0, 0]), 16), 20)])
}

/// A unique local /48 (RFC 4193) that is this host's, so that two hosts' networks do not meet in one subnet.
fn unique_local(seed: &str) -> (IpSubnet, u8) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
    let base = Ipv6Addr::from(u128::from(u64::from_be_bytes([0xfd, a, b, c, d, e, 0, 0])) << 64);
    (IpSubnet::containing(base.into(), 48), 64)
}

/// Where subnets come from that nobody named: as configured, else as dockerd; each family that was not configured by default.
pub(crate) fn default_pools(configured: &[(IpSubnet, u8)], seed: &str) -> Vec<(IpSubnet, u8)> {
    let mut pools = configured.to_vec();
    if !pools.iter().any(|(base, _)| !base.is_ipv6()) {
        pools.extend(docker_pools());
    }
    if !pools.iter().any(|(base, _)| base.is_ipv6()) {
        pools.push(unique_local(seed));
    }
    pools
}

/// What the host has and routes.
pub(crate) fn used_by_host(socket: &mut Socket) -> Result<Vec<IpSubnet>> {
    let mut used: Vec<IpSubnet> = links::routes(socket)
        .map_err(kernel("reading the host's routes"))?
        .into_iter()
        .map(|(s, _)| s)
        // Halves of everything are a VPN's way to be the default route.
        .filter(|s| s.prefix() > 1)
        .collect();
    let addresses = silo_sys::links::addresses(socket).map_err(kernel("reading the host's addresses"))?;
    used.extend(addresses.into_iter().map(|(_, a, prefix)| IpSubnet::containing(a, prefix)));
    Ok(used)
}

/// The first subnet of the pools of a family that overlaps nothing used; `size`: its bits, when not the pool's own.
pub(crate) fn free_subnet(
    pools: &[(IpSubnet, u8)],
    six: bool,
    size: Option<u8>,
    used: &[IpSubnet],
) -> Result<IpSubnet> {
    for (base, own) in pools.iter().filter(|(base, _)| base.is_ipv6() == six) {
        let size = size.unwrap_or(*own);
        if size < base.prefix() || size > base.width() {
            continue;
        }
        let mut next = Some(IpSubnet::containing(base.network(), size));
        while let Some(subnet) = next.filter(|s| base.contains(s.network())) {
            let Some(taken) = used.iter().find(|u| u.overlaps(subnet)) else { return Ok(subnet) };
            // A larger one may be in the way of many.
            let past = if taken.prefix() < size { *taken } else { subnet };
            next = past.next().map(|n| IpSubnet::containing(n.network(), size));
        }
    }
    Err(NetworkError::NoSubnet)
}

/// `172.20.0.1/16` as gateway and subnet of the default bridge.
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

/// `--fixed-cidr-v6` of the default bridge: gateway and subnet.
pub(crate) fn parse_default6(text: &str) -> Result<(IpAddr, IpSubnet)> {
    let bad = |reason| NetworkError::Subnet { given: text.to_owned(), reason };
    let (_, subnet) = IpSubnet::with_address(text).map_err(|_| bad("is not written as address/prefix"))?;
    if !subnet.is_ipv6() || subnet.network().is_multicast() {
        return Err(bad("is no IPv6 subnet"));
    }
    if subnet.prefix() > 126 {
        return Err(bad("has no room for a gateway and a container; /126 is the smallest"));
    }
    Ok((subnet.nth(1), subnet))
}

/// What was asked for, read.
struct Asked {
    subnet: Option<IpSubnet>,
    /// Only its length was asked for: `0.0.0.0/24`.
    size: Option<u8>,
    six: bool,
    range: Option<IpSubnet>,
    gateway: Option<IpAddr>,
    auxiliary: BTreeMap<String, IpAddr>,
}

/// Reads one pool; what is wrong goes into `errors`, in dockerd's words.
fn read(spec: &PoolSpec, errors: &mut Vec<String>) -> Asked {
    let mut asked = Asked {
        subnet: None,
        size: None,
        six: false,
        range: None,
        gateway: None,
        auxiliary: BTreeMap::new(),
    };
    let cidr = |what: &str, text: &str, errors: &mut Vec<String>| match text.parse::<IpSubnet>() {
        Ok(subnet) => Some(subnet),
        Err(SubnetError::Malformed(_)) => {
            errors.push(format!("invalid {what} {text}: invalid CIDR block notation"));
            None
        }
        Err(other) => {
            errors.push(format!("invalid {what} {text}: {other}"));
            None
        }
    };
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let Some(text) = given(&spec.subnet) else {
        if let Some(range) = given(&spec.range) {
            errors.push(format!("no matching subnet for range {range}"));
        }
        if let Some(gateway) = given(&spec.gateway) {
            errors.push(format!("no matching subnet for gateway {gateway}"));
        }
        for address in spec.auxiliary.values() {
            errors.push(format!("no matching subnet for aux-address {address}"));
        }
        return asked;
    };
    let Some(subnet) = cidr("subnet", &text, errors) else { return asked };
    asked.six = subnet.is_ipv6();
    if subnet.network().is_unspecified() {
        asked.size = Some(subnet.prefix()).filter(|p| *p > 0);
        return asked;
    }
    asked.subnet = Some(subnet);
    let family = if subnet.is_ipv6() { 6 } else { 4 };
    if let Some(range) = given(&spec.range).and_then(|t| cidr("ip-range", &t, errors)) {
        if range.is_ipv6() != subnet.is_ipv6() {
            errors.push(format!("invalid ip-range {range}: parent subnet is an IPv{family} block"));
        } else if range.prefix() < subnet.prefix() {
            errors.push(format!(
                "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
            ));
        } else if !subnet.contains(range.network()) {
            errors.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
        } else {
            asked.range = Some(range);
        }
    }
    let inside = |text: &str| -> std::result::Result<IpAddr, String> {
        let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
        if address.is_ipv6() != subnet.is_ipv6() {
            return Err(format!("parent subnet is an IPv{family} block"));
        }
        if !subnet.contains(address) {
            return Err(format!("parent subnet {subnet} doesn't contain this address"));
        }
        Ok(address)
    };
    if let Some(text) = given(&spec.gateway) {
        match inside(&text) {
            Ok(address) => asked.gateway = Some(address),
            Err(reason) => errors.push(format!("invalid gateway {text}: {reason}")),
        }
    }
    for (name, text) in &spec.auxiliary {
        match inside(text) {
            Ok(address) => {
                asked.auxiliary.insert(name.clone(), address);
            }
            Err(reason) => errors.push(format!("invalid auxiliary address {name}: {reason}")),
        }
    }
    asked
}

/// Several errors as dockerd joins them.
fn joined(errors: &[impl Display]) -> String {
    match errors {
        [one] => one.to_string(),
        many => many.iter().map(|e| format!("* {e}")).collect::<Vec<_>>().join("\n"),
    }
}

/// What there is already.
pub(crate) struct Surroundings<'a> {
    pub(crate) pools: &'a [(IpSubnet, u8)],
    pub(crate) networks: &'a [&'a NetworkRecord],
    /// The host's own.
    pub(crate) host: &'a [IpSubnet],
}

/// What can be said of pools before anything is chosen, in dockerd's words.
fn read_all(pools: &[PoolSpec]) -> Result<Vec<Asked>> {
    let mut errors = Vec::new();
    let asked = pools.iter().map(|p| read(p, &mut errors)).collect();
    if errors.is_empty() {
        Ok(asked)
    } else {
        Err(NetworkError::Invalid(format!("invalid network config:\n{}", joined(&errors))))
    }
}

/// Whether a network could be asked for with these pools.
///
/// # Errors
/// What is malformed, or out of its subnet; that a pool has no subnet.
pub fn check_pools(pools: &[PoolSpec]) -> Result<()> {
    let asked = read_all(pools)?;
    if asked.iter().any(|a| a.subnet.is_none() && a.size.is_none()) {
        return Err(NetworkError::Invalid("invalid network config:\nno subnet is given".into()));
    }
    Ok(())
}

/// The subnets of a new network. `skip_gateway`: which family's gateway is not chosen here.
pub(crate) fn choose(
    spec: &NetworkSpec,
    skip_gateway: [bool; 2],
    around: &Surroundings<'_>,
) -> Result<Vec<PoolRecord>> {
    let mut asked = read_all(&spec.pools)?;
    // As dockerd: subnets of a family that is off are not looked at.
    asked.retain(|a| if a.six { spec.ipv6 } else { spec.ipv4 });
    for (six, wanted) in [(false, spec.ipv4), (true, spec.ipv6)] {
        if wanted && !asked.iter().any(|a| a.six == six) {
            asked.push(Asked {
                subnet: None,
                size: None,
                six,
                range: None,
                gateway: None,
                auxiliary: BTreeMap::new(),
            });
        }
        if spec.driver == Driver::Bridge && asked.iter().filter(|a| a.six == six).count() > 1 {
            return Err(NetworkError::Forbidden("bridge driver doesn't support multiple subnets".into()));
        }
    }
    let mut used: Vec<IpSubnet> = around.host.to_vec();
    used.extend(around.networks.iter().flat_map(|n| n.pools.iter().map(|p| p.subnet)));
    let mut chosen: Vec<PoolRecord> = Vec::new();
    for asked in asked {
        let subnet = match asked.subnet {
            Some(subnet) => {
                check_overlap(spec, subnet, asked.range.is_some(), &chosen, around.networks)?;
                subnet
            }
            None => free_subnet(around.pools, asked.six, asked.size, &used)?,
        };
        used.push(subnet);
        let mut pool = PoolRecord {
            subnet,
            range: asked.range,
            gateway: asked.gateway,
            auxiliary: asked.auxiliary,
            given: asked.subnet.is_some(),
        };
        if spec.driver == Driver::Bridge {
            check_bridge_subnet(&pool)?;
        }
        choose_gateway(&mut pool, skip_gateway[usize::from(asked.six)])?;
        chosen.push(pool);
    }
    Ok(chosen)
}

/// What dockerd's bridge driver says of subnets.
fn check_bridge_subnet(pool: &PoolRecord) -> Result<()> {
    let link_local = IpSubnet::containing(IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 64);
    let subnet = pool.subnet;
    if subnet.is_ipv6() && subnet.network().is_multicast() {
        return Err(NetworkError::Invalid(format!("multicast subnet '{subnet}' is not allowed")));
    }
    if subnet != link_local && link_local.overlaps(subnet) {
        return Err(NetworkError::Invalid(format!(
            "'{subnet}' clashes with the Link-Local prefix 'fe80::/64'"
        )));
    }
    Ok(())
}

fn check_overlap(
    spec: &NetworkSpec,
    subnet: IpSubnet,
    has_range: bool,
    chosen: &[PoolRecord],
    networks: &[&NetworkRecord],
) -> Result<()> {
    if chosen.iter().any(|p| p.subnet.overlaps(subnet)) {
        return Err(NetworkError::Overlap { subnet, by: spec.name.clone() });
    }
    let mut others = networks.iter().filter(|n| n.pools.iter().any(|p| p.subnet.overlaps(subnet)));
    // As dockerd: networks on the outer Ethernet may share a subnet, each with a range of its own.
    let shared =
        |other: &NetworkRecord| has_range && spec.driver != Driver::Bridge && other.driver != Driver::Bridge;
    match others.find(|n| !shared(n)) {
        Some(other) => Err(NetworkError::Overlap { subnet, by: other.name.clone() }),
        None => Ok(()),
    }
}

/// Chooses the gateway where none is given, as dockerd the first address that a container could have had, and makes sure that
/// gateway and others' addresses are different.
fn choose_gateway(pool: &mut PoolRecord, skip: bool) -> Result<()> {
    let failed = |what: &str, address: &dyn Display, refusal| {
        let reason = match refusal {
            Refusal::Taken => "Address already in use",
            Refusal::Outside => "Requested address is out of range",
        };
        NetworkError::Invalid(format!("failed to allocate {what} ({address}): {reason}"))
    };
    let bare = PoolRecord { gateway: None, auxiliary: BTreeMap::new(), ..pool.clone() };
    let mut addresses = Pool::new(&bare);
    if let Some(gateway) = pool.gateway {
        addresses.take(gateway).map_err(|r| failed("gateway", &gateway, r))?;
    } else if !skip {
        let chosen = addresses.take_any();
        pool.gateway = Some(chosen.ok_or_else(|| failed("gateway", &"", Refusal::Taken))?);
    }
    for (name, address) in &pool.auxiliary {
        addresses
            .take(*address)
            .map_err(|r| failed("secondary ip address", &format!("{name}:{address}"), r))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "ipam_tests.rs"]
mod tests;
