//! The daemon is killed (SIGKILL) at random moments while containers are made, run, write, are entered and go: after
//! that every container is accounted for, and nothing is left of those that are gone.
//!
//! `SILO_SOAK_ROUNDS` and `SILO_SOAK_SEED` make a campaign of it: `cargo xtask soak kills`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use silo_tests::spares::Spares;
use silo_tests::{Daemon, NANOSERVER, Random, rounds, seed};

const IMAGE: &str = "localhost/busybox";
/// Kills of the short version.
const ROUNDS: u64 = 6;

/// Ends, so that its policy starts it again.
const ENDS: &str = "sleep 0.3; exit 1";

/// What one worker does over and over; most of the commands that a kill meets fail, and may.
fn work(host: &str, stop: &AtomicBool, worker: u32, done: &AtomicU32) {
    let writer = "i=0; while :; do i=$((i+1)); echo line $i; done | head -n 200000; sleep 1000";
    let name = |kind: &str, n: u32| format!("{kind}{worker}-{n}");
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let (writes, plain, again) = (name("w", n), name("p", n), name("a", n));
        let commands: [&[&str]; 12] = [
            &["run", "--rm", IMAGE, "true"],
            &["run", "-d", "--name", &writes, IMAGE, "sh", "-c", writer],
            &["run", "-d", "--name", &again, "--restart", "always", "-v", "/data", IMAGE, "sh", "-c", ENDS],
            &["exec", &writes, "echo", "in"],
            &["create", "--name", &plain, "-v", "/data", IMAGE, "sleep", "1000"],
            &["start", &plain],
            &["pause", &plain],
            &["unpause", &plain],
            &["stop", "-t", "0", &writes],
            &["rm", "-f", "-v", &plain],
            &["create", "-v", "/one", "--mount", "type=bind,source=/nowhere,target=/two", IMAGE],
            // Every other one stays to the end.
            if n % 2 == 0 { &["rm", "-f", "-v", &again] } else { &["version"] },
        ];
        run_all(host, stop, done, &commands);
    }
}

/// The same of Windows containers, of which every third stays to the end.
fn work_on_windows(host: &str, stop: &AtomicBool, done: &AtomicU32) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("windows-{n}");
        let key = ["exec", &name, "reg", "add", r"HKLM\Software\Kills", "/v", "V", "/d", "1", "/f"];
        let commands: [&[&str]; 5] = [
            &["run", "--rm", NANOSERVER, "cmd", "/c", "ver"],
            &["run", "-d", "-i", "--name", &name, NANOSERVER, "cmd"],
            &key,
            &["commit", &name, "windows-made"],
            if n % 3 == 0 { &["version"] } else { &["rm", "-f", &name] },
        ];
        run_all(host, stop, done, &commands);
    }
}

fn run_all(host: &str, stop: &AtomicBool, done: &AtomicU32, commands: &[&[&str]]) {
    for command in commands {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut docker = Command::new("timeout");
        docker.args(["-s", "KILL", "30", "docker"]).args(*command).env("DOCKER_HOST", host);
        let status = docker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if status.is_ok_and(|s| s.success()) {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn processes_of(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(" shim ") && line.contains(dir) {
            found.push(line);
        }
    }
    found
}

/// Cgroups below every hierarchy, by name.
fn cgroups() -> BTreeSet<String> {
    let output =
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", "*silo*"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Waits for something that nobody tells: the kernel and shims end things in their own time.
fn await_empty<T: std::fmt::Debug>(what: &str, mut list: impl FnMut() -> Vec<T>) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = list();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} are left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_container_is_accounted_for() {
    let (rounds, seed) = (rounds(ROUNDS), seed(20_261_124));
    println!("{rounds} kills, seed {seed}");
    let mut random = Random::new(seed);
    let mut d = Daemon::start();
    d.stop(false);
    d.keep_spares(2);
    d.again();
    let mut spares = Spares::default();
    d.add_base("nanoserver").unwrap_or_else(|why| panic!("{why}"));
    let (stop, done, host) = (AtomicBool::new(false), AtomicU32::new(0), d.host());
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (stop, done, host) = (&stop, &done, &host);
            scope.spawn(move || work(host, stop, worker, done));
        }
        scope.spawn(|| work_on_windows(&host, &stop, &done));
        for _ in 0..rounds {
            // The moment is what this is about.
            std::thread::sleep(Duration::from_millis(150 + random.below(1200)));
            spares.look(&d);
            d.stop(true);
            d.again();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let done = done.load(Ordering::Relaxed);
    println!("{done} commands succeeded");
    assert!(u64::from(done) > rounds, "only {done} commands succeeded between {rounds} kills");

    // Whatever is listed can be looked at, and its state is the truth.
    for id in d.ok(&["ps", "-aq", "--no-trunc"]).lines() {
        let policy = d.ok(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}} {{.State.Status}}", id]);
        if let Some(status) = policy.strip_prefix("always ") {
            // Its policy holds, unless its start was never asked for to the end.
            assert!(["running", "restarting", "created"].contains(&status), "{id}: {policy}\n{}", d.log());
            d.ok(&["stop", "-t", "0", id]);
        }
        let state = d.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id]);
        let (status, pid) = state.split_once(' ').unwrap();
        let alive = pid != "0" && Path::new("/proc").join(pid).exists();
        assert_eq!(alive, matches!(status, "running" | "paused"), "{id}: {state}");
        if status == "running" {
            let is_windows = d.ok(&["inspect", "-f", "{{.Config.Image}}", id]) == NANOSERVER;
            let hi = if is_windows { &["cmd", "/c", "echo hi"][..] } else { &["echo", "hi"] };
            assert_eq!(d.ok(&[&["exec", id], hi].concat()), "hi");
            let log = d.docker(&["logs", id]).out;
            let numbers = log.lines().filter_map(|l| l.strip_prefix("line ")?.parse::<u64>().ok());
            assert!(numbers.enumerate().all(|(i, n)| n == i as u64 + 1), "the log of {id} has a gap");
        }
    }
    let ids = d.ok(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        let mut remove = vec!["rm", "-f", "-v"];
        remove.extend(&ids);
        d.ok(&remove);
    }
    spares.are_accounted_for(&d);
    d.stop(false);
    spares.are_gone(&mut d);
    let root = d.path("root");
    let dir = root.display().to_string();
    await_empty("shims", || processes_of(&dir));
    let containers = root.join("containers");
    await_empty("directories", || {
        std::fs::read_dir(&containers).unwrap().flatten().map(|e| e.path()).collect()
    });
    await_empty("mounts", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|l| l.contains(&dir)).map(str::to_owned).collect::<Vec<_>>()
    });
    let bridge = d.bridge().to_owned();
    await_empty("adapters", || {
        let output = Command::new("ip").args(["-o", "link", "show", "master", &bridge]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let ours: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    await_empty("cgroups", || {
        cgroups().into_iter().filter(|c| ours.iter().any(|id| c.contains(id.as_str()))).collect::<Vec<_>>()
    });
    assert_eq!(d.ok(&["volume", "ls", "-q", "-f", "dangling=true"]), "");
    assert_eq!(d.ok(&["run", "--rm", IMAGE, "echo", "fine"]), "fine");
}
