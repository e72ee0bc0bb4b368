//! What containers cannot do to each other and to the host over the network, by the stock client.

use std::net::TcpListener;
use std::process::Command;

use silo_tests::Daemon;
use silo_tests::outside::{Outside, seen_from, seen_from_host, serve, soon};

const IMAGE: &str = "localhost/busybox";

fn address(d: &Daemon, name: &str) -> String {
    d.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name])
}

#[test]
fn networks_do_not_reach_each_other_and_nobody_the_hosts_loopback() {
    let d = Daemon::start();
    let outside = Outside::start();
    for (network, options) in [("one", &[][..]), ("two", &[]), ("inner", &["--internal"])] {
        d.ok(&[&["network", "create"], options, &[network]].concat());
    }
    for (name, network) in
        [("in-a", "one"), ("in-b", "two"), ("in-c", "inner"), ("in-d", "inner"), ("in-e", "bridge")]
    {
        serve(&d, name, &["--network", network]);
    }
    let at = |name: &str| address(&d, name);
    for (from, to) in [
        ("in-a", "in-b"),
        ("in-b", "in-a"),
        ("in-a", "in-c"),
        ("in-c", "in-a"),
        ("in-e", "in-a"),
        ("in-a", "in-e"),
    ] {
        assert_eq!(seen_from(&d, from, &at(to), "80"), None, "{from} to {to}");
    }
    for (from, to) in [("in-c", "in-d"), ("in-d", "in-c")] {
        assert!(soon(|| seen_from(&d, from, &at(to), "80")).is_some(), "{from} to {to}");
    }
    for name in ["in-a", "in-b", "in-c"] {
        assert_eq!(outside.seen_by(&at(name), "80"), None, "{name} from outside");
        assert!(soon(|| seen_from_host(&at(name), "80")).is_some(), "{name} from the host");
    }
    // In both: reached by both, until it leaves.
    d.ok(&["network", "connect", "two", "in-a"]);
    let both = d.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.two.IPAddress}}", "in-a"]);
    assert!(soon(|| seen_from(&d, "in-b", &both, "80")).is_some());
    d.ok(&["network", "disconnect", "two", "in-a"]);
    assert_eq!(seen_from(&d, "in-b", &at("in-a"), "80"), None);
    // The host's loopback.
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = loopback.local_addr().unwrap().port().to_string();
    let gateway = d.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "one"]);
    let routed = format!(
        "ip route del table local 127.0.0.0/8 dev lo; ip route del table local 127.0.0.1 dev lo; \
         ip route add 127.0.0.0/8 via {gateway}; timeout 2 nc 127.0.0.1 {port} </dev/null && echo in"
    );
    let said =
        d.docker(&["run", "--rm", "--network", "one", "--cap-add", "NET_ADMIN", IMAGE, "sh", "-c", &routed]);
    assert!(!said.out.contains("in"), "{said:?}");
    loopback.set_nonblocking(true).unwrap();
    assert!(loopback.accept().is_err(), "somebody came to the host's loopback");
}

#[test]
fn addresses_of_others_are_refused() {
    let d = Daemon::start();
    d.ok(&["network", "create", "net"]);
    serve(&d, "web", &["--network", "net"]);
    let admin = ["--network", "net", "--cap-add", "NET_ADMIN"];
    d.ok(&[&["run", "-d", "--name", "bad"], &admin[..], &[IMAGE, "sleep", "600"]].concat());
    d.ok(&["run", "-d", "--name", "user", "--network", "net", IMAGE, "sleep", "600"]);
    let web = address(&d, "web");
    assert!(
        soon(|| seen_from(&d, "bad", &web, "80")).is_some()
            && soon(|| seen_from(&d, "user", &web, "80")).is_some()
    );
    let prefix = web.rsplit_once('.').unwrap().0;
    // Another address of its own choice, a neighbour's, another hardware address: nothing comes back.
    let script = format!(
        "ip addr flush dev eth0; ip addr add {prefix}.77/16 dev eth0; timeout 2 nc {web} 80 </dev/null && echo in; \
         ip addr flush dev eth0; ip addr add {web}/16 dev eth0; arping -c 2 -U -I eth0 {web} >/dev/null; \
         echo tried"
    );
    let said = d.docker(&["exec", "bad", "sh", "-c", &script]);
    assert_eq!(said.out, "tried", "{said:?}");
    // Neither the neighbours nor the host believed it.
    assert!(soon(|| seen_from(&d, "user", &web, "80")).is_some(), "a neighbour still finds the real one");
    assert!(soon(|| seen_from_host(&web, "80")).is_some(), "the host, too");
    d.ok(&["restart", "-t", "0", "bad"]);
    assert!(soon(|| seen_from(&d, "bad", &web, "80")).is_some(), "its own address works");
}

#[test]
fn a_network_may_trust_its_containers() {
    let mut d = Daemon::start();
    d.ok(&["network", "create", "-o", "silo.guard=false", "trusted"]);
    serve(&d, "web", &["--network", "trusted"]);
    let web = address(&d, "web");
    let free = format!("{}.77", web.rsplit_once('.').unwrap().0);
    // As routers that share an address do (VRRP).
    let take = format!("ip addr add {free}/16 dev eth0 && exec sleep 600");
    let admin = ["--network", "trusted", "--cap-add", "NET_ADMIN"];
    d.ok(&[&["run", "-d", "--name", "router"], &admin[..], &[IMAGE, "sh", "-c", &take]].concat());
    let reached = |d: &Daemon| {
        let ping = || d.docker(&["exec", "web", "ping", "-c", "1", "-W", "1", &free]).code == 0;
        soon(|| ping().then(String::new)).is_some()
    };
    assert!(reached(&d), "{free} is the router's");
    d.stop(true);
    d.again();
    assert!(reached(&d), "{free} is the router's after a restart");
    d.fails(&["network", "create", "-o", "silo.guard=no", "bad"], "failed to parse silo.guard value: no");
}

#[test]
fn the_hosts_own_rules_stay_as_they_are() {
    let mut d = Daemon::start();
    let table = format!("user_{}", d.bridge());
    let nft = |arguments: &[&str]| {
        let output = Command::new("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    nft(&["add", "table", "inet", &table]);
    nft(&["add", "chain", "inet", &table, "f", "{ type filter hook forward priority 0 ; policy accept ; }"]);
    nft(&["add", "rule", "inet", &table, "f", "tcp", "dport", "9", "drop"]);
    let before = nft(&["list", "table", "inet", &table]);
    let ours = || {
        ["inet", "bridge"]
            .map(|family| nft(&["-s", "list", "table", family, &format!("silo_{}", d.bridge())]))
    };
    d.ok(&["run", "-d", "--name", "web", "-p", "80", IMAGE, "sleep", "600"]);
    let with = ours();
    assert!(with[0].contains(". 80 }"), "{with:?}");
    d.ok(&["network", "create", "net"]);
    d.ok(&["network", "rm", "net"]);
    assert_eq!(ours(), with, "a network leaves nothing behind");
    // Somebody takes the tables away while no daemon runs.
    d.stop(true);
    silo_tests::remove_tables(d.bridge());
    d.again();
    let again = ["inet", "bridge"].map(|f| nft(&["-s", "list", "table", f, &format!("silo_{}", d.bridge())]));
    assert_eq!(again, with, "after a restart");
    assert_eq!(nft(&["list", "table", "inet", &table]), before);
    nft(&["delete", "table", "inet", &table]);
}
