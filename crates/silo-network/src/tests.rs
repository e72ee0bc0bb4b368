//! Tests of all verbs together, each in a network namespace of its own: the host's links and rules stay untouched.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use silo_sys::netlink::Socket;
use silo_sys::netns;

use crate::links;
use crate::networks::Networks;
use crate::record::{
    AdapterForm, AttachOptions, Attached, Bandwidth, Driver, NetworkConfig, NetworkSpec, PoolSpec,
};

/// Runs a test as a host without any network but loopback; not root: nothing.
fn as_a_host(test: impl FnOnce(&mut Socket) + Send) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let run = || {
            netns::unshare_network().unwrap();
            let mut socket = Socket::open().unwrap();
            socket.change(links::set_up(1)).unwrap();
            test(&mut socket);
        };
        scope.spawn(run).join().unwrap();
    });
}

/// Runs something in a container's namespace.
fn inside<T: Send>(namespace: &OwnedFd, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            netns::enter_network(namespace.as_fd()).unwrap();
            run()
        };
        scope.spawn(run).join().unwrap()
    })
}

fn config() -> NetworkConfig {
    NetworkConfig {
        bridge: "sbtest".into(),
        subnet: Some("10.199.0.1/24".into()),
        ..NetworkConfig::default()
    }
}

fn default_id(networks: &Networks) -> String {
    networks.builtin().into_iter().find(|n| n.name == "bridge").unwrap().id
}

fn attach(networks: &Networks, network: &str, made: Option<OwnedFd>) -> Attached {
    networks.attach(network, "c", AdapterForm::Veth, &AttachOptions::default(), made).unwrap()
}

fn names(socket: &mut Socket) -> Vec<String> {
    links::all(socket).unwrap().into_iter().map(|l| l.name).collect()
}

#[test]
fn containers_are_reached_over_the_bridge_and_leave_nothing() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        let network = default_id(&networks);
        let a = attach(&networks, &network, None);
        let b = attach(&networks, &network, Some(networks.create_empty_namespace().unwrap()));
        assert_eq!(a.adapter.ipv4, Some(Ipv4Addr::new(10, 199, 0, 2)));
        assert_eq!(b.adapter.ipv4, Some(Ipv4Addr::new(10, 199, 0, 3)));
        let listener = inside(&a.namespace, || TcpListener::bind("0.0.0.0:80").unwrap());
        assert!(TcpStream::connect("10.199.0.2:80").is_ok(), "from the host");
        assert!(inside(&b.namespace, || TcpStream::connect("10.199.0.2:80").is_ok()), "from a neighbour");
        drop(listener);
        // A second daemon takes the bridge over; what it does not adopt is swept.
        let again = Networks::open(config()).unwrap();
        again.adopt(&a.adapter);
        let _ = again.sweep();
        let left = names(socket);
        assert!(left.contains(&a.adapter.host_interface), "{left:?}");
        assert!(!left.contains(&b.adapter.host_interface), "{left:?}");
        again.detach(&a.adapter, None).unwrap();
        again.teardown().unwrap();
        let left = names(socket);
        assert!(!left.iter().any(|n| n.starts_with('s')), "{left:?}");
    });
}

fn spec(name: &str, subnets: &[&str]) -> NetworkSpec {
    let pool = |s: &&str| PoolSpec { subnet: Some((*s).to_owned()), ..PoolSpec::default() };
    NetworkSpec {
        name: name.to_owned(),
        ipv4: subnets.is_empty() || subnets.iter().any(|s| !s.contains(':')),
        ipv6: subnets.iter().any(|s| s.contains(':')),
        pools: subnets.iter().map(pool).collect(),
        ..NetworkSpec::default()
    }
}

fn with(spec: NetworkSpec, driver: Driver, options: &[(&str, &str)]) -> NetworkSpec {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NetworkSpec { driver, options, ..spec }
}

/// Whether a port of one container is reached from another, at once.
fn reached(from: &OwnedFd, at: &OwnedFd, address: IpAddr) -> bool {
    let address = SocketAddr::new(address, 80);
    let listener = inside(at, || TcpListener::bind(address));
    let answer = listener.and_then(|listener| {
        let answer = inside(from, || TcpStream::connect_timeout(&address, Duration::from_millis(900)));
        drop(listener);
        answer
    });
    answer.is_ok()
}

fn four(attached: &Attached) -> IpAddr {
    attached.adapter.ipv4.unwrap().into()
}

fn six(attached: &Attached) -> IpAddr {
    attached.adapter.ipv6.unwrap().into()
}

