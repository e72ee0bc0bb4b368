//! Published ports, by the stock client, from this host, another one and containers.

use std::net::{TcpListener, UdpSocket};
use std::time::Instant;

use silo_tests::Daemon;
use silo_tests::outside::{Outside, seen_from, seen_from_host, serve, soon};

const IMAGE: &str = "localhost/busybox";

fn gateway(d: &Daemon) -> String {
    d.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"])
}

/// `docker port` of a container, and the number in its first line.
fn port(d: &Daemon, name: &str) -> (String, String) {
    let text = d.ok(&["port", name]);
    let number = text.lines().next().and_then(|l| l.rsplit(':').next()).unwrap().to_owned();
    (text, number)
}

#[test]
fn a_port_is_reached_from_all_sides_and_the_client_is_seen() {
    let mut d = Daemon::start();
    let outside = Outside::start();
    serve(&d, "web", &["-p", "80"]);
    d.ok(&["run", "-d", "--name", "other", IMAGE, "sleep", "600"]);
    let (shown, number) = port(&d, "web");
    assert_eq!(shown, format!("80/tcp -> 0.0.0.0:{number}\n80/tcp -> [::]:{number}"));
    let all = |d: &Daemon| {
        let gateway = gateway(d);
        assert_eq!(soon(|| outside.seen_by(&outside.gateway(), &number)), Some(outside.own()));
        for address in ["127.0.0.1", "::1", &gateway, &outside.gateway()] {
            assert!(soon(|| seen_from_host(address, &number)).is_some(), "{address}");
        }
        for container in ["other", "web"] {
            assert!(soon(|| seen_from(d, container, &gateway, &number)).is_some(), "{container}");
        }
        let own = d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
        assert_eq!(outside.seen_by(&own, "80"), None, "the container's own address");
        assert!(soon(|| seen_from(d, "other", &own, "80")).is_some());
    };
    all(&d);
    // Killed and started again: the same.
    d.stop(true);
    assert_eq!(
        soon(|| outside.seen_by(&outside.gateway(), &number)),
        Some(outside.own()),
        "without a daemon"
    );
    d.again();
    all(&d);
    // Nobody else gets the number, until it is let go.
    let at = format!("0.0.0.0:{number}");
    assert!(TcpListener::bind(&at).is_err());
    d.ok(&["rm", "-f", "web"]);
    assert_eq!(outside.seen_by(&outside.gateway(), &number), None);
    TcpListener::bind(&at).unwrap();
}

#[test]
fn all_forms_are_understood_and_clashes_refused_by_name() {
    let d = Daemon::start();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let other = taken.local_addr().unwrap().port().to_string();
    d.fails(
        &["run", "-p", &format!("{other}:80"), IMAGE, "true"],
        &format!("failed to bind host port 0.0.0.0:{other}/tcp: address already in use"),
    );
    // Numbers below the ephemeral range: no other test takes them by chance.
    let base = 20_000 + std::process::id() % 1_000 * 10;
    let at = |n: u32| (base + n).to_string();
    let publish = [
        format!("127.0.0.1:{}:80", at(0)),
        format!("[::1]:{}:81", at(0)),
        format!("{}-{}:90-91/udp", at(1), at(2)),
        format!("{}:92/sctp", at(3)),
        format!("{}-{}:93", at(1), at(4)),
    ];
    let mut arguments = vec!["run", "-d", "--name", "forms", "--expose", "7/udp", "-P"];
    publish.iter().for_each(|p| arguments.extend(["-p", p.as_str()]));
    d.ok(&[&arguments[..], &[IMAGE, "sleep", "600"]].concat());
    let shown = d.ok(&["port", "forms"]);
    let lines = [
        format!("80/tcp -> 127.0.0.1:{}", at(0)),
        format!("81/tcp -> [::1]:{}", at(0)),
        format!("90/udp -> 0.0.0.0:{}", at(1)),
        format!("90/udp -> [::]:{}", at(1)),
        format!("91/udp -> 0.0.0.0:{}", at(2)),
        format!("92/sctp -> 0.0.0.0:{}", at(3)),
        format!("93/tcp -> 0.0.0.0:{}", at(1)),
        "7/udp -> 0.0.0.0:".to_owned(),
    ];
    for line in &lines {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert!(UdpSocket::bind(format!("0.0.0.0:{}", at(2))).is_err());
    d.fails(
        &["run", "-p", &format!("127.0.0.1:{}:80", at(0)), IMAGE, "true"],
        &format!("Bind for 127.0.0.1:{} failed: port is already allocated", at(0)),
    );
    d.fails(
        &["run", "-p", &format!("203.0.113.9:{}:80", at(5)), IMAGE, "true"],
        "cannot assign requested address",
    );
    d.ok(&["run", "--rm", "-p", &format!("{}:80", at(5)), IMAGE, "true"]);
}

#[test]
fn a_hundred_ports_are_published_at_once() {
    let d = Daemon::start();
    let start = |name: &str, arguments: &[&str]| {
        d.ok(&[&["create", "--name", name], arguments, &[IMAGE, "sleep", "600"]].concat());
        let begin = Instant::now();
        d.ok(&["start", name]);
        begin.elapsed()
    };
    start("first", &[]);
    let without = start("none", &[]);
    let first = 30_000 + std::process::id() % 10 * 100;
    let range = format!("{first}-{}:1-100", first + 99);
    let with = start("all", &["-p", &range]);
    println!("a start takes {without:?}, with 100 ports {with:?}");
    // Both families of each.
    assert_eq!(d.ok(&["port", "all"]).lines().count(), 200);
}
