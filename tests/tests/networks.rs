//! Networks of a user's own, by the stock client; what needs another host beside this one is in other files.

use serde_json::json;
use silo_tests::Daemon;

const IMAGE: &str = "localhost/busybox";

/// What a template prints of a container or a network.
fn shown(d: &Daemon, name: &str, template: &str) -> String {
    d.ok(&["inspect", "-f", template, name])
}

#[test]
fn a_network_is_made_shown_and_removed() {
    let d = Daemon::start();
    let id = d.ok(&[
        "network",
        "create",
        "--subnet",
        "10.231.0.0/16",
        "--ip-range",
        "10.231.5.0/24",
        "--gateway",
        "10.231.5.254",
        "--aux-address",
        "a=10.231.1.5",
        "--label",
        "tier=back",
        "back",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    let template = "{{.Name}} {{.Driver}} {{.Scope}} {{json .IPAM.Config}} {{json .Labels}}";
    assert_eq!(
        d.ok(&["network", "inspect", "-f", template, &id[..12]]),
        "back bridge local [{\"Subnet\":\"10.231.0.0/16\",\"IPRange\":\"10.231.5.0/24\",\"Gateway\":\"10.231.5.254\",\
         \"AuxiliaryAddresses\":{\"a\":\"10.231.1.5\"}}] {\"tier\":\"back\"}"
    );
    for filter in ["label=tier=back", "name=bac", "driver=bridge", "type=custom", "dangling=true"] {
        let names = d.ok(&["network", "ls", "--filter", filter, "--format", "{{.Name}}"]);
        assert!(names.lines().any(|n| n == "back"), "{filter}: {names}");
    }
    assert_eq!(
        d.ok(&["network", "ls", "--filter", "type=builtin", "--format", "{{.Name}}"]),
        "bridge\nhost\nnone"
    );
    d.fails(&["network", "create", "back"], "network with name back already exists");
    d.fails(&["network", "create", "bridge"], "operation is not permitted on predefined bridge network");
    d.fails(&["network", "create", "-d", "host", "x"], "only one instance of \"host\" network is allowed");
    d.fails(&["network", "create", "-d", "weave", "x"], "plugin \"weave\" not found");
    d.fails(&["network", "create", "-d", "overlay", "x"], "This node is not a swarm manager");
    d.fails(&["network", "create", "-o", "dev.silo.max-egress=fast", "x"], "\"fast\" is no bandwidth");
    d.fails(&["network", "rm", "bridge"], "bridge is a pre-defined network and cannot be removed");
    d.fails(&["network", "inspect", "nosuch"], "network nosuch not found");
    assert_eq!(d.ok(&["network", "rm", "back"]), "back");
    d.fails(&["network", "rm", "back"], "network back not found");
}

#[test]
fn a_container_is_on_the_network_it_asks_for() {
    let d = Daemon::start();
    d.ok(&["network", "create", "--subnet", "10.232.0.0/24", "front"]);
    d.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "--ip",
        "10.232.0.10",
        "--mac-address",
        "02:42:0a:e8:00:0a",
        "--network-alias",
        "www",
        IMAGE,
        "sleep",
        "1000",
    ]);
    let endpoint = "{{with .NetworkSettings.Networks.front}}{{.IPAddress}} {{.IPPrefixLen}} {{.Gateway}} {{.MacAddress}} \
                    {{.Aliases}} {{.IPAMConfig.IPv4Address}}{{end}}";
    assert_eq!(shown(&d, "web", endpoint), "10.232.0.10 24 10.232.0.1 02:42:0a:e8:00:0a [www] 10.232.0.10");
    // Of the default network there is nothing.
    assert_eq!(shown(&d, "web", "{{.NetworkSettings.IPAddress}}"), "");
    let id = shown(&d, "web", "{{.Id}}");
    let names = shown(&d, "web", "{{.NetworkSettings.Networks.front.DNSNames}}");
    assert_eq!(names, format!("[web www {}]", &id[..12]));
    let inside = d.ok(&["exec", "web", "sh", "-c", "ip -4 addr show eth0; ip route; cat /etc/hosts"]);
    assert!(inside.contains("10.232.0.10/24") && inside.contains("default via 10.232.0.1"), "{inside}");
    assert!(inside.contains(&format!("10.232.0.10\t{}", &id[..12])), "{inside}");
    let users = d.ok(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "front",
    ]);
    assert_eq!(users, "web 10.232.0.10/24");
    assert_eq!(
        d.ok(&["ps", "--filter", "network=front", "--format", "{{.Names}} {{.Networks}}"]),
        "web front"
    );
    d.fails(&["network", "rm", "front"], "network front has active endpoints (name:\"web\" id:\"");
    d.ok(&["run", "--rm", "--network", "front", IMAGE, "ping", "-c", "1", "-W", "2", "10.232.0.10"]);
    // A container that does not run holds no network.
    d.ok(&["kill", "web"]);
    d.ok(&["wait", "web"]);
    d.ok(&["network", "rm", "front"]);
    let network = shown(&d, "web", "{{.NetworkSettings.Networks.front.NetworkID}}");
    d.fails(&["start", "web"], &format!("network {network} not found"));
    d.ok(&["network", "create", "front"]);
    d.fails(&["start", "web"], &format!("network {network} not found"));
    d.ok(&["rm", "web"]);
}

