//! An adapter carries what it may carry: each guest sends to this host and receives from it, by TCP and UDP.
//!
//! That no more comes through than the limit is true on a busy machine too: the receiver's clock starts before anybody sends.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::guests::{self, Guest, LINUX, WINDOWS};
use silo_tests::{Daemon, Random};

const MBIT: u64 = 1_000_000;
/// How long the other side may take to begin.
const BEGIN: Duration = Duration::from_secs(30);
/// TCP finds the rate in it, what it lost on the way has come, and the bucket's content is gone.
const WARM_UP: Duration = Duration::from_millis(1000);
/// Payload of a full frame.
const DATAGRAM: usize = 1472;
const PIECE: usize = 65536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The container sends.
    Egress,
    /// It receives.
    Ingress,
}

/// What a receiver saw: microseconds since it asked for the first byte, bytes until then.
struct Flow(Vec<(u64, u64)>);

impl Flow {
    fn parse(text: &str) -> Self {
        let number = |word: Option<&str>| word.and_then(|w| w.parse().ok());
        let sample = |line: &str| {
            let mut words = line.split_whitespace();
            number(words.next()).zip(number(words.next()))
        };
        Self(text.lines().filter_map(sample).collect())
    }

    /// Mbit/s after the warm-up.
    fn rate(&self) -> f64 {
        let warm = WARM_UP.as_micros() as u64;
        let first = self.0.iter().find(|(at, _)| *at >= warm).copied().unwrap_or_default();
        let last = self.0.last().copied().unwrap_or_default();
        if last.0 <= first.0 { 0.0 } else { (last.1 - first.1) as f64 * 8.0 / (last.0 - first.0) as f64 }
    }

    /// Of all moments the one at which most had come through of what might have: 5 ms of the rate, or 6400 bytes, at once, and
    /// the rate from then on (docs/networking.md).
    fn most(&self, limit: u64) -> f64 {
        let bytes = limit as f64 / 8.0;
        let at_once = (bytes * 0.005 * 1.03).max(6400.0);
        // Before a tenth of a second a frame more or less is much.
        let told = self.0.iter().filter(|(at, _)| *at > 100_000);
        told.map(|(at, came)| (*came as f64 - at_once) / (bytes * *at as f64 / 1e6)).fold(0.0, f64::max)
    }
}

/// Receives for so long, as `tests/probes/flow.c` does.
fn receive(
    time: Duration,
    mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    ask: impl Fn(),
) -> Flow {
    let (mut samples, mut bytes, mut told) = (Vec::new(), 0, 0);
    let (begin, mut piece) = (Instant::now(), vec![0; PIECE]);
    ask();
    loop {
        match read(&mut piece) {
            Ok(0) => break,
            // A datagram of one byte asks for the word that was lost.
            Ok(1) if bytes == 0 => ask(),
            Ok(n) => bytes += n as u64,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        let at = begin.elapsed().as_micros() as u64;
        let over = u128::from(at) >= time.as_micros();
        if at >= told + 50_000 || over {
            samples.push((at, bytes));
            told = at;
        }
        if over {
            break;
        }
    }
    Flow(samples)
}

/// A container whose adapter is limited, and the program in it.
struct Cell<'a> {
    d: &'a Daemon,
    guest: Guest,
    name: String,
    gateway: String,
}

impl<'a> Cell<'a> {
    /// The first limit is a label's.
    fn start(d: &'a Daemon, dir: &tempfile::TempDir, guest: Guest, limit: u64) -> Self {
        let name = guest.name.to_lowercase();
        let labels = ["egress", "ingress"].map(|way| format!("dev.silo.max-{way}={limit}"));
        let mut options = vec!["--label", &labels[0], "--label", &labels[1]];
        if guest == LINUX && silo_tests::rounds(0) > 0 {
            // iperf3 is the host's own.
            options.extend(["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"]);
        }
        guest.start(d, dir.path(), &name, &options, &["flow", "wait"]);
        let gateway = d.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
        Self { d, guest, name, gateway }
    }

