//! Tests of the choice of subnets.

use super::*;

fn subnets(list: &[&str]) -> Vec<IpSubnet> {
    list.iter().map(|s| s.parse().unwrap()).collect()
}

fn pool(subnet: &str, range: &str, gateway: &str) -> PoolSpec {
    let given = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    PoolSpec {
        subnet: given(subnet),
        range: given(range),
        gateway: given(gateway),
        auxiliary: BTreeMap::new(),
    }
}

fn spec(pools: Vec<PoolSpec>) -> NetworkSpec {
    let ipv6 = pools.iter().any(|p| p.subnet.as_ref().is_some_and(|s| s.contains(':')));
    NetworkSpec { name: "n".into(), pools, ipv6, ..NetworkSpec::default() }
}

fn taken() -> NetworkRecord {
    NetworkRecord {
        name: "old".into(),
        pools: vec![PoolRecord {
            subnet: "10.5.0.0/16".parse().unwrap(),
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            given: true,
        }],
        ..NetworkRecord::default()
    }
}

fn choose_for(spec: &NetworkSpec) -> Result<Vec<PoolRecord>> {
    let pools = default_pools(&[], "host");
    choose(
        spec,
        [spec.driver != Driver::Bridge; 2],
        &Surroundings { pools: &pools, networks: &[&taken()], host: &subnets(&["172.17.0.0/16"]) },
    )
}

#[test]
fn the_default_bridge_is_checked() {
    assert!(parse_default("172.20.0.1/16").is_ok());
    for bad in
        ["172.20.0.0/16", "172.20.0.1", "x/16", "10.0.0.1/31", "10.0.0.255/24", "10.0.0.1/99", "fd00::1/64"]
    {
        assert!(parse_default(bad).unwrap_err().is_invalid(), "{bad}");
    }
    assert_eq!(parse_default6("fd00::/64").unwrap().0.to_string(), "fd00::1");
    for bad in ["10.0.0.0/8", "fd00::/127", "fd00::", "ff02::/64"] {
        assert!(parse_default6(bad).unwrap_err().is_invalid(), "{bad}");
    }
}

#[test]
fn the_first_free_subnet_of_the_pools_is_taken() {
    let pools = default_pools(&[], "host");
    let free = |used: &[&str]| free_subnet(&pools, false, None, &subnets(used)).unwrap().to_string();
    assert_eq!(free(&[]), "172.17.0.0/16");
    assert_eq!(free(&["172.17.5.0/24", "172.18.0.0/15"]), "172.20.0.0/16");
    assert_eq!(free(&["172.16.0.0/12", "192.168.0.0/20"]), "192.168.16.0/20");
    let all = subnets(&["172.16.0.0/12", "192.168.0.0/16"]);
    assert!(matches!(free_subnet(&pools, false, None, &all), Err(NetworkError::NoSubnet)));
    assert_eq!(free_subnet(&pools, false, Some(24), &[]).unwrap().to_string(), "172.17.0.0/24");
    let configured = [("10.10.0.0/16".parse().unwrap(), 24)];
    let pools = default_pools(&configured, "host");
    let used = subnets(&["10.10.0.0/24", "10.10.1.0/25"]);
    assert_eq!(free_subnet(&pools, false, None, &used).unwrap().to_string(), "10.10.2.0/24");
}

#[test]
fn ipv6_comes_from_a_unique_local_prefix_of_the_host() {
    let six =
        |seed: &str, used: &[IpSubnet]| free_subnet(&default_pools(&[], seed), true, None, used).unwrap();
    let first = six("a", &[]);
    assert!(IpSubnet::containing("fd00::".parse().unwrap(), 8).contains(first.network()), "{first}");
    assert_eq!(first.prefix(), 64);
    assert_eq!(six("a", &[first]), first.next().unwrap());
    assert_ne!(six("b", &[]), first);
}

#[test]
fn gateways_are_chosen_as_dockerd_does() {
    let one = |p: PoolSpec| choose_for(&spec(vec![p])).unwrap()[0].clone();
    let gateway = |p: PoolSpec| one(p).gateway.unwrap().to_string();
    assert_eq!(gateway(pool("", "", "")), "172.18.0.1");
    assert!(!one(pool("", "", "")).given);
    assert_eq!(gateway(pool("10.9.0.0/16", "", "")), "10.9.0.1");
    assert_eq!(gateway(pool("10.9.0.0/16", "10.9.4.0/24", "")), "10.9.4.0");
    assert_eq!(gateway(pool("10.9.0.0/16", "10.9.4.0/24", "10.9.0.254")), "10.9.0.254");
    let macvlan = NetworkSpec { driver: Driver::Macvlan, ..spec(vec![pool("10.9.0.0/16", "", "")]) };
    assert_eq!(choose_for(&macvlan).unwrap()[0].gateway, None);
}

#[test]
fn both_families_get_a_subnet() {
    let dual = NetworkSpec { ipv6: true, ..spec(vec![]) };
    let pools = choose_for(&dual).unwrap();
    assert_eq!(pools.iter().map(|p| p.subnet.is_ipv6()).collect::<Vec<_>>(), [false, true]);
    let only6 = NetworkSpec { ipv4: false, ..spec(vec![pool("fd01::/64", "", "")]) };
    let pools = choose_for(&only6).unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0].gateway.unwrap().to_string(), "fd01::1");
}

#[test]
fn what_makes_no_sense_is_refused_in_dockerds_words() {
    let check = |p: PoolSpec, words: &str| {
        let error = choose_for(&spec(vec![p])).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(
        pool("10.9.0.1/16", "", ""),
        "invalid network config:\ninvalid subnet 10.9.0.1/16: it should be 10.9.0.0/16",
    );
    check(pool("x", "", ""), "invalid subnet x: invalid CIDR block notation");
    check(pool("10.9.0.0/16", "10.0.0.0/8", ""), "CIDR block is bigger than its parent subnet 10.9.0.0/16");
    check(pool("10.9.0.0/16", "10.8.0.0/24", ""), "parent subnet 10.9.0.0/16 doesn't contain ip-range");
    check(pool("10.9.0.0/16", "fd00::/64", ""), "parent subnet is an IPv4 block");
    check(
        pool("10.9.0.0/16", "", "10.8.0.1"),
        "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/16 doesn't contain this address",
    );
    check(pool("", "", "10.8.0.1"), "no matching subnet for gateway 10.8.0.1");
    check(
        pool("10.9.0.0/16", "", "10.9.0.0"),
        "failed to allocate gateway (10.9.0.0): Address already in use",
    );
    check(pool("10.5.1.0/24", "", ""), "Pool overlaps with other one on this address space");
    check(pool("fe80::/80", "", ""), "clashes with the Link-Local prefix");
    let mut aux = pool("10.9.0.0/16", "", "");
    aux.auxiliary.insert("a".into(), "10.9.0.1".into());
    check(aux, "failed to allocate secondary ip address (a:10.9.0.1): Address already in use");
    let two = spec(vec![pool("10.9.0.0/16", "", ""), pool("10.8.0.0/16", "", "")]);
    let error = choose_for(&two).unwrap_err().to_string();
    assert_eq!(error, "bridge driver doesn't support multiple subnets");
    assert_eq!(choose_for(&NetworkSpec { driver: Driver::Macvlan, ..two }).unwrap().len(), 2);
}