#[test]
fn what_an_endpoint_cannot_have_is_refused_in_dockerds_words() {
    let d = Daemon::start();
    d.ok(&["network", "create", "chosen"]);
    d.ok(&["network", "create", "--subnet", "10.233.0.0/24", "given"]);
    let run = |options: &[&str], words: &str| {
        let all = [&["run", "--rm"], options, &[IMAGE, "true"]].concat();
        d.fails(&all, words);
    };
    run(&["--ip", "172.17.0.9"], "user specified IP address is supported on user defined networks only");
    run(
        &["--network", "chosen", "--ip", "10.9.9.9"],
        "user specified IP address is supported only when connecting to networks with user configured subnets",
    );
    run(
        &["--network", "given", "--ip", "10.9.9.9"],
        "no configured subnet or ip-range contain the IP address 10.9.9.9",
    );
    run(&["--network-alias", "x"], "network-scoped alias");
    run(&["--network", "given", "--mac-address", "nonsense"], "nonsense");
    run(
        &["--network", "given", "--network", "none"],
        "cannot attach both user-defined and non-user-defined network-modes",
    );
    run(
        &["--network", "given", "--label", "dev.silo.max-egress=fast"],
        "label dev.silo.max-egress: \"fast\" is no bandwidth",
    );
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let d = Daemon::start();
    d.ok(&["network", "create", "--subnet", "10.234.1.0/24", "one"]);
    d.ok(&["network", "create", "--subnet", "10.234.2.0/24", "two"]);
    d.ok(&["network", "create", "--subnet", "10.234.3.0/24", "--internal", "apart"]);
    d.ok(&["run", "-d", "--name", "web", "--network", "two", IMAGE, "sleep", "1000"]);
    let before = d.ok(&["exec", "web", "ip", "-o", "-4", "addr"]);
    assert!(before.contains("10.234.2.2/24") && !before.contains("10.234.1."), "{before}");
    d.ok(&["network", "connect", "--alias", "w", "--ip", "10.234.1.77", "one", "web"]);
    d.fails(&["network", "connect", "one", "web"], "endpoint with name web already exists in network one");
    let route = || d.ok(&["exec", "web", "ip", "route", "show", "default"]);
    // The first by name has the default route, the one with the highest priority before it.
    assert!(route().contains("via 10.234.1.1"), "{}", route());
    d.ok(&["network", "connect", "apart", "web"]);
    let addresses = d.ok(&["exec", "web", "ip", "-o", "-4", "addr"]);
    for address in ["10.234.1.77/24", "10.234.2.2/24", "10.234.3."] {
        assert!(addresses.contains(address), "{addresses}");
    }
    assert!(route().contains("via 10.234.1.1"), "{}", route());
    d.ok(&["run", "--rm", "--network", "one", IMAGE, "ping", "-c", "1", "-W", "2", "10.234.1.77"]);
    d.ok(&["network", "disconnect", "one", "web"]);
    d.fails(&["network", "disconnect", "one", "web"], "is not connected to network one");
    assert!(route().contains("via 10.234.2.1"), "{}", route());
    let hosts = d.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.234.2.2\t") && !hosts.contains("10.234.1.77"), "{hosts}");
    d.ok(&["network", "connect", "--gw-priority", "5", "one", "web"]);
    // What it is connected to now, it is after a restart.
    d.ok(&["restart", "-t", "0", "web"]);
    let networks = shown(&d, "web", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
    assert_eq!(networks.trim(), "apart one two");
    assert!(route().contains("via 10.234.1.1"), "{}", route());
    let events = d.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        &silo_tests::now(),
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    assert!(
        events.contains("create one\n") && events.contains("connect one\ndisconnect one\n")
            || events.contains("disconnect one"),
        "{events}"
    );
    // From none to one again; each time the interface that is left is reached.
    for network in ["two", "one", "apart"] {
        d.ok(&["network", "disconnect", network, "web"]);
    }
    let left = d.ok(&["exec", "web", "ip", "-o", "addr"]);
    assert!(!left.contains("10.234."), "{left}");
    d.ok(&["network", "connect", "--ip", "10.234.2.9", "two", "web"]);
    d.ok(&["network", "connect", "--ip", "10.234.1.9", "one", "web"]);
    d.ok(&["network", "disconnect", "two", "web"]);
    d.ok(&["run", "--rm", "--network", "one", IMAGE, "ping", "-c", "1", "-W", "2", "10.234.1.9"]);
    d.ok(&["exec", "web", "ping", "-c", "1", "-W", "2", "10.234.1.1"]);
    d.ok(&["rm", "-f", "web"]);
    assert_eq!(d.ok(&["network", "prune", "-f"]), "Deleted Networks:\napart\none\ntwo");
}

#[test]
fn a_stopped_container_is_connected_for_its_next_start() {
    let d = Daemon::start();
    d.ok(&["network", "create", "--subnet", "10.235.1.0/24", "one"]);
    d.ok(&["create", "--name", "web", IMAGE, "ip", "-o", "-4", "addr"]);
    d.ok(&["network", "disconnect", "bridge", "web"]);
    d.ok(&["network", "connect", "--ip", "10.235.1.8", "one", "web"]);
    assert_eq!(shown(&d, "web", "{{.NetworkSettings.Networks.one.IPAMConfig.IPv4Address}}"), "10.235.1.8");
    let out = d.ok(&["start", "-a", "web"]);
    assert!(out.contains("10.235.1.8/24"), "{out}");
    d.fails(&["network", "disconnect", "bridge", "web"], "is not connected to the network bridge");
}

#[test]
fn containers_of_one_network_find_each_other_by_name() {
    let d = Daemon::start();
    d.ok(&["network", "create", "mine"]);
    d.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "mine",
        "--network-alias",
        "www",
        IMAGE,
        "sleep",
        "1000",
    ]);
    let look = |name: &str| d.docker(&["run", "--rm", "--network", "mine", IMAGE, "nslookup", name]);
    let address = shown(&d, "web", "{{.NetworkSettings.Networks.mine.IPAddress}}");
    let id = shown(&d, "web", "{{.Id}}");
    for name in ["web", "www", &id[..12], "web.mine"] {
        let said = look(name);
        assert!(said.out.contains(&address), "{name}: {said:?}");
    }
    d.ok(&["rename", "web", "store"]);
    assert!(look("store").out.contains(&address) && !look("web").out.contains(&address));
    let linked =
        d.ok(&["run", "--rm", "--network", "mine", "--link", "store:shop", IMAGE, "nslookup", "shop"]);
    assert!(linked.contains(&address), "{linked}");
    let resolv =
        d.ok(&["run", "--rm", "--network", "mine", "--dns-search", "lan", IMAGE, "cat", "/etc/resolv.conf"]);
    // A machine has another loopback.
    let server = if silo_tests::isolation() == "hyperv" { "169.254.53.53" } else { "127.0.0.11" };
    let wanted = format!("nameserver {server}\nsearch lan\n");
    assert!(resolv.contains(&wanted) && resolv.contains("ndots:0"), "{resolv}");
    d.ok(&["rm", "-f", "store"]);
    assert!(!look("store").out.contains(&address));
}

