//! The part of the bench that is about networks and volumes, beside dockerd: TCP by iperf3, what a network and published
//! ports add to a start, names, random writes.
//!
//! An engine is measured while no other runs, for the rules of each see the other's packets; bench.rs starts them in turn,
//! [`ROUNDS`] times, and what counts are medians over all rounds.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench_measure::{limited, median, said, timed};
use crate::{Outcome, demo};

/// Rounds of both engines.
pub(crate) const ROUNDS: usize = 5;
/// Starts in turn, in a round: without and with a network, without and with ports.
const STARTS: usize = 10;
const MAPPED: usize = 3;
/// Questions in a round.
const QUESTIONS: &str = "2000";
/// Runs of what is measured of Silo alone.
const ALONE: usize = 5;
const WRITES: usize = 15;

const IMAGE: &str = "localhost/bench-net";
const NETWORK: &str = "bench";
const SERVER: &str = "server";
/// iperf3's own.
const PORT: &str = "5201";
const PORTS: &str = "20000-20099:20000-20099";
/// A client: seconds that count, after one that does not.
const CLIENT: &[&str] = &["iperf3", "-4", "-J", "-O", "1", "-t", "3", "-c"];
/// A server says when it listens, before each test.
const LISTEN: &[&str] = &["iperf3", "-s", "-4", "--forceflush"];
const LISTENS: &str = "Server listening on";

/// Limits in seconds: a command, a server's life.
const LIMIT: u32 = 120;
const LIFE: u32 = 900;
/// How long a server may take to listen (again).
const PATIENCE: Duration = Duration::from_secs(60);

/// What is promised of a figure.
pub(crate) enum Bound {
    /// At least this share of the peer's.
    Share(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// Rows of both engines, in the order of [`Samples::figures`].
pub(crate) const ROWS: &[(&str, Bound)] = &[
    ("TCP between containers on a user-made bridge, Gbit/s", Bound::Share(1.0)),
    ("TCP from the host to a container, Gbit/s", Bound::Share(1.0)),
    ("TCP to a published port from another host, Gbit/s", Bound::Share(1.0)),
    ("TCP to a published port from the host's loopback, Gbit/s", Bound::Share(1.0)),
    ("run --rm true: what bridge adds to none, ms", Bound::AtMost(5.0)),
    ("start: what 100 published ports add, s", Bound::AtMost(0.1)),
    ("DNS answer, median, ms", Bound::AtMost(1.0)),
];

/// Rows of Silo alone, in the order of [`alone`].
pub(crate) const ALONE_ROWS: &[(&str, Bound)] = &[
    ("64 KiB random writes into a volume, MB/s (dockerd: the host's own)", Bound::Share(0.95)),
    ("hyperv: TCP from a container to the host, Gbit/s", Bound::AtLeast(1.0)),
];

/// Another host: a network namespace with a wire to this one. Goes, with its wire, when dropped.
struct Outside {
    name: String,
    /// This host's address on the wire.
    gateway: String,
}

impl Outside {
    fn start() -> Outcome<Self> {
        let process = std::process::id();
        // Of the addresses for benches (RFC 2544).
        let net = format!("198.19.{}", process % 250);
        let outside = Self { name: format!("sb{}", process % 100_000), gateway: format!("{net}.1") };
        let Self { name, gateway } = &outside;
        for arguments in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add {gateway}/30 dev {name}"),
            format!("-n {name} addr add {net}.2/30 dev eth0"),
            format!("link set {name} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {gateway}"),
        ] {
            said(limited(LIMIT, "ip").args(arguments.split(' ')))?;
        }
        Ok(outside)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The wire goes later than the namespace if that is the one way to it; what is gone is no fault.
        for arguments in [["link", "delete", &self.name], ["netns", "delete", &self.name]] {
            let _ = limited(LIMIT, "ip").args(arguments).stderr(Stdio::null()).status();
        }
    }
}

/// What both engines are given.
pub(crate) struct Given {
    outside: Outside,
    /// This executable, for [`crate::bench_inside`].
    program: String,
    /// It, iperf3 and their libraries.
    archive: PathBuf,
}

/// Makes what both engines are given.
pub(crate) fn prepare(dir: &Path) -> Outcome<Given> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let program = std::env::current_exe().map_err(|e| format!("this executable: {e}"))?;
    let archive = dir.join("programs.tar");
    let script = r#"set -e; iperf3=$(command -v iperf3)
        { echo "$iperf3"; echo "$2"; ldd "$iperf3" "$2" | grep -o '/[^ ]* (' | tr -d ' ('; } | sort -u > "$1.list"
        tar -C / -chf "$1" -T "$1.list" 2> "$1.log" || { cat "$1.log" >&2; exit 1; }"#;
    said(limited(LIMIT, "sh").args(["-c", script, "sh"]).arg(&archive).arg(&program))?;
    Ok(Given { outside: Outside::start()?, program: program.display().to_string(), archive })
}

