//! Tests of the rules by real packets.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use crate::firewall::{Firewall, Forward};
use crate::firewall_lab::{Lab, lab, seen_by};
use crate::firewall_nft::run;
use crate::options::GatewayMode;

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn published_ports_are_reached_from_all_sides() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |_| {});
        lab.bridge(2, |_| {});
        let client = lab.client(9);
        let (web, neighbour, other) = (lab.container(1, 2), lab.container(1, 3), lab.container(2, 2));
        web.serve(80);
        lab.publish("0.0.0.0:8080", &web, true);
        lab.publish("[::]:8080", &web, true);
        lab.publish("127.0.0.1:8081", &web, true);
        lab.publish("10.9.0.1:8082", &web, true);
        lab.publish("[::]:8083", &web, false);
        // A remote client is seen as who it is.
        assert_eq!(client.seen_by("10.9.0.1:8080"), ip("10.9.0.2"));
        assert_eq!(client.seen_by("[fd00:9::1]:8080"), ip("fd00:9::2"));
        assert_eq!(client.seen_by("10.9.0.1:8082"), ip("10.9.0.2"));
        // The host: by loopback and by each of its addresses.
        for server in ["127.0.0.1:8080", "127.0.0.1:8081", "10.1.0.1:8080", "10.9.0.1:8080", "10.9.0.1:8082"]
        {
            assert!(seen_by(server).is_some(), "{server}");
        }
        for server in ["[::1]:8080", "[fd00:9::1]:8080", "[::1]:8083"] {
            assert!(seen_by(server).is_some(), "{server}");
        }
        // From IPv6 to a container without it: by the proxy.
        assert_eq!(client.seen_by("[fd00:9::1]:8083"), ip("10.1.0.1"));
        // Containers: of the same network (the container itself among them) and of another.
        for container in [&neighbour, &web] {
            assert_eq!(container.seen_by("10.1.0.1:8080"), ip("10.1.0.1"));
            assert!(container.seen_by("10.9.0.1:8080").is_some());
            assert!(container.seen_by("[fd00:1::1]:8080").is_some());
        }
        assert!(other.seen_by("10.2.0.1:8080").is_some());
        assert!(other.seen_by("[fd00:9::1]:8080").is_some());
        // What is published on loopback or on one address is published there alone.
        for server in ["10.9.0.1:8081", "10.1.0.1:8082"] {
            assert_eq!(client.seen_by(server), None, "{server}");
            assert_eq!(other.seen_by(server), None, "{server}");
        }
        // Withdrawn is closed.
        lab.withdraw("0.0.0.0:8080");
        assert_eq!(client.seen_by("10.9.0.1:8080"), None);
        assert!(client.seen_by("[fd00:9::1]:8080").is_some());
    });
}

#[test]
fn networks_and_hosts_outside_reach_no_container_directly() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |_| {});
        lab.bridge(2, |_| {});
        let client = lab.client(9);
        let (one, two) = (lab.container(1, 2), lab.container(2, 2));
        let neighbour = lab.container(1, 3);
        for container in [&one, &two] {
            container.serve(80);
            container.serve(81);
        }
        client.serve(80);
        lab.publish("0.0.0.0:8080", &one, true);
        for server in ["10.1.0.2:80", "10.1.0.2:81", "[fd00:1::2]:80", "[fd00:1::2]:81"] {
            assert_eq!(two.seen_by(server), None, "{server} from another network");
            assert_eq!(client.seen_by(server), None, "{server} from outside");
            assert!(neighbour.seen_by(server).is_some(), "{server} from a neighbour");
            assert!(seen_by(server).is_some(), "{server} from the host");
        }
        assert_eq!(one.seen_by("10.2.0.2:80"), None);
        assert_eq!(one.seen_by("[fd00:2::2]:80"), None);
        // Outside, the host's address stands for the containers'.
        assert_eq!(one.seen_by("10.9.0.2:80"), ip("10.9.0.1"));
        assert_eq!(one.seen_by("[fd00:9::2]:80"), ip("fd00:9::1"));
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |_| {});
        let container = lab.container(1, 2);
        let servers = ["127.0.0.1:7777", "[::]:7778"].map(|at| std::net::TcpListener::bind(at).unwrap());
        container.run(|| {
            assert_eq!(connected("10.1.0.1:7778"), Ok(()), "the host's other services are there");
            // As a container with NET_ADMIN would: loopback through the host.
            for file in ["route_localnet", "accept_local"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{file}"), "1").unwrap();
            }
            for args in [
                "-4 route del table local 127.0.0.0/8 dev lo",
                "-4 route del table local 127.0.0.1 dev lo",
                "-4 route add 127.0.0.0/8 via 10.1.0.1 src 10.1.0.2",
            ] {
                assert!(std::process::Command::new("ip").args(args.split(' ')).status().unwrap().success());
            }
            for server in ["127.0.0.1:7777", "127.0.0.1:7778"] {
                assert_eq!(connected(server), Err(std::io::ErrorKind::TimedOut), "{server}");
            }
        });
        servers[0].set_nonblocking(true).unwrap();
        assert!(servers[0].accept().is_err());
    });
}