#[test]
fn a_network_of_both_families_carries_both_at_once() {
    as_a_host(|_| {
        let networks = Networks::open(config()).unwrap();
        let record = networks.create(&spec("both", &["10.61.0.0/24", "fd61::/64"])).unwrap();
        assert_eq!(record.interface, Some(format!("br-{}", &record.id[..12])));
        let (a, b) = (attach(&networks, &record.id, None), attach(&networks, &record.id, None));
        assert_eq!((a.adapter.prefix, a.adapter.prefix6), (24, 64));
        assert_eq!(a.adapter.gateway6, Some("fd61::1".parse::<Ipv6Addr>().unwrap()));
        assert_eq!(a.adapter.mac, "02:42:0a:3d:00:02");
        // No time for duplicate address detection passes.
        assert!(reached(&b.namespace, &a.namespace, six(&a)), "IPv6");
        assert!(reached(&b.namespace, &a.namespace, four(&a)), "IPv4");
        let only6 = networks.create(&spec("six", &["fd62::/64"])).unwrap();
        let c = attach(&networks, &only6.id, None);
        assert_eq!((c.adapter.ipv4, c.adapter.gateway), (None, None));
        assert_eq!(six(&c).to_string(), "fd62::2");
        for attached in [&a, &b, &c] {
            networks.detach(&attached.adapter, None).unwrap();
        }
        networks.remove(&only6).unwrap();
        networks.teardown().unwrap();
    });
}

#[test]
fn networks_without_a_subnet_get_free_ones() {
    as_a_host(|_| {
        let networks = Networks::open(config()).unwrap();
        let subnet = |spec: &NetworkSpec| networks.create(spec).unwrap().pools[0].subnet.to_string();
        assert_eq!(subnet(&spec("one", &[])), "172.17.0.0/16");
        assert_eq!(subnet(&spec("two", &["172.18.0.0/24"])), "172.18.0.0/24");
        assert_eq!(subnet(&spec("three", &[])), "172.19.0.0/16");
        let refused = |spec: NetworkSpec| networks.create(&spec).unwrap_err().to_string();
        assert_eq!(refused(spec("one", &[])), "network with name one already exists");
        assert!(refused(spec("four", &["10.199.0.0/16"])).contains("Pool overlaps"));
        assert!(refused(spec("host", &[])).contains("predefined host network"));
        let host = with(spec("mine", &[]), Driver::Host, &[]);
        assert_eq!(refused(host), "only one instance of \"host\" network is allowed");
        assert!(refused(NetworkSpec { ipv4: false, ..spec("no", &[]) }).contains("must be enabled"));
        networks.teardown().unwrap();
    });
}

#[test]
fn wished_addresses_are_given_where_the_subnet_was_given() {
    as_a_host(|_| {
        let networks = Networks::open(config()).unwrap();
        let given = networks.create(&spec("given", &["10.61.0.0/24"])).unwrap();
        let chosen = networks.create(&spec("chosen", &[])).unwrap();
        let wish = |network: &str, ip: [u8; 4]| {
            let options = AttachOptions { ipv4: Some(ip.into()), ..AttachOptions::default() };
            networks
                .attach(network, "c", AdapterForm::Veth, &options, None)
                .map(|a| a.adapter.ipv4.unwrap())
                .map_err(|e| e.to_string())
        };
        assert_eq!(wish(&given.id, [10, 61, 0, 9]), Ok(Ipv4Addr::new(10, 61, 0, 9)));
        assert_eq!(wish(&given.id, [10, 61, 0, 9]), Err("Address already in use".into()));
        let outside = wish(&given.id, [10, 62, 0, 9]).unwrap_err();
        assert_eq!(outside, "no configured subnet contains IP address 10.62.0.9");
        let other = wish(&chosen.id, [172, 17, 0, 9]).unwrap_err();
        assert!(other.contains("only when connecting to networks with user configured subnets"), "{other}");
        assert!(wish("0", [10, 0, 0, 1]).unwrap_err().contains("network 0 not found"));
        networks.teardown().unwrap();
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        let one = networks.create(&spec("one", &["10.61.0.0/24"])).unwrap();
        let two = networks.create(&spec("two", &["10.62.0.0/24", "fd62::/64"])).unwrap();
        let first = attach(&networks, &one.id, None);
        let namespace = &first.namespace;
        let again = |network: &str| attach(&networks, network, Some(namespace.try_clone().unwrap()));
        let second = again(&two.id);
        assert_eq!([&first.adapter.interface, &second.adapter.interface], ["eth0", "eth1"]);
        let neighbour = attach(&networks, &two.id, None);
        assert!(reached(&neighbour.namespace, namespace, four(&second)));
        let gateways = || {
            inside(namespace, || {
                let mut socket = Socket::open().unwrap();
                let routes = silo_sys::routes::defaults(&mut socket).unwrap();
                let mut list: Vec<_> = routes.iter().map(|r| r.gateway.unwrap().to_string()).collect();
                list.sort();
                list
            })
        };
        // The way out stays where it was; the other family had none.
        assert_eq!(gateways(), ["10.61.0.1", "fd62::1"]);
        let both = Some(&second.adapter);
        networks.set_gateway(namespace.as_fd(), both, both).unwrap();
        assert_eq!(gateways(), ["10.62.0.1", "fd62::1"]);
        networks.set_gateway(namespace.as_fd(), Some(&first.adapter), None).unwrap();
        assert_eq!(gateways(), ["10.61.0.1"]);
        networks.detach(&first.adapter, Some(namespace.as_fd())).unwrap();
        let left = inside(namespace, || names(&mut Socket::open().unwrap()));
        assert_eq!(left, ["lo", "eth1"]);
        // The lowest name is free again, and so is the network.
        networks.remove(&one).unwrap();
        assert_eq!(again(&two.id).adapter.interface, "eth0");
        let named = AttachOptions { interface: Some("lan".into()), ..AttachOptions::default() };
        let into = Some(namespace.try_clone().unwrap());
        let named = networks.attach(&two.id, "c", AdapterForm::Veth, &named, into).unwrap();
        assert_eq!(named.adapter.interface, "lan");
        assert!(networks.remove(&two).unwrap_err().to_string().contains("has active endpoints"));
        networks.teardown().unwrap();
        assert_eq!(names(socket), ["lo"]);
    });
}