fn docker(host: &str, limit: u32, arguments: &[&str]) -> Command {
    let mut command = limited(limit, "docker");
    command.env("DOCKER_HOST", host).args(arguments);
    command
}

fn ok(host: &str, arguments: &[&str]) -> Outcome<String> {
    said(&mut docker(host, LIMIT, arguments))
}

/// Makes image and network in an engine that has none; both are used once, so that nothing is measured that happens once.
fn settle(host: &str, given: &Given) -> Outcome {
    const BASE: &str = "localhost/busybox";
    demo::busybox_at(host, BASE)?;
    ok(host, &["create", "--name", "make", BASE])?;
    let archive = std::fs::File::open(&given.archive);
    let archive = archive.map_err(|e| format!("{}: {e}", given.archive.display()))?;
    said(docker(host, LIMIT, &["cp", "-", "make:/"]).stdin(archive))?;
    ok(host, &["commit", "make", IMAGE])?;
    ok(host, &["rm", "make"])?;
    ok(host, &["network", "create", NETWORK])?;
    ok(host, &["run", "--rm", "--network", NETWORK, IMAGE, "true"])?;
    ok(host, &["run", "--rm", IMAGE, "true"]).map(drop)
}

/// An iperf3 that serves, in a container or on this host; ends with its owner.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    fn start(mut command: Command) -> Outcome<Self> {
        let name = format!("{command:?}");
        // One stream: what goes wrong is told where the words are missed that are waited for.
        let (reader, writer) = std::io::pipe().map_err(|e| format!("{name}: {e}"))?;
        let errors = writer.try_clone().map_err(|e| format!("{name}: {e}"))?;
        let child = command.stdout(writer).stderr(errors).spawn().map_err(|e| format!("{name}: {e}"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until the next test can begin.
    fn await_listening(&self) -> Outcome {
        let end = Instant::now() + PATIENCE;
        let mut told = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).map_err(|e| format!("iperf3 does not listen: {e}\n{told}"))?;
            if line.contains(LISTENS) {
                return Ok(());
            }
            told += &(line + "\n");
        }
    }

    /// Gbit/s that come from a client, after the next test can begin.
    fn rate(&self, client: &mut Command) -> Outcome<f64> {
        self.await_listening()?;
        rate_of(client)
    }
}

/// A client's command line, below what runs it.
fn client<'a>(before: &[&'a str], address: &'a str, port: &'a str) -> Vec<&'a str> {
    [before, CLIENT, &[address, "-p", port]].concat()
}

/// Gbit/s that a client's report tells as received.
fn rate_of(client: &mut Command) -> Outcome<f64> {
    let text = said(client)?;
    let report: Value = serde_json::from_str(&text).map_err(|e| format!("iperf3: {e}: {text}"))?;
    let rate = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(rate.ok_or_else(|| format!("iperf3 tells no rate: {text}"))? / 1e9)
}

