//! What `docker events` tells, live and of the past, as dockerd tells it.

use std::io::BufRead;
use std::process::Stdio;

use silo_tests::{Daemon, now};

const IMAGE: &str = "localhost/busybox";
const FORMAT: &str = "{{.Type}} {{.Action}} {{json .Actor}}";

/// The past events since a moment, a line each.
fn since(d: &Daemon, moment: &str, more: &[&str]) -> Vec<String> {
    let now = now();
    let mut arguments = vec!["events", "--since", moment, "--until", &now, "--format", FORMAT];
    arguments.extend(more);
    d.ok(&arguments).lines().map(str::to_owned).collect()
}

#[test]
fn networks_and_volumes_are_told_at_a_containers_start_and_end() {
    let d = Daemon::start();
    d.ok(&["create", "--name", "aa", "-v", "data:/data:ro", IMAGE, "true"]);
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "aa"]);
    let network = d.ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"]);
    let moment = now();
    d.ok(&["start", "-a", "aa"]);
    let of_network = |action: &str| {
        format!(
            r#"network {action} {{"ID":"{network}","Attributes":{{"container":"{id}","name":"bridge","type":"bridge"}}}}"#
        )
    };
    let mount = format!(
        r#"volume mount {{"ID":"data","Attributes":{{"container":"{id}","destination":"/data","driver":"local","propagation":"","read/write":"false"}}}}"#
    );
    let unmount =
        format!(r#"volume unmount {{"ID":"data","Attributes":{{"container":"{id}","driver":"local"}}}}"#);
    d.await_state("aa", "{{.State.Status}}", "exited");
    let told = since(&d, &moment, &["--filter", "type=network", "--filter", "type=volume"]);
    assert_eq!(told, [of_network("connect"), mount, of_network("disconnect"), unmount]);
    let order = d.ok(&["events", "--since", &moment, "--until", &now(), "--format", "{{.Type}} {{.Action}}"]);
    let order: Vec<&str> = order.lines().filter(|l| !l.ends_with("attach")).collect();
    assert_eq!(
        order,
        [
            "network connect",
            "volume mount",
            "container start",
            "network disconnect",
            "volume unmount",
            "container die"
        ]
    );
    for (mode, kind) in [("host", "host"), ("none", "null")] {
        let moment = now();
        d.ok(&["run", "--rm", "--network", mode, "--isolation", "process", IMAGE, "true"]);
        let told = since(&d, &moment, &["--filter", "type=network"]);
        assert_eq!(told.len(), 2, "{told:?}");
        let wanted = format!(r#""name":"{mode}","type":"{kind}"}}"#);
        assert!(told.iter().all(|line| line.contains(&wanted)), "{told:?}");
    }
}

#[test]
fn volumes_made_for_a_container_are_told_and_go_with_it() {
    let d = Daemon::start();
    let moment = now();
    d.ok(&["run", "--rm", "-v", "/data", IMAGE, "true"]);
    let told = since(&d, &moment, &["--filter", "type=volume"]);
    let actions: Vec<&str> = told.iter().filter_map(|l| l.split(' ').nth(1)).collect();
    assert_eq!(actions, ["create", "mount", "unmount", "destroy"], "{told:?}");
}

#[test]
fn events_come_while_they_happen() {
    let d = Daemon::start();
    let mut command = d.command(&[
        "events",
        "--since",
        &now(),
        "--filter",
        "type=container",
        "--format",
        "{{.Actor.Attributes.name}} {{.Action}}",
    ]);
    let mut listening = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(listening.stdout.take().unwrap()).lines().map(Result::unwrap);
    // The first container's may be past events; once they are here the client listens, and the second's are live.
    for name in ["aa", "bb"] {
        d.docker(&["run", "--name", name, IMAGE, "sh", "-c", "exit 3"]);
        let last = format!("{name} die");
        let told: Vec<String> = lines.by_ref().take_while(|l| *l != last).collect();
        assert_eq!(told, ["create", "attach", "start"].map(|action| format!("{name} {action}")));
    }
    let _ = std::process::Command::new("kill").arg(listening.id().to_string()).status();
    listening.wait().unwrap();
}