#[test]
fn macvlan_adapters_reach_each_other_with_and_without_a_parent() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        socket.change(links::create_pair("uplink", "switch")).unwrap();
        let peer = links::find(socket, "switch").unwrap().unwrap();
        socket.change(links::set_up(peer.index)).unwrap();
        let outer = with(spec("outer", &["10.71.0.0/24"]), Driver::Macvlan, &[("parent", "uplink")]);
        let outer = networks.create(&outer).unwrap();
        assert!(outer.foreign_interface);
        let inner = with(spec("inner", &["10.72.0.0/24"]), Driver::Macvlan, &[]);
        let inner = networks.create(&inner).unwrap();
        assert_eq!(inner.interface, Some(format!("dm-{}", &inner.id[..12])));
        for record in [&outer, &inner] {
            let (a, b) = (attach(&networks, &record.id, None), attach(&networks, &record.id, None));
            assert_eq!((a.adapter.host_interface.as_str(), a.adapter.gateway), ("", None));
            assert!(reached(&b.namespace, &a.namespace, four(&a)), "{}", record.name);
            let carried = networks.counters(&a.adapter, Some(a.namespace.as_fd())).unwrap();
            assert!(carried.rx_packets > 0 && carried.tx_bytes > 0, "{carried:?}");
            networks.detach(&a.adapter, Some(a.namespace.as_fd())).unwrap();
            networks.detach(&b.adapter, None).unwrap();
            let left = inside(&a.namespace, || names(&mut Socket::open().unwrap()));
            assert_eq!(left, ["lo"]);
        }
        let refused = |options: &[(&str, &str)]| {
            let wanted = with(spec("no", &["10.73.0.0/24"]), Driver::Macvlan, options);
            networks.create(&wanted).unwrap_err().to_string()
        };
        assert!(refused(&[("parent", "nowhere")]).contains("invalid subinterface vlan name nowhere"));
        let alone = refused(&[("parent", "uplink"), ("macvlan_mode", "passthru")]);
        assert!(alone.contains("cannot use mode passthru"), "{alone}");
        networks.remove(&outer).unwrap();
        networks.remove(&inner).unwrap();
        let left = names(socket);
        assert!(left.contains(&"uplink".to_owned()), "a parent of the host stays: {left:?}");
        assert!(!left.iter().any(|n| n.starts_with("dm-") || n.starts_with("dp-")), "{left:?}");
        networks.teardown().unwrap();
    });
}

#[test]
fn a_kernel_without_ipvlan_says_so() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        let wanted = with(spec("ip", &["10.71.0.0/24"]), Driver::Ipvlan, &[]);
        let known = crate::parent::supports(socket, "ipvlan").is_ok();
        match networks.create(&wanted) {
            Ok(_) => assert!(known),
            Err(e) => {
                assert!(!known);
                assert!(e.to_string().starts_with("this host's kernel has no ipvlan"), "{e}");
            }
        }
        networks.teardown().unwrap();
    });
}

