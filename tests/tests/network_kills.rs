//! The daemon is killed at random moments while networks, adapters and ports change: after its next start rules, addresses and names are
//! exactly those of the running containers.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::{Daemon, Random};

const IMAGE: &str = "localhost/busybox";

/// The elements of a set or map of the daemon's tables, each as the list of its key's parts.
fn elements(d: &Daemon, family: &str, form: &str, name: &str) -> Vec<Vec<String>> {
    let table = format!("silo_{}", d.bridge());
    let output = Command::new("nft").args(["-j", "list", form, family, &table, name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = json["nftables"].as_array().unwrap().iter().find_map(|o| o[form]["elem"].as_array());
    let word = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let parts = |element: &serde_json::Value| {
        let key = if form == "map" { &element[0] } else { element };
        match key["concat"].as_array() {
            Some(list) => list.iter().map(word).collect(),
            None => vec![word(key)],
        }
    };
    found.into_iter().flatten().map(parts).collect()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn same(what: &str, is: &BTreeSet<String>, told: &BTreeSet<String>) -> Result<(), String> {
    if is == told { Ok(()) } else { Err(format!("{what}: there is {is:?}, told is {told:?}")) }
}

/// What there is on the host against what these containers, which run, say.
fn compare(d: &Daemon, running: &str) -> Result<(), String> {
    let inspect = |template: &str| {
        let mut arguments = vec!["inspect", "-f", template];
        arguments.extend(running.split_whitespace());
        words(&d.ok(&arguments))
    };
    let part = |family: &str, form: &str, name: &str, number: usize| -> BTreeSet<String> {
        elements(d, family, form, name).into_iter().map(|e| e[number].clone()).collect()
    };
    let told = inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}");
    same("addresses that may be sent from", &part("bridge", "set", "ipv4", 1), &told)?;
    let ports = inspect("{{range $p, $b := .NetworkSettings.Ports}}{{range $b}}{{.HostPort}} {{end}}{{end}}");
    same("published ports", &part("inet", "map", "any4", 1), &ports)?;
    let networks = d.ok(&["network", "ls", "-q", "--no-trunc", "--filter", "type=custom"]);
    let mut bridges: BTreeSet<_> = networks.lines().map(|id| format!("br-{}", &id[..12])).collect();
    bridges.insert(d.bridge().to_owned());
    same("bridges", &part("inet", "set", "bridges", 0), &bridges)?;
    let mut adapters = BTreeSet::new();
    for bridge in &bridges {
        let list = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap();
        adapters.extend(list.flatten().map(|e| e.file_name().to_string_lossy().into_owned()));
    }
    same("adapters", &part("bridge", "set", "adapters", 0), &adapters)?;
    if adapters.len() == told.len() { Ok(()) } else { Err(format!("{adapters:?} have {told:?}")) }
}

/// How long one that has just ended may take to leave its networks after it is shown as that; nobody tells when it has.
const LEAVES: Duration = Duration::from_secs(5);

/// What there is on the host against what the running containers say.
fn agree(d: &Daemon, round: u64) {
    let running = d.ok(&["ps", "-q"]);
    let until = Instant::now() + LEAVES;
    while let Err(why) = compare(d, &running) {
        assert!(Instant::now() < until, "round {round}: {why}");
        std::thread::sleep(Duration::from_millis(20));
    }
    for container in running.split_whitespace() {
        let inside = d.ok(&["exec", container, "ip", "-4", "-o", "addr", "show"]);
        let inside: BTreeSet<_> = inside
            .lines()
            .filter(|l| !l.contains(": lo "))
            .filter_map(|l| l.split_whitespace().nth(3)?.split('/').next().map(str::to_owned))
            .collect();
        let routes = d.ok(&["exec", container, "ip", "route"]);
        let ways_out = routes.lines().filter(|l| l.starts_with("default via")).count();
        assert_eq!(ways_out, usize::from(!inside.is_empty()), "round {round}: {container}: {routes}");
        let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        assert_eq!(inside, words(&d.ok(&["inspect", "-f", own, container])), "round {round}: {container}");
    }
    // Names, as the container that is always there is told them.
    let template = "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}";
    for member in words(&d.ok(&["network", "inspect", "-f", template, "base"])) {
        let (name, address) = member.split_once('=').unwrap();
        let said = d.ok(&["exec", "always", "nslookup", name, "127.0.0.11"]);
        let address = address.split('/').next().unwrap();
        assert!(said.contains(&format!("Address: {address}")), "round {round}: {name} {address}: {said}");
    }
    let gone = d.docker(&["exec", "always", "nslookup", "gone", "127.0.0.11"]);
    assert!(!gone.out.contains("Name:"), "round {round}: {gone:?}");
}

#[test]
fn networks_are_those_of_the_running_containers_after_a_kill() {
    let mut d = Daemon::start();
    d.ok(&["network", "create", "base"]);
    d.ok(&["run", "-d", "--name", "always", "--network", "base", "-p", "80", IMAGE, "sleep", "6000"]);
    let script = "docker network create net; docker run -d --name one --network net -p 81 -p 82/udp localhost/busybox sleep 6000; \
        docker run -d --name two --network base -p 83 localhost/busybox sleep 6000; docker network connect base one; \
        docker network disconnect base two; docker network connect net two; docker kill two; docker network disconnect net one; \
        docker rm -f one two; docker network rm net";
    let mut random = Random::new(silo_tests::seed(7));
    for round in 0..silo_tests::rounds(4) {
        let mut client = Command::new("sh")
            .args(["-c", script])
            .env("DOCKER_HOST", d.host())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment is the point.
        std::thread::sleep(Duration::from_millis(random.below(2_500)));
        d.stop(true);
        client.wait().unwrap();
        d.again();
        agree(&d, round);
        d.docker(&["rm", "-f", "one", "two"]);
        d.docker(&["network", "rm", "net"]);
        agree(&d, round);
    }
}
