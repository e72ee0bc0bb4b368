//! Another host: a network namespace with a wire to this one, and a web server in containers that tells who asks.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Daemon, Said};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// How long a connection may take, in seconds; one that is refused by silence takes it all.
const PATIENCE: &str = "2";

/// Another host. Goes, with its wire, when dropped.
pub struct Outside {
    name: String,
    net: String,
}

fn ip(arguments: &str) {
    let said: Said = Command::new("ip").args(arguments.split(' ')).output().unwrap().into();
    assert_eq!(said.code, 0, "ip {arguments}: {said:?}");
}

impl Outside {
    /// One that routes everything through this host.
    pub fn start() -> Self {
        let (process, serial) = (std::process::id(), SERIAL.fetch_add(1, Ordering::SeqCst));
        // Of the addresses for benches (RFC 2544): no test's network has them.
        let net = format!("198.{}.{}.{}", 18 + serial / 64 % 2, process % 250, serial % 64 * 4);
        let (net, last) = net.rsplit_once('.').unwrap();
        let address = |n: u32| format!("{net}.{}", last.parse::<u32>().unwrap() + n);
        let outside = Self { name: format!("so{}x{serial}", process % 100_000), net: address(0) };
        let Self { name, .. } = &outside;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"));
        ip(&format!("addr add {}/30 dev {name}", address(1)));
        ip(&format!("-n {name} addr add {}/30 dev eth0", address(2)));
        for link in [
            format!("link set {name} up"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&link);
        }
        ip(&format!("-n {name} route add default via {}", address(1)));
        outside
    }

    fn address(&self, n: u32) -> String {
        let (net, last) = self.net.rsplit_once('.').unwrap();
        format!("{net}.{}", last.parse::<u32>().unwrap() + n)
    }

    /// This host's address on the wire.
    pub fn gateway(&self) -> String {
        self.address(1)
    }

    /// Its own.
    pub fn own(&self) -> String {
        self.address(2)
    }

    /// Whom the web server at an address and port sees; `None`: no answer.
    pub fn seen_by(&self, address: &str, port: &str) -> Option<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "timeout", PATIENCE, "busybox", "nc", address, port]);
        ask(command)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Starts a container that answers on port 80 with whom it sees.
pub fn serve(d: &Daemon, name: &str, arguments: &[&str]) {
    let script = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /www/cgi-bin/who; \
        chmod +x /www/cgi-bin/who; httpd -p 80 -h /www; echo serving; exec sleep 600";
    let all =
        [&["run", "-d", "--name", name], arguments, &["localhost/busybox", "sh", "-c", script]].concat();
    d.ok(&all);
    d.await_line(&["logs", "-f", name], "serving");
}

/// Asks again until there is an answer, or no more patience.
pub fn soon(ask: impl Fn() -> Option<String>) -> Option<String> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match ask() {
            None if Instant::now() < until => {}
            other => return other,
        }
    }
}

/// The same from this host.
pub fn seen_from_host(address: &str, port: &str) -> Option<String> {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "busybox", "nc", address, port]);
    ask(command)
}

/// The same from a container.
pub fn seen_from(d: &Daemon, container: &str, address: &str, port: &str) -> Option<String> {
    ask(d.command(&["exec", "-i", container, "timeout", PATIENCE, "nc", address, port]))
}

fn ask(mut command: Command) -> Option<String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Who is refused does not read.
    let _ = child.stdin.take().unwrap().write_all(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n");
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let seen = text.lines().next_back().filter(|_| text.starts_with("HTTP/1"))?;
    Some(seen.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_owned())
}