#[test]
fn after_a_restart_exactly_what_was_told_remains() {
    as_a_host(|socket| {
        // Somebody else's.
        socket.change(links::create("bridge", "br-0123456789ab", 1500, None)).unwrap();
        let networks = Networks::open(config()).unwrap();
        let kept = networks.create(&spec("kept", &["10.61.0.0/24"])).unwrap();
        let lost = networks.create(&spec("lost", &["10.62.0.0/24"])).unwrap();
        let closed = with(spec("closed", &["10.63.0.0/24"]), Driver::Macvlan, &[]);
        networks.create(&closed).unwrap();
        let (stays, goes) = (attach(&networks, &kept.id, None), attach(&networks, &kept.id, None));
        let on_lost = attach(&networks, &lost.id, None);
        let limits = Bandwidth { egress: Some(1_000_000), ingress: None };
        networks.set_bandwidth(&stays.adapter, None, limits).unwrap();
        networks.set_bandwidth(&goes.adapter, None, limits).unwrap();
        // Killed; only one network was stored. Its bridge was removed by somebody meanwhile.
        drop(networks);
        let bridge = kept.interface.clone().unwrap();
        socket.change(links::delete(&bridge)).unwrap();
        let again = Networks::open(config()).unwrap();
        again.restore(&kept).unwrap();
        again.adopt(&stays.adapter);
        again.sweep().unwrap();
        let mut left = names(socket);
        left.sort();
        let host = &stays.adapter.host_interface;
        let mut expected = vec![
            "br-0123456789ab".into(),
            bridge,
            "lo".into(),
            "sbtest".into(),
            host.clone(),
            host.replacen("sv", "si", 1),
        ];
        expected.sort();
        assert_eq!(left, expected);
        drop(on_lost);
        let next = attach(&again, &kept.id, None);
        assert_ne!(next.adapter.ipv4, stays.adapter.ipv4);
        assert!(reached(&next.namespace, &stays.namespace, four(&stays)), "joined to the new bridge");
        again.teardown().unwrap();
        assert_eq!(names(socket), ["lo", "br-0123456789ab"]);
    });
}

/// Megabits a second of a TCP stream of so many bytes.
fn throughput(from: &OwnedFd, to: &OwnedFd, address: IpAddr, bytes: usize) -> f64 {
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(address, 80)).unwrap());
    let sender = inside(from, || TcpStream::connect(SocketAddr::new(address, 80)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sender = sender;
            sender.write_all(&vec![0; bytes]).unwrap();
        });
        let (mut stream, _) = listener.accept().unwrap();
        let start = Instant::now();
        stream.read_exact(&mut vec![0; bytes]).unwrap();
        (bytes * 8) as f64 / start.elapsed().as_secs_f64() / 1e6
    })
}

#[test]
fn limits_hold_both_ways_and_are_changed_and_lifted_at_once() {
    as_a_host(|socket| {
        let networks = Networks::open(config()).unwrap();
        let network = default_id(&networks);
        let options = AttachOptions {
            bandwidth: Bandwidth { egress: Some(20_000_000), ingress: None },
            ..AttachOptions::default()
        };
        let a = networks.attach(&network, "c", AdapterForm::Veth, &options, None).unwrap();
        let b = attach(&networks, &network, None);
        // Seconds of it: TCP may wait a fifth of one for what was lost last, when it finds out the rate.
        const BYTES: usize = 10_000_000;
        let sent = || throughput(&a.namespace, &b.namespace, four(&b), BYTES);
        let received = || throughput(&b.namespace, &a.namespace, four(&a), BYTES);
        let near = |rate: f64, limit: f64| assert!((limit * 0.85..limit * 1.08).contains(&rate), "{rate}");
        near(sent(), 20.0);
        assert!(received() > 100.0);
        let set = |egress: Option<u64>, ingress: Option<u64>| {
            networks.set_bandwidth(&a.adapter, None, Bandwidth { egress, ingress }).unwrap();
        };
        set(Some(40_000_000), Some(20_000_000));
        near(sent(), 40.0);
        near(received(), 20.0);
        set(None, None);
        assert!(sent() > 100.0 && received() > 100.0);
        assert!(!names(socket).iter().any(|n| n.starts_with("si")));
        set(Some(1_000_000), None);
        networks.detach(&a.adapter, None).unwrap();
        assert!(!names(socket).iter().any(|n| n.starts_with("si")));
        networks.teardown().unwrap();
    });
}