    /// The others are set while it runs.
    fn limit(&self, limit: u64) {
        let rate = limit.to_string();
        let set = ["adapter", "set", &self.name, "--max-egress", &rate, "--max-ingress", &rate];
        let said = self.d.silo(&set);
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn exec(&self, arguments: &[&str]) -> Child {
        let path = self.guest.program("flow");
        let mut command = self.d.command(&[&["exec", &self.name, &path], arguments].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn measure(&self, udp: bool, way: Way, limit: u64, time: Duration) -> Flow {
        let time = WARM_UP + time;
        // A sender ends when nobody listens any more.
        let sends = (time + Duration::from_millis(500)).as_millis().to_string();
        let receives = time.as_millis().to_string();
        // More than can pass.
        let rate = limit + limit / 5;
        let (word, ms) = if way == Way::Egress { ("send", &sends) } else { ("receive", &receives) };
        let spawn = |port: u16| {
            let protocol = if udp { "udp" } else { "tcp" };
            self.exec(&[word, protocol, &self.gateway, &port.to_string(), ms, &rate.to_string()])
        };
        if udp {
            let socket = UdpSocket::bind((self.gateway.as_str(), 0)).unwrap();
            let mut child = spawn(socket.local_addr().unwrap().port());
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let end = Instant::now() + BEGIN;
            let peer = loop {
                if let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
                    break peer;
                }
                assert!(Instant::now() < end, "nobody comes");
            };
            socket.connect(peer).unwrap();
            if way == Way::Ingress {
                send_datagrams(&socket, &mut child, rate, time);
                return Flow::parse(&ended(child));
            }
            let flow = receive(time, |piece| socket.recv(piece), || drop(socket.send(b"g")));
            // The socket stays until the sender ends: Wine waits for ever, now and then, when it is refused.
            ended(child);
            return flow;
        }
        let listener = TcpListener::bind((self.gateway.as_str(), 0)).unwrap();
        let child = spawn(listener.local_addr().unwrap().port());
        let mut stream = accept(&listener);
        if way == Way::Ingress {
            send_stream(&mut stream);
            return Flow::parse(&ended(child));
        }
        let flow = receive(time, |piece| (&stream).read(piece), || (&stream).write_all(b"g").unwrap());
        drop(stream);
        ended(child);
        flow
    }

    /// What iperf3 in the container makes of it, Mbit/s received.
    fn iperf(&self, udp: bool, way: Way, limit: u64, seconds: u64) -> f64 {
        let port = TcpListener::bind((self.gateway.as_str(), 0)).unwrap().local_addr().unwrap().port();
        let port = port.to_string();
        let mut server = Command::new("iperf3");
        server.args(["-s", "-1", "--forceflush", "-B", &self.gateway, "-p", &port]).stdout(Stdio::piped());
        let mut server = server.spawn().expect("`cargo xtask soak bandwidth` installs iperf3");
        let mut line = String::new();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        while !line.contains("listening") {
            assert!(said.read_line(&mut line).unwrap() > 0, "iperf3 does not listen: {line}");
        }
        let (seconds, rate) = (seconds.to_string(), (limit + limit / 5).to_string());
        let mut all = vec!["exec", &self.name, "/usr/bin/iperf3", "-J", "-O", "1", "-t", &seconds];
        all.extend(["-c", &self.gateway, "-p", &port]);
        if udp {
            all.extend(["-u", "-l", "1472", "-b", &rate]);
        }
        if way == Way::Ingress {
            all.push("-R");
        }
        let text = self.d.ok(&all);
        let _ = server.kill();
        let _ = server.wait();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |of: &str, what: &str| told["end"][of][what].as_f64().unwrap_or(f64::NAN);
        let bits = if udp {
            number("sum", "bits_per_second") * (1.0 - number("sum", "lost_percent") / 100.0)
        } else {
            number("sum_received", "bits_per_second")
        };
        bits / 1e6
    }
}

/// What a program printed that must succeed.
fn ended(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {told}{}", output.status, String::from_utf8_lossy(&output.stderr));
    told
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + BEGIN;
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
            return stream;
        }
        assert!(Instant::now() < end, "nobody connects");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Until the receiver has enough.
fn send_stream(stream: &mut TcpStream) {
    let asked = stream.read_exact(&mut [0]);
    let piece = vec![0; PIECE];
    while asked.is_ok() && stream.write_all(&piece).is_ok() {}
}

fn send_datagrams(socket: &UdpSocket, receiver: &mut Child, rate: u64, time: Duration) {
    let (begin, mut sent) = (Instant::now(), 0);
    // Those who start slowly end later; a queue that is full holds a sender of this host up.
    let (end, mut looked) = (time + BEGIN, Duration::ZERO);
    while begin.elapsed() < end {
        if begin.elapsed() > looked + Duration::from_millis(20) {
            looked = begin.elapsed();
            if receiver.try_wait().unwrap().is_some() {
                return;
            }
        }
        if sent * 8 > begin.elapsed().as_micros() * u128::from(rate) / 1_000_000 {
            std::thread::sleep(Duration::from_millis(1));
        } else {
            let _ = socket.send(&[0; DATAGRAM]);
            sent += DATAGRAM as u128;
        }
    }
}

/// Figures of one guest: limit in Mbit/s, and for each column the least and the most.
type Table = BTreeMap<u64, BTreeMap<(bool, Way), (f64, f64)>>;

fn note(table: &mut Table, limit: u64, column: (bool, Way), rate: f64) {
    let at = table.entry(limit / MBIT).or_default().entry(column).or_insert((rate, rate));
    *at = (at.0.min(rate), at.1.max(rate));
}

fn print(title: &str, table: &Table) {
    println!("\n{title}, {}; Mbit/s of payload received", silo_tests::isolation());
    println!("| limit | TCP sent | TCP received | UDP sent | UDP received |\n|---|---|---|---|---|");
    let figure = |n: f64| {
        if n < 99.95 { format!("{n:.3}")[..5].trim_end_matches('.').to_owned() } else { format!("{n:.0}") }
    };
    for (limit, columns) in table {
        let cells = columns.values().map(|(least, most)| match (figure(*least), figure(*most)) {
            (a, b) if a == b => a,
            (a, b) => format!("{a}–{b}"),
        });
        println!("| {limit} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Which part of a limit must come through; what a busy or an emulated machine does not always carry is only printed.
fn least(guest: Guest, udp: bool, limit: u64) -> f64 {
    let emulated = silo_tests::isolation() == "hyperv";
    // Nobody sends a datagram again that a busy receiver has lost. Each of Wine's is a question to its server: so many a second,
    // far fewer where the processor is emulated.
    let few = udp && (limit > 10 * MBIT || guest == WINDOWS && emulated);
    match limit / MBIT {
        _ if few => 0.0,
        10 if emulated => 0.9,
        _ if emulated => 0.0,
        // A queue of eight frames: what TCP loses once costs it some of ten seconds.
        1 => 0.9,
        10 | 100 => 0.95,
        _ => 0.0,
    }
}

/// What one measurement must be.
fn judge(what: &str, flow: &Flow, limit: u64, least: f64, faults: &mut Vec<String>) {
    let (rate, most) = (flow.rate(), flow.most(limit));
    println!("{what}: {rate:.3} Mbit/s, {:.1} % of the limit at most", most * 100.0);
    if most > 1.05 {
        faults.push(format!("{what}: {most:.3} times the limit came through: {:?}", flow.0));
    }
    if rate < least * limit as f64 / 1e6 {
        faults.push(format!("{what}: {rate:.3} Mbit/s came through: {:?}", flow.0));
    }
}

/// What is measured, in this order: limit, UDP or TCP, which way, for so many seconds.
fn plan(rounds: u64) -> Vec<(u64, bool, Way, u64)> {
    if rounds == 0 {
        // Each limit both ways, and of the protocols one this way and the other that.
        let mut random = Random::new(silo_tests::seed(u64::from(std::process::id())));
        let of = |limit: u64, udp: bool| [(limit, udp, Way::Egress, 2), (limit, !udp, Way::Ingress, 2)];
        return [10, 100].into_iter().flat_map(|limit| of(limit * MBIT, random.below(2) == 1)).collect();
    }
    let mut all = Vec::new();
    for (_, limit) in (0..rounds).flat_map(|round| [1, 10, 100, 1000].map(|limit| (round, limit * MBIT))) {
        for udp in [false, true] {
            let time = if limit < 10 * MBIT { 10 } else { 4 };
            all.extend([Way::Egress, Way::Ingress].map(|way| (limit, udp, way, time)));
        }
    }
    all
}

fn campaign(guest: Guest, rounds: u64) {
    let (d, dir) = (guest.daemon(), guests::programs("flow"));
    let plan = plan(rounds);
    let mut now = plan[0].0;
    let cell = Cell::start(&d, &dir, guest, now);
    let (mut table, mut by_iperf, mut faults) = (Table::new(), Table::new(), Vec::new());
    for (limit, udp, way, time) in plan {
        if limit != now {
            cell.limit(limit);
            now = limit;
        }
        let flow = cell.measure(udp, way, limit, Duration::from_secs(time));
        let protocol = if udp { "UDP" } else { "TCP" };
        let what = format!("{}, {} Mbit/s, {protocol} {way:?}", guest.name, limit / MBIT);
        // How much comes through is a matter of time: the usual run asks only that it is no more than the limit.
        let least = if rounds > 0 { least(guest, udp, limit) } else { 0.0 };
        judge(&what, &flow, limit, least, &mut faults);
        note(&mut table, limit, (udp, way), flow.rate());
        if rounds > 0 && guest == LINUX {
            note(&mut by_iperf, limit, (udp, way), cell.iperf(udp, way, limit, time));
        }
    }
    if rounds > 0 {
        print(guest.name, &table);
        if !by_iperf.is_empty() {
            print(&format!("{}, by iperf3", guest.name), &by_iperf);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `cargo xtask soak bandwidth`: 1 to 1000 Mbit/s, all ways, and iperf3 beside it.
#[test]
fn a_linux_container_has_its_bandwidth_and_no_more() {
    campaign(LINUX, silo_tests::rounds(0));
}

/// The same campaign.
#[test]
fn a_windows_container_has_its_bandwidth_and_no_more() {
    campaign(WINDOWS, silo_tests::rounds(0));
}