fn connected(server: &str) -> Result<(), std::io::ErrorKind> {
    let patience = Duration::from_millis(400);
    std::net::TcpStream::connect_timeout(&server.parse().unwrap(), patience).map(|_| ()).map_err(|e| e.kind())
}

#[test]
fn options_of_a_network_hold() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |rules| rules.internal = true);
        lab.bridge(2, |rules| rules.icc = false);
        lab.bridge(3, |rules| rules.gateway_mode = [GatewayMode::Routed; 2]);
        lab.bridge(4, |rules| rules.masquerade = false);
        let client = lab.client(9);
        client.serve(80);
        let all: Vec<_> =
            [(1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (4, 2)].map(|(n, h)| lab.container(n, h)).into();
        for container in &all {
            container.serve(80);
        }
        let [inner, inner2, lone, lone2, routed, plain] = &all[..] else { unreachable!() };
        lab.publish("0.0.0.0:8002", lone2, true);
        // Internal: each other and the host's address there, nothing else.
        assert!(inner.seen_by("10.1.0.3:80").is_some() && inner2.seen_by("[fd00:1::2]:80").is_some());
        assert!(seen_by("10.1.0.2:80").is_some());
        for server in ["10.9.0.2:80", "[fd00:9::2]:80", "10.9.0.1:8002", "10.2.0.1:8002"] {
            assert_eq!(inner.seen_by(server), None, "{server}");
        }
        assert_eq!(client.seen_by("10.1.0.2:80"), None);
        // Without communication: published ports alone, and the way out.
        assert_eq!(lone.seen_by("10.2.0.3:80"), None);
        assert_eq!(lone.seen_by("[fd00:2::3]:80"), None);
        assert!(lone.seen_by("10.2.0.1:8002").is_some());
        assert_eq!(lone.seen_by("10.9.0.2:80"), ip("10.9.0.1"));
        // Routed: no translation, published ports are open at the container's own address.
        assert_eq!(client.seen_by("10.3.0.2:80"), None);
        let open = Forward {
            protocol: "tcp",
            host_ip: [0, 0, 0, 0].into(),
            host_port: 0,
            to: routed.ipv4.into(),
            to_port: 80,
        };
        lab.firewall.publish(std::slice::from_ref(&open)).unwrap();
        assert_eq!(client.seen_by("10.3.0.2:80"), ip("10.9.0.2"));
        assert_eq!(routed.seen_by("10.9.0.2:80"), ip("10.3.0.2"));
        lab.firewall.withdraw(&[open]).unwrap();
        assert_eq!(client.seen_by("10.3.0.2:80"), None);
        // Without masquerading the container is seen.
        assert_eq!(plain.seen_by("10.9.0.2:80"), ip("10.4.0.2"));
    });
}

