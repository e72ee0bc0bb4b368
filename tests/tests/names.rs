//! Names of containers on networks of one's own, by the stock client: who is found, by whom, and for how long.

use std::net::UdpSocket;

use silo_tests::{Daemon, NANOSERVER};

const BUSYBOX: &str = "localhost/busybox";

/// What busybox's `nslookup` finds for a name, sorted; or that there is none.
fn found(d: &Daemon, container: &str, name: &str) -> String {
    let said = d.docker(&["exec", container, "nslookup", name]);
    let out = format!("{}\n{}", said.out, said.err);
    // The first address is the server's own.
    let answers = out.split_once("\n\n").map_or("", |(_, answers)| answers);
    let wanted = |line: &str| {
        let (_, value) = line.split_once("Address: ").or_else(|| line.split_once("name = "))?;
        Some(value.trim().to_owned())
    };
    let mut list: Vec<String> = answers.lines().filter_map(wanted).collect();
    list.sort();
    list.dedup();
    match list.is_empty() {
        true if out.contains("NXDOMAIN") => "none".into(),
        true if out.contains("SERVFAIL") => "failed".into(),
        true => out,
        false => list.join(" "),
    }
}

fn address(d: &Daemon, container: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    d.ok(&["inspect", "-f", &format, container])
}

/// A name server on this host, as long as the test runs: `outside.example` is 10.77.0.1, there is nothing else.
fn answer_for_the_world(address: &str) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let question = &bytes[12..length];
            let name = b"\x07outside\x07example\0";
            // Name, type and class; what follows (EDNS) is not answered.
            let end = question.iter().position(|b| *b == 0).unwrap() + 5;
            let (known, is_ipv4) = (question.starts_with(name), question[end - 4..end - 2] == [0, 1]);
            let answers = u8::from(known && is_ipv4);
            let mut reply = bytes[..2].to_vec();
            reply.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, answers, 0, 0, 0, 0]);
            reply.extend(&question[..end]);
            if answers == 1 {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 77, 0, 1]);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
}

/// A container that waits, on a network.
fn run(d: &Daemon, name: &str, network: &str, options: &[&str]) -> String {
    let mut arguments = vec!["run", "-d", "--name", name, "--network", network];
    arguments.extend(options);
    arguments.extend([BUSYBOX, "sleep", "1000"]);
    d.ok(&arguments)
}

#[test]
fn services_find_each_other_and_nobody_else() {
    let d = Daemon::start();
    d.ok(&["network", "create", "front"]);
    d.ok(&["network", "create", "back"]);
    let server = d.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "front"]);
    answer_for_the_world(&server);
    let web = run(&d, "web", "front", &["--network-alias", "svc", "--hostname", "webhost"]);
    run(&d, "web2", "front", &["--network-alias", "svc"]);
    run(&d, "db", "back", &[]);
    run(&d, "client", "front", &["--dns", &server, "--link", "web:linked", "--add-host", "extra:10.5.5.5"]);
    let (ip, ip2) = (address(&d, "web", "front"), address(&d, "web2", "front"));
    let both = if ip < ip2 { format!("{ip} {ip2}") } else { format!("{ip2} {ip}") };
    let check = |name: &str, expected: &str| assert_eq!(found(&d, "client", name), expected, "{name}");
    check("web", &ip);
    check("WEB.front", &ip);
    check(&web[..12], &ip);
    check("webhost", &ip);
    check("linked", &ip);
    check("svc", &both);
    check(&ip, "web.front");
    check("db", "none");
    check("outside.example", "10.77.0.1");
    assert!(d.docker(&["exec", "client", "ping", "-c", "1", "svc"]).code == 0);
    let files = d.ok(&["exec", "client", "cat", "/etc/resolv.conf", "/etc/hosts"]);
    let own = address(&d, "client", "front");
    for line in ["options ndots:0", "10.5.5.5\textra", &format!("{own}\t")] {
        assert!(files.contains(line), "{line} in {files}");
    }
    // What ends is found no more, what starts is.
    d.ok(&["rm", "-f", "web2"]);
    check("svc", &ip);
    d.ok(&["stop", "-t", "0", "web"]);
    check("web", "none");
    d.ok(&["start", "web"]);
    check("web", &address(&d, "web", "front"));
    d.ok(&["rename", "web", "other"]);
    check("other", &address(&d, "other", "front"));
}