impl Drop for Server {
    fn drop(&mut self) {
        // `timeout` passes it on, and kills what does not end by it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// What the rounds of one engine have shown.
#[derive(Default)]
pub(crate) struct Samples {
    /// Gbit/s, in the order of [`ROWS`].
    rates: [Vec<f64>; 4],
    /// Milliseconds of a run with `none` and `bridge`.
    runs: [Vec<f64>; 2],
    /// Seconds of a start without ports and with them.
    starts: [Vec<f64>; 2],
    /// Milliseconds.
    names: Vec<f64>,
}

impl Samples {
    /// Measures one engine, which has nothing yet.
    pub(crate) fn measure(&mut self, host: &str, given: &Given) -> Outcome {
        println!("measuring networks of {host}");
        settle(host, given)?;
        self.measure_starts(host)?;
        self.measure_ports(host)?;
        let listen = ["run", "--rm", "--name", SERVER, "--network", NETWORK, "-p", PORT, IMAGE];
        let server = Server::start(docker(host, LIFE, &[&listen, LISTEN].concat()))?;
        self.measure_rates(host, &server, given)?;
        let asker = ["run", "--rm", "--network", NETWORK, IMAGE, &given.program];
        let figure = ok(host, &[&asker[..], &["bench-inside", "ask", SERVER, QUESTIONS]].concat())?;
        self.names.push(number(&figure)?);
        println!(
            "so far {}",
            self.figures().iter().map(|f| format!("{f:.3}")).collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    fn measure_starts(&mut self, host: &str) -> Outcome {
        for _ in 0..STARTS {
            for (network, times) in ["none", "bridge"].iter().zip(&mut self.runs) {
                let run = ["run", "--rm", "--network", network, IMAGE, "true"];
                times.push(timed(|| ok(host, &run).map(drop))? * 1e3);
            }
        }
        Ok(())
    }

    fn measure_ports(&mut self, host: &str) -> Outcome {
        for _ in 0..MAPPED {
            for (options, times) in [&[][..], &["-p", PORTS]].iter().zip(&mut self.starts) {
                let create = [&["create", "--name", "mapped"], *options, &[IMAGE, "sleep", "600"]].concat();
                ok(host, &create)?;
                times.push(timed(|| ok(host, &["start", "mapped"]).map(drop))?);
                ok(host, &["rm", "-f", "mapped"])?;
            }
        }
        Ok(())
    }

    fn measure_rates(&mut self, host: &str, server: &Server, given: &Given) -> Outcome {
        // Before the container listens it may have no address.
        server.await_listening()?;
        let [containers, to_container, published, loopback] = &mut self.rates;
        let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = ok(host, &["inspect", "-f", address, SERVER])?;
        let port = ok(host, &["port", SERVER, PORT])?;
        let port = port.lines().next().and_then(|l| l.rsplit_once(':')).map(|(_, port)| port);
        let port = port.ok_or("the server's port is not published")?;
        let run = ["run", "--rm", "--network", NETWORK, IMAGE];
        // What was waited for is used up by the first test.
        containers.push(rate_of(&mut docker(host, LIMIT, &client(&run, &address, PORT)))?);
        let on_host = |before: &[&str], address: &str, port: &str| {
            let words = client(before, address, port);
            let mut command = limited(LIMIT, words[0]);
            command.args(&words[1..]);
            command
        };
        to_container.push(server.rate(&mut on_host(&[], &address, PORT))?);
        let Outside { name, gateway } = &given.outside;
        published.push(server.rate(&mut on_host(&["ip", "netns", "exec", name], gateway, port))?);
        loopback.push(server.rate(&mut on_host(&[], "127.0.0.1", port))?);
        Ok(())
    }

    /// Medians, in the order of [`ROWS`].
    pub(crate) fn figures(&self) -> Vec<f64> {
        let of = |samples: &Vec<f64>| median(samples.clone());
        let adds = |[without, with]: &[Vec<f64>; 2]| of(with) - of(without);
        let mut all: Vec<f64> = self.rates.iter().map(of).collect();
        all.extend([adds(&self.runs), adds(&self.starts), of(&self.names)]);
        all
    }
}

fn number(text: &str) -> Outcome<f64> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

/// Measures what Silo alone has, in a daemon that has nothing but the kernel for machines: figures and their peers, in the
/// order of [`ALONE_ROWS`].
pub(crate) fn alone(host: &str, given: &Given) -> Outcome<Vec<(f64, Option<f64>)>> {
    println!("measuring volumes and machines' networks of {host}");
    settle(host, given)?;
    let (inside, outside) = volume(host, given)?;
    Ok(vec![(inside, Some(outside)), (machine(host)?, None)])
}

/// MB/s into a volume, by a container and by the host, in turn.
fn volume(host: &str, given: &Given) -> Outcome<(f64, f64)> {
    ok(host, &["volume", "create", "bench"])?;
    let dir = ok(host, &["volume", "inspect", "-f", "{{.Mountpoint}}", "bench"])?;
    let run = ["run", "--rm", "-v", "bench:/data", IMAGE, &given.program, "bench-inside", "write"];
    let by_container = || number(&ok(host, &[&run[..], &["/data/inside"]].concat())?);
    let by_host = || {
        let path = format!("{dir}/outside");
        number(&said(limited(LIMIT, &given.program).args(["bench-inside", "write", &path]))?)
    };
    // The first of each makes its file.
    by_container()?;
    by_host()?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..WRITES {
        inside.push(by_container()?);
        outside.push(by_host()?);
    }
    ok(host, &["volume", "rm", "bench"])?;
    Ok((median(inside), median(outside)))
}

/// Gbit/s from a machine to this host.
fn machine(host: &str) -> Outcome<f64> {
    let gateway = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = ok(host, &["network", "inspect", "-f", gateway, NETWORK])?;
    let mut listen = limited(LIFE, LISTEN[0]);
    listen.args(&LISTEN[1..]).args(["-B", &gateway]);
    let server = Server::start(listen)?;
    let run = ["run", "--rm", "--isolation", "hyperv", "--network", NETWORK, IMAGE];
    // The first makes what the others are clones of.
    ok(host, &[&run[..], &["true"]].concat())?;
    let client = client(&run, &gateway, PORT);
    let mut rates = Vec::new();
    for _ in 0..ALONE {
        rates.push(server.rate(&mut docker(host, LIMIT, &client))?);
    }
    Ok(median(rates))
}