#[test]
fn datagrams_follow_a_port_to_its_next_container() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |_| {});
        let client = lab.client(9);
        let containers = [lab.container(1, 2), lab.container(1, 3)];
        let servers = containers.each_ref().map(|c| c.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()));
        let sender = client.run(|| UdpSocket::bind("10.9.0.2:5353").unwrap());
        let patience = Some(Duration::from_secs(5));
        servers.iter().for_each(|s| s.set_read_timeout(patience).unwrap());
        // Before it is published: to nobody, but the kernel remembers it.
        sender.send_to(b"early", "10.9.0.1:5300").unwrap();
        for (container, server) in containers.iter().zip(&servers) {
            let (host_ip, to) = ([0, 0, 0, 0].into(), container.ipv4.into());
            let forward = Forward { protocol: "udp", host_ip, host_port: 5300, to, to_port: 53 };
            lab.firewall.publish(std::slice::from_ref(&forward)).unwrap();
            sender.send_to(b"now", "10.9.0.1:5300").unwrap();
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.ip()), (&b"now"[..], IpAddr::from([10, 9, 0, 2])));
            server.send_to(b"answer", from).unwrap();
            lab.firewall.withdraw(&[forward]).unwrap();
        }
    });
}

#[test]
fn other_tables_stay_and_what_was_flushed_comes_back() {
    lab(|mut lab: Lab| {
        let list = || {
            let out = std::process::Command::new("nft").args(["-s", "list", "ruleset"]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        let users = "table inet user {\n  chain f {\n    type filter hook forward priority 0; policy accept;\n    tcp dport 9 drop\n  }\n}\n";
        run(&["-f", "-"], users).unwrap();
        let before = list();
        let mut second = Firewall::open("lab2").unwrap();
        second.replace(Vec::new()).unwrap();
        lab.bridge(1, |_| {});
        let web = lab.container(1, 2);
        web.serve(80);
        lab.publish("127.0.0.1:8080", &web, true);
        assert!(lab.firewall.present() && second.present());
        second.remove().unwrap();
        assert!(lab.firewall.present() && !second.present());
        assert!(seen_by("127.0.0.1:8080").is_some());
        // Somebody empties the host's rules: the next change brings ours back whole.
        run(&["flush", "ruleset"], "").unwrap();
        run(&["-f", "-"], users).unwrap();
        assert!(!lab.firewall.present());
        lab.publish("127.0.0.1:8081", &web, true);
        assert!(lab.firewall.present());
        assert!(seen_by("127.0.0.1:8080").is_some() && seen_by("127.0.0.1:8081").is_some());
        lab.firewall.remove().unwrap();
        assert_eq!(list(), before);
    });
}

#[test]
fn a_hundred_ports_and_a_guard_take_no_time() {
    lab(|mut lab: Lab| {
        lab.bridge(1, |_| {});
        let forwards: Vec<Forward> = (1..=200u16)
            .map(|n| {
                let host_ip: IpAddr = if n % 2 == 0 { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
                let to: IpAddr = if n % 2 == 0 { [10, 1, 0, 2].into() } else { "fd00:1::2".parse().unwrap() };
                Forward { protocol: "tcp", host_ip, host_port: 20_000 + n, to, to_port: n }
            })
            .collect();
        let begin = std::time::Instant::now();
        lab.firewall.publish(&forwards).unwrap();
        let published = begin.elapsed();
        lab.firewall.withdraw(&forwards).unwrap();
        let withdrawn = begin.elapsed() - published;
        let begin = std::time::Instant::now();
        for n in 0..50 {
            let guard = crate::firewall::Guard {
                host_interface: format!("sv{n}"),
                mac: crate::mac::MacAddress([2, 0, 0, 0, 0, n]),
                addresses: vec![[10, 1, 0, n].into()],
                icc: true,
                trusted: false,
            };
            lab.firewall.guard(guard).unwrap();
        }
        let guarded = begin.elapsed() / 50;
        eprintln!("200 forwards: {published:?}, withdrawn in {withdrawn:?}; a guard: {guarded:?}");
        // Promised: 100 mappings in 0.1 s and a guard in 1 ms; the machine may be busy.
        assert!(published < Duration::from_millis(100) && guarded < Duration::from_millis(5));
    });
}