#[test]
fn adapters_are_listed_limited_added_and_removed() {
    let d = Daemon::start();
    d.ok(&["network", "create", "-o", "dev.silo.max-egress=50Mbps", "slow"]);
    d.ok(&["run", "-d", "--name", "web", "--network", "slow", IMAGE, "sleep", "1000"]);
    let silo = |arguments: &[&str]| {
        let said = d.silo(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", d.log());
        said.out
    };
    let listed = silo(&["adapter", "ls", "web"]);
    assert!(listed.contains("eth0    slow") && listed.contains("50Mbps"), "{listed}");
    silo(&["adapter", "set", "web", "eth0", "--max-egress", "10Mbps", "--max-ingress", "20Mbps"]);
    let limits = || silo(&["adapter", "ls", "--json", "web"]);
    assert!(limits().contains(r#""Bandwidth":{"MaxEgress":10000000,"MaxIngress":20000000}"#), "{}", limits());
    let raw = d.get("/containers/web/json");
    assert!(raw.contains(r#""Bandwidth":{"MaxEgress":10000000,"MaxIngress":20000000}"#), "{raw}");
    d.ok(&["restart", "-t", "0", "web"]);
    assert!(limits().contains(r#""MaxEgress":10000000"#), "{}", limits());
    let refused = d.silo(&["adapter", "set", "web", "--max-egress", "fast"]);
    assert!(refused.code != 0 && refused.err.contains("\"fast\" is no bandwidth"), "{refused:?}");
    let refused = d.silo(&["adapter", "set", "web", "eth7", "--max-egress", "1Mbps"]);
    assert!(refused.err.contains("container web has no adapter eth7"), "{refused:?}");
    d.ok(&[
        "create",
        "--name",
        "labelled",
        "--label",
        "dev.silo.max-ingress=1Mbps",
        "--network",
        "slow",
        IMAGE,
    ]);
    let of_label = silo(&["adapter", "ls", "labelled"]);
    assert!(
        of_label.contains("1Mbps") && of_label.contains("50Mbps") && of_label.contains("down"),
        "{of_label}"
    );
    silo(&["adapter", "add", "labelled", "--network", "bridge", "--max-egress", "3Mbps"]);
    assert!(silo(&["adapter", "ls", "labelled"]).contains("3Mbps"));
    silo(&["adapter", "rm", "labelled", "bridge"]);
    assert!(!silo(&["adapter", "ls", "labelled"]).contains("3Mbps"));
}

#[test]
fn networks_are_made_with_the_settings_of_another() {
    let mut d = Daemon::start();
    let range =
        ["--subnet", "10.237.0.0/24", "--ip-range", "10.237.0.128/25", "--aux-address", "a=10.237.0.9"];
    let options = ["-o", "silo.max-egress=7Mbps", "--label", "of=both", "--ipam-opt", "kept=shown"];
    d.ok(&[&["network", "create", "--config-only"], &range[..], &options, &["recipe"]].concat());
    assert_eq!(shown(&d, "recipe", "{{.Driver}} {{.ConfigOnly}}"), "null true");
    assert_eq!(shown(&d, "recipe", "{{(index .IPAM.Config 0).IPRange}}"), "10.237.0.128/25");
    let from = ["network", "create", "--config-from"];
    d.fails(
        &[&from[..], &["recipe", "--subnet", "10.1.0.0/24", "bad"]].concat(),
        "user specified configurations",
    );
    d.fails(&[&from[..], &["recipe", "-o", "a=b", "bad"]].concat(), "driver options are not supported");
    let malformed = json!({"Name": "bad", "ConfigOnly": true, "IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "Gateway": "10.2.0.1"}]}});
    let (status, said) = d.post("/networks/create", &malformed);
    assert!(status == 400 && said.contains("invalid gateway 10.2.0.1"), "{status} {said}");
    d.fails(&[&from[..], &["bridge", "bad"]].concat(), "configuration network \"bridge\" does not exist");
    d.fails(&[&from[..], &["recipe", "--config-only", "bad"]].concat(), "cannot depend on another");
    d.fails(
        &["network", "create", "--config-only", "--internal", "bad"],
        "can only contain network specific fields",
    );
    d.fails(
        &["run", "--rm", "--network", "recipe", IMAGE, "true"],
        "cannot create endpoint on configuration-only",
    );
    d.ok(&[&from[..], &["recipe", "made"]].concat());
    assert_eq!(shown(&d, "made", "{{.Driver}} {{.ConfigFrom.Network}} {{.Labels.of}}"), "bridge recipe both");
    assert_eq!(
        shown(&d, "made", "{{.IPAM.Options.kept}} {{(index .IPAM.Config 0).Subnet}}"),
        "shown 10.237.0.0/24"
    );
    d.ok(&["run", "-d", "--name", "on-made", "--network", "made", IMAGE, "sleep", "600"]);
    let address = d.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.made.IPAddress}}", "on-made"]);
    // The first one is the gateway's.
    assert_eq!(address, "10.237.0.129");
    let limits = d.silo(&["adapter", "ls", "on-made"]);
    assert!(limits.out.contains("7Mbps"), "{limits:?}");
    d.fails(&["network", "rm", "recipe"], "configuration network \"recipe\" is in use");
    d.stop(true);
    d.again();
    assert_eq!(shown(&d, "recipe", "{{.ConfigOnly}}"), "true");
    assert_eq!(shown(&d, "made", "{{.Driver}} {{.ConfigFrom.Network}} {{.Labels.of}}"), "bridge recipe both");
    d.fails(&["network", "rm", "recipe"], "configuration network \"recipe\" is in use");
    d.ok(&["exec", "on-made", "ping", "-c", "1", "-W", "5", "10.237.0.128"]);
    d.ok(&["rm", "-f", "on-made"]);
    // Of a configuration there is nothing to be pruned.
    let pruned = d.ok(&["network", "prune", "-f"]);
    assert!(pruned.contains("made") && !pruned.contains("recipe"), "{pruned}");
    d.ok(&["network", "rm", "recipe"]);
}

#[test]
fn everything_of_the_networks_goes_down_and_comes_back() {
    let mut d = Daemon::start();
    d.ok(&["network", "create", "--subnet", "10.236.0.0/24", "mine"]);
    d.ok(&["run", "-d", "--name", "web", "--network", "mine", "--restart", "always", IMAGE, "sleep", "1000"]);
    let bridge = d.ok(&["network", "inspect", "-f", "{{.Id}}", "mine"]);
    let bridge = format!("br-{}", &bridge[..12]);
    let there = |name: &str| std::path::Path::new("/sys/class/net").join(name).exists();
    assert!(there(&bridge) && there(d.bridge()));
    let refused = d.silo(&["system", "down"]);
    assert!(refused.code != 0 && refused.err.contains("containers are running: web"), "{refused:?}");
    let said = d.silo(&["system", "down", "--force"]);
    assert_eq!(said.code, 0, "{said:?}");
    d.await_end();
    assert!(!there(&bridge) && !there(d.bridge()));
    d.again();
    assert!(there(&bridge) && there(d.bridge()));
    d.ok(&["run", "--rm", "--network", "mine", IMAGE, "true"]);
    assert_eq!(
        d.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "mine"]),
        "10.236.0.0/24"
    );
    d.ok(&["rm", "-f", "web"]);
}
