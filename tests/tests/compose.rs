//! Debian's `docker-compose` against Silo: the shared suite, a file of several services, one of services of both guests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use silo_tests::{Daemon, NANOSERVER, Said, only_under};

/// How long a command of compose may take, in seconds.
const LIMIT: &str = "120";

/// A project in a directory of its own.
struct Project<'a> {
    daemon: &'a Daemon,
    dir: PathBuf,
}

impl<'a> Project<'a> {
    fn new(daemon: &'a Daemon, name: &str, file: &str) -> Self {
        let dir = daemon.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("docker-compose.yml"), file).unwrap();
        Self { daemon, dir }
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", LIMIT, "docker-compose", "--no-ansi"])
            .args(arguments)
            .current_dir(&self.dir);
        command.env("DOCKER_HOST", self.daemon.host()).env("COMPOSE_API_VERSION", "1.41");
        command.env("DOCKER_CONFIG", self.daemon.path("docker")).stdin(Stdio::null());
        command.output().unwrap().into()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "docker-compose {arguments:?}: {said:?}\n{}", self.daemon.log());
        said.out
    }
}

#[test]
fn the_shared_suite_passes() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites/compose/run");
    if !suite.exists() {
        eprintln!("SKIPPED: compose's suite is not at {}", suite.display());
        return;
    }
    if !only_under("process", "its port is a fixed one, and its times are a container's of the host's kernel")
    {
        return;
    }
    let d = Daemon::start();
    let said: Said = Command::new("timeout")
        .args(["-s", "KILL", "300"])
        .arg(&suite)
        .env("DOCKER_HOST", d.host())
        .env("DOCKER_CONFIG", d.path("docker"))
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    assert!(said.code == 0 && said.out.contains(" 0 failed"), "{said:?}\n{}", d.log());
}

const SEVERAL: &str = r#"
version: "2.4"
services:
  db:
    image: localhost/busybox
    command: sh -c 'mkdir -p /data; echo stored > /data/value; touch /ready; exec httpd -f -p 80 -h /data'
    healthcheck: {test: ["CMD", "test", "-f", "/ready"], interval: 1s, timeout: 5s, retries: 20}
    volumes: ["kept:/data"]
    networks: {back: {aliases: [store]}}
  web:
    image: localhost/busybox
    command: sh -c 'wget -qO /tmp/index.html http://store/value && exec httpd -f -p 8080 -h /tmp'
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
    ports: ["8080"]
  once:
    image: localhost/busybox
    command: sh -c 'test -e /data/again || { touch /data/again; echo first; exit 3; }; echo second; exec sleep 1000'
    restart: on-failure
    volumes: ["kept:/data"]
    networks: [back]
    depends_on: {db: {condition: service_healthy}}
  outside:
    image: localhost/busybox
    command: sleep 1000
    networks: [front]
networks:
  front: {}
  back: {internal: true}
volumes: {kept: {}}
"#;

#[test]
fn several_services_with_networks_volumes_health_and_scale() {
    let d = Daemon::start();
    let p = Project::new(&d, "several", SEVERAL);
    p.ok(&["up", "-d"]);
    let port = p.ok(&["port", "web", "8080"]);
    let port = port.rsplit(':').next().unwrap_or_default().to_owned();
    // It listens once it has fetched what the other stores.
    let fetch = format!(
        "for i in $(seq 100); do curl -fsS -m 5 http://127.0.0.1:{port}/index.html && exit; sleep 0.1; done; exit 1"
    );
    let fetched = Command::new("bash").args(["-c", &fetch]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&fetched.stdout), "stored\n", "{}", p.ok(&["logs"]));
    d.await_line(&["logs", "-f", "several_once_1"], "second");
    assert!(p.ok(&["logs", "once"]).contains("first"));
    p.ok(&["up", "-d", "--scale", "outside=3"]);
    assert_eq!(p.ok(&["ps", "-q", "outside"]).lines().count(), 3);
    // Service round robin: the name of the service is each one's alias.
    let found = p.ok(&["exec", "-T", "web", "nslookup", "outside"]);
    let addresses = found
        .lines()
        .filter(|l| l.starts_with("Address") && !l.contains("127.0.0.11") && !l.contains("169.254.53.53"))
        .count();
    assert_eq!(addresses, 3, "{found}");
    // Who is in `front` alone does not know `back`.
    assert_ne!(p.run(&["exec", "-T", "outside", "nslookup", "db"]).code, 0);
    p.ok(&["restart", "-t", "0", "web"]);
    p.ok(&["stop", "-t", "0"]);
    p.ok(&["start"]);
    p.ok(&["down", "-v", "-t", "0"]);
    assert_eq!(d.ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn services_of_both_guests_find_each_other_by_name() {
    let d = Daemon::windows();
    d.import_busybox();
    let file = format!(
        r#"
version: "2.4"
services:
  linux:
    image: localhost/busybox
    platform: linux
    command: sh -c 'mkdir /www; echo of linux > /www/index.html; exec httpd -f -p 80 -h /www'
  windows:
    image: {NANOSERVER}
    platform: windows
    command: cmd /c "ping -n 2 linux && ping -n 1000 127.0.0.1 > nul"
    depends_on: [linux]
"#
    );
    let p = Project::new(&d, "mixed", &file);
    p.ok(&["up", "-d"]);
    let linux =
        d.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.mixed_default.IPAddress}}", "mixed_linux_1"]);
    d.await_line(&["logs", "-f", "mixed_windows_1"], &linux);
    let found = p.ok(&["exec", "-T", "linux", "nslookup", "windows"]);
    let windows =
        d.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.mixed_default.IPAddress}}", "mixed_windows_1"]);
    assert!(found.contains(&windows), "{found}");
    p.ok(&["down", "-v", "-t", "0"]);
}