#[test]
fn names_come_and_go_with_networks_and_outlive_the_daemon() {
    let mut d = Daemon::start();
    d.ok(&["network", "create", "front"]);
    d.ok(&["network", "create", "back"]);
    d.ok(&["network", "create", "--internal", "inner"]);
    run(&d, "client", "front", &[]);
    run(&d, "web", "front", &[]);
    run(&d, "db", "back", &["--network-alias", "store"]);
    run(&d, "alone", "inner", &[]);
    // Nobody outside of an internal network is asked, be it through the host.
    assert_eq!(found(&d, "alone", "example.com"), "failed");
    d.ok(&["network", "connect", "--alias", "tmp", "back", "client"]);
    assert_eq!(found(&d, "client", "store"), address(&d, "db", "back"));
    assert_eq!(found(&d, "db", "tmp"), address(&d, "client", "back"));
    d.ok(&["network", "disconnect", "back", "client"]);
    assert_ne!(found(&d, "client", "store"), address(&d, "db", "back"));
    d.stop(true);
    d.again();
    assert_eq!(found(&d, "client", "web"), address(&d, "web", "front"));
}

#[test]
fn windows_programs_find_names_by_their_own_calls() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("names.c", dir.path());
    let dockerfile = format!("FROM {NANOSERVER}\nCOPY probe.exe /probe.exe\n");
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    d.ok(&["build", "-q", "-t", "probe", &dir.path().display().to_string()]);
    d.ok(&["network", "create", "front"]);
    let waits = ["cmd", "/c", "ping -n 1000 127.0.0.1 > nul"];
    let start = ["run", "-d", "--network", "front", "--name"];
    d.ok(&[&start[..], &["web", "--network-alias", "svc", "probe"], &waits].concat());
    let search = ["--dns-search", "corp.example", "--add-host", "extra:10.5.5.5", "--hostname", "asker"];
    d.ok(&[&start[..], &["client"], &search, &["probe"], &waits].concat());
    let ip = address(&d, "web", "front");
    let out = |command: &[&str]| {
        let said = d.docker(&[&["exec", "client"], command].concat());
        assert_eq!(said.code, 0, "{command:?}: {said:?}");
        said.out.replace('\r', "")
    };
    assert_eq!(
        out(&["C:\\probe.exe", "web", "SVC.front", "nobody-is-called-so", "extra"]),
        format!("{ip}\n{ip}\nnone\n10.5.5.5")
    );
    assert_eq!(out(&["C:\\probe.exe", "-r", &ip]), "web.front");
    let server = if silo_tests::isolation() == "hyperv" { "169.254.53.53" } else { "127.0.0.11" };
    assert_eq!(out(&["C:\\probe.exe", "-d"]), server);
    assert!(out(&["ping", "-n", "1", "svc"]).contains(&ip));
    let own = address(&d, "client", "front");
    let all = out(&["ipconfig", "/all"]);
    let servers = format!("dns servers . . . . . . . . . . . : {server}\n");
    for wanted in [&own, "asker", "corp.example", &servers] {
        assert!(all.to_lowercase().contains(wanted), "{wanted} in {all}");
    }
    let looked = out(&["nslookup", "svc"]);
    assert!(looked.contains(&format!("Address:  {server}\n")), "{looked}");
    assert!(looked.contains(&format!("Name:    svc\nAddress:  {ip}")), "{looked}");
    assert!(out(&["nslookup", &ip]).contains("Name:    web.front\n"));
    let unknown = d.docker(&["exec", "client", "nslookup", "nobody-is-called-so.front"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.err.contains("can't find nobody-is-called-so.front: "), "{unknown:?}");
    let hosts = out(&["cmd", "/c", "type", r"C:\Windows\System32\drivers\etc\hosts"]);
    assert!(hosts.contains("10.5.5.5\textra") && hosts.contains(&format!("{own}\tasker")), "{hosts}");
    // It is the engine's, and nothing of it is the container's own.
    assert!(!d.ok(&["diff", "client"]).to_lowercase().contains("hosts"));
}
