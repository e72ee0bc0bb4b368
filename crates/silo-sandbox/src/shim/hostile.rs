//! A shim whose agent says anything: it does not panic, believes nothing that cannot be, and keeps little of it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use silo_runtime::link::{CHUNK, Link, STREAMS, WINDOW};
use silo_runtime::protocol::{Answer, Call, FailureKind, Reply, Stats, decode};

use super::asked::Asker;
use super::host::Host;
use super::*;
use crate::contract::{Failure, SandboxState};
use crate::hyperv::machine::Machine;

/// A shim of a container that has been asked to start, its agent's end of the link, and a daemon's connection.
struct Scene {
    shim: Shim,
    agent: UnixStream,
    daemon: UnixStream,
    vmm: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

const ASKER: Asker = Asker { connection: 1, number: 1 };

fn scene(started: bool) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let config =
        ShimConfig { socket: dir.path().join("s"), isolation: Isolation::Hyperv, ..Default::default() };
    let signals = process::signal_fd(&[]).unwrap();
    let mut shim = Shim::new(dir.path(), config, signals).unwrap();
    shim.open().unwrap();
    let (ours, daemon) = UnixStream::pair().unwrap();
    shim.connect(ours.into()).unwrap();
    let (ours, agent) = UnixStream::pair().unwrap();
    agent.set_nonblocking(true).unwrap();
    daemon.set_nonblocking(true).unwrap();
    let vmm = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let machine = Machine::pretended(vmm.id() as i32, ours.into()).unwrap();
    shim.machine = Some(Host::new(machine));
    shim.tasks.get_mut(&FIRST).unwrap().open_remote(false, false);
    if started {
        shim.started_ms = 1;
        shim.tasks.get_mut(&FIRST).unwrap().pid = 1;
        for call in [Call::Stats, Call::Pids, Call::Signal { exec: None, signal: 9 }, exec("one")] {
            let _ = shim.ask_machine(ASKER, call, None);
        }
    }
    shim.machine_pump();
    Scene { shim, agent, daemon, vmm, _dir: dir }
}

fn exec(name: &str) -> Call {
    Call::Exec {
        exec: name.into(),
        process: Box::default(),
        stdin: true,
        stdin_once: false,
        size: (0, 0),
        capture: 0,
        note: String::new(),
    }
}

/// What an agent may send.
#[derive(Debug, Clone)]
enum Sent {
    Bytes(Vec<u8>),
    Frame(u8, u32, Vec<u8>),
    Message(u64, u8, u32),
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let stream = prop_oneof![0u32..12, any::<u32>()];
    prop_oneof![
        1 => bytes.clone().prop_map(Sent::Bytes),
        6 => (0u8..5, stream, bytes).prop_map(|(kind, stream, bytes)| Sent::Frame(kind, stream, bytes)),
        8 => (0u64..8, 0u8..9, 0u32..4).prop_map(|(id, kind, code)| Sent::Message(id, kind, code)),
    ]
}

fn answer(kind: u8, code: u32) -> Answer {
    let exit = Exit { code, oom_killed: true, at_ms: i64::MAX, error: "lies".repeat(10_000) };
    match kind {
        0 => Answer::Done,
        1 => Answer::Started { pid: code as i32 - 1 },
        2 => Answer::Stats(Box::new(Stats { memory_usage: u64::MAX, ..Default::default() })),
        3 => Answer::Pids(vec![-1; code as usize]),
        4 => Answer::Failed(Failure { kind: FailureKind::Other, message: "é".repeat(100_000) }),
        5 => Answer::Event(Event::Exited(exit)),
        6 => Answer::Event(Event::ExecExited { exec: code.to_string(), exit, output: "x".into() }),
        7 => Answer::Event(Event::ExecExited { exec: "no number".into(), exit, output: String::new() }),
        _ => Answer::State(SandboxState::default()),
    }
}

fn bytes_of(sent: &Sent) -> Vec<u8> {
    match sent {
        Sent::Bytes(bytes) => bytes.clone(),
        Sent::Frame(kind, stream, bytes) => {
            let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
            frame.push(*kind);
            frame.extend(stream.to_le_bytes());
            frame.extend(bytes);
            frame
        }
        Sent::Message(id, kind, code) => {
            let mut link = Link::default();
            link.send(&Reply { id: *id, answer: answer(*kind, *code) }).unwrap();
            link.output
        }
    }
}

/// Lets the shim take everything that the agent has said, the agent reading nothing.
fn take(scene: &mut Scene, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let n = match scene.agent.write(bytes) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            // It was found out.
            Err(_) => return,
        };
        bytes = &bytes[n..];
        if scene.shim.machine.as_ref().is_some_and(Host::is_deaf) {
            return;
        }
        scene.shim.machine_ready();
        scene.shim.machine_pump();
        scene.shim.end_execs(false);
    }
    scene.shim.machine_pump();
}

fn check(scene: &mut Scene) {
    let shim = &mut scene.shim;
    assert!(shim.tasks.len() <= 2);
    let host = shim.machine.as_mut().unwrap();
    assert!(host.owed() <= STREAMS * 3);
    assert!(host.waiting_output() < 1 << 20, "{} bytes wait", host.waiting_output());
    if let Some(exit) = &shim.exit {
        assert_eq!(exit.error, "");
        assert!(exit.at_ms < i64::MAX);
    }
    let mut told = Vec::new();
    let mut buffer = [0; 64 << 10];
    while let Ok(n @ 1..) = scene.daemon.read(&mut buffer) {
        told.extend_from_slice(&buffer[..n]);
    }
    while let Some(reply) = decode::<Reply>(&mut told).unwrap() {
        if let Answer::Failed(failure) = reply.answer {
            assert!(failure.message.len() < 8 << 10);
        }
    }
}

/// Says whether this is the process of the test's own that it is to go on in: a shim reaps every child that there is.
fn alone(name: &str) -> bool {
    const MARK: &str = "SILO_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("shim::hostile::{name}"), "--test-threads=1"]).env(MARK, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

#[test]
fn an_agent_may_say_anything() {
    if !alone("an_agent_may_say_anything") {
        return;
    }
    let cases = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    proptest!(cases, |(started in any::<bool>(), all in proptest::collection::vec(sent(), 0..40))| {
        let mut scene = scene(started);
        for sent in &all {
            take(&mut scene, &bytes_of(sent));
        }
        check(&mut scene);
    });
}

#[test]
fn an_agent_that_floods_is_held_or_switched_off() {
    if !alone("an_agent_that_floods_is_held_or_switched_off") {
        return;
    }
    // More than there is room for, by one stream; by bits of one stream without reading any credit; by many streams.
    let frame = |stream: u32, n: usize| bytes_of(&Sent::Frame(1, stream, vec![b'x'; n]));
    let mut credited = HashMap::new();
    for (name, stream, size, count) in [
        ("large", Some(1), CHUNK, 4 * WINDOW / CHUNK),
        ("small", Some(1), 1, 200_000),
        ("many", None, 1, 3 * STREAMS),
    ] {
        let mut scene = scene(true);
        for i in 0..count as u32 {
            take(&mut scene, &frame(stream.unwrap_or(i * 4 + 1), size));
        }
        check(&mut scene);
        credited.insert(name, scene.shim.machine.as_ref().is_some_and(Host::is_deaf));
    }
    assert!(credited["many"], "more streams than there can be");
    // Events that nobody waits for.
    let mut scene = scene(true);
    let event = bytes_of(&Sent::Message(0, 7, 1));
    for _ in 0..2000 {
        take(&mut scene, &event);
    }
    check(&mut scene);
}
