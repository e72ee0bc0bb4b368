//! Spares: a container that one becomes is as any other, each is used once, and none is left behind.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::spares::Spares;
use silo_tests::{Daemon, OWN, Random, TELL_OWN, rounds, seed};

const IMAGE: &str = "localhost/busybox";

/// A daemon whose pool has so many spares of machines ready.
fn with_ready(spares: u64) -> Daemon {
    let d = Daemon::with_pool(spares);
    let built = d.silo(&["vm", "template", "build"]);
    assert_eq!(built.code, 0, "{built:?}");
    // Whoever asks first finds none, and makes the kind wanted.
    d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]);
    ready(&d, spares);
    d
}

/// Waits for spares; the pids of their shims.
fn ready(d: &Daemon, spares: u64) -> Vec<i64> {
    let said = d.silo(&["pool", "--wait", &spares.to_string()]);
    assert_eq!(said.code, 0, "{said:?}\n{}", d.log());
    said.out.lines().skip(1).map(|l| l.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
}

fn children(pid: i64) -> Vec<i64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|p| p.parse().unwrap()).collect()
}

/// The shim of a running container.
fn shim(d: &Daemon, name: &str) -> i64 {
    let pid = d.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn kill(pid: i64) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

/// Runs a container that must become one of the spares; which.
fn run_from_pool(d: &Daemon, spares: u64, options: &[&str], command: &[&str]) -> String {
    let waiting = ready(d, spares);
    let mut all = vec!["run", "-d", "--isolation", "hyperv"];
    all.extend(options);
    all.push(IMAGE);
    all.extend(command);
    let id = d.ok(&all);
    let shim = shim(d, &id);
    assert!(waiting.contains(&shim), "{shim} is none of {waiting:?}\n{}", d.log());
    id
}

#[test]
fn a_container_from_the_pool_is_as_any_other() {
    let d = with_ready(1);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "from the host\n").unwrap();
    // The program is nobody special.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bind = format!("{}:/data", dir.path().display());
    let options = [
        "--name",
        "one",
        "--hostname",
        "named",
        "-v",
        &bind,
        "-v",
        "kept:/volume",
        "--tmpfs",
        "/t",
        "--memory",
        "200m",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "bob",
    ];
    run_from_pool(
        &d,
        1,
        &options,
        &["sh", "-c", "id -un; hostname; pwd; echo $A; cat /data/in; exec sleep 1000"],
    );
    d.await_line(&["logs", "-f", "one"], "from the host");
    assert_eq!(d.ok(&["logs", "one"]), "bob\nnamed\n/tmp\nb\nfrom the host");
    // Its own network.
    let address = d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "one"]);
    let inside = d.ok(&["exec", "one", "ip", "-4", "addr", "show", "eth0"]);
    assert!(inside.contains(&address), "{inside} has not {address}");
    let gateway = d.ok(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "one"]);
    d.ok(&["exec", "-u", "root", "one", "ping", "-c", "1", "-W", "5", &gateway]);
    // Its own files: nothing of what was rehearsed is there, and what it writes stays.
    let look = "echo kept > /file; touch /volume/v; ! test -e /program && ! mount | grep /d/";
    d.ok(&["exec", "-u", "root", "one", "sh", "-c", look]);
    let changes = d.ok(&["diff", "one"]);
    let known = ["/file", "/data", "/volume", "/t", "/etc"];
    let strange = changes.lines().find(|l| !known.iter().any(|k| l[2..].starts_with(k)));
    assert!(strange.is_none() && changes.contains("A /file"), "{changes}");
    assert_eq!(d.ok(&["exec", "one", "cat", "/sys/fs/cgroup/memory.max"]), (200u64 << 20).to_string());
    assert_eq!(d.docker(&["exec", "one", "sh", "-c", "exit 7"]).code, 7);
    // Stopped and started again it has its files, whatever machine it is in.
    d.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(d.ok(&["exec", "one", "cat", "/file"]), "kept");
    d.ok(&["rm", "-f", "one"]);
    // A terminal, input, exit codes.
    ready(&d, 1);
    let typed = d.silo(&["version"]);
    assert_eq!(typed.code, 0);
    let piped = Command::new("bash")
        .args(["-c", "printf 'a\\nb\\n' | docker run -i --rm --isolation hyperv localhost/busybox sh -c 'wc -l; exit 3'"])
        .env("DOCKER_HOST", d.host())
        .output()
        .unwrap();
    assert_eq!((piped.status.code(), String::from_utf8_lossy(&piped.stdout).trim()), (Some(3), "2"));
    ready(&d, 1);
    let terminal = Command::new("script")
        .args([
            "-qec",
            "docker run -it --rm --isolation hyperv localhost/busybox sh -c 'tty; stty size'",
            "/dev/null",
        ])
        .env("DOCKER_HOST", d.host())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&terminal.stdout).contains("/dev/pts/0"), "{terminal:?}");
    // A restart policy.
    run_from_pool(
        &d,
        1,
        &["--name", "again", "--restart", "on-failure:1"],
        &["sh", "-c", "echo run; sleep 1; exit 1"],
    );
    assert_eq!(d.ok(&["wait", "again"]), "1");
    d.await_line(&["logs", "-f", "again"], "run");
    // One without a network.
    ready(&d, 1);
    let alone =
        d.ok(&["run", "--rm", "--isolation", "hyperv", "--network", "none", IMAGE, "ip", "-o", "link"]);
    assert_eq!(alone.lines().filter(|l| !l.contains("lo:")).count(), 0, "{alone}");
    // A program that is not there is the container's fault.
    ready(&d, 1);
    d.fails(&["run", "--rm", "--isolation", "hyperv", IMAGE, "/none"], "no such file or directory");
}

#[test]
fn no_two_from_the_pool_share_what_must_differ() {
    let d = with_ready(2);
    let mut seen = OWN.map(|_| BTreeSet::new());
    for round in 0..2 {
        for i in 0..2 {
            let name = format!("c{round}{i}");
            let options = ["--privileged", "--name", &name];
            run_from_pool(&d, if i == 0 { 2 } else { 1 }, &options, &["sh", "-c", TELL_OWN]);
            d.await_line(&["logs", "-f", &name], "end");
            let log = d.ok(&["logs", &name]);
            for (set, line) in seen.iter_mut().zip(log.lines()) {
                set.insert(line.to_owned());
            }
        }
    }
    for (what, set) in OWN.iter().zip(&seen) {
        assert_eq!(set.len(), 4, "{what}: {set:?}");
    }
    // The clock is right, however long the machine has waited.
    ready(&d, 2);
    let before = unix_now();
    let there: f64 = d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "date", "+%s"]).parse().unwrap();
    assert!(before.floor() <= there && there <= unix_now(), "{there} is not after {before}");
}

fn unix_now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs_f64()
}

#[test]
fn a_spare_that_is_killed_is_replaced_and_hurts_nobody() {
    let d = with_ready(1);
    for of_the_machine in [true, false] {
        let shim = ready(&d, 1)[0];
        let victim = if of_the_machine { children(shim)[0] } else { shim };
        let owners_end = std::fs::read_dir(format!("/proc/{shim}")).is_ok();
        assert!(owners_end);
        kill(victim);
        // Until the daemon has heard of it the pool shows it, and a start that takes it goes on without.
        d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]);
        while ready(&d, 1)[0] == shim {
            assert!(Path::new(&format!("/proc/{shim}")).exists(), "it is dead and still shown");
        }
        assert!(children(shim).is_empty());
    }
    d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]);
}

/// Waits for a process' end.
fn await_gone(pid: i64) {
    let pid = pid.to_string();
    let waited = Command::new("timeout").args(["30", "tail", "-f", "/dev/null", "--pid", &pid]).status();
    assert!(waited.unwrap().success(), "{pid} lives on");
}

#[test]
fn a_daemon_that_is_killed_leaves_no_spares() {
    let mut d = with_ready(2);
    let shims = ready(&d, 2);
    let machines: Vec<i64> = shims.iter().flat_map(|s| children(*s)).collect();
    assert_eq!(machines.len(), 2);
    let namespace = |pid: i64| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let namespaces: BTreeSet<_> = shims.iter().map(|s| namespace(*s)).collect();
    assert_eq!(namespaces.len(), 2, "each has a network namespace of its own");
    let mut spares = Spares::default();
    spares.are_accounted_for(&d);
    d.stop(true);
    for pid in shims.iter().chain(&machines) {
        await_gone(*pid);
    }
    // Files are all that can be left, until the next start.
    spares.are_gone(&mut d);
    d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]);
}

/// Whose disk somebody else writes to while it waits.
#[test]
fn a_spare_with_a_damaged_disk_is_no_containers() {
    let d = with_ready(1);
    let run = ["run", "--rm", "--isolation", "hyperv", IMAGE, "sha256sum", "/bin/busybox"];
    let usual = d.ok(&run);
    let write = |path: &Path| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xa5; 4096], 64 << 10).unwrap();
        path.display().to_string()
    };
    for of_the_spare in [true, false] {
        ready(&d, 1);
        let dir = d.path(if of_the_spare { "root/pool" } else { "root/disks" });
        let mut found: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
        if of_the_spare {
            found = vec![found[0].join("scratch.ext4")];
        }
        found.retain(|path| path.extension().is_some_and(|e| e == "erofs" || e == "ext4"));
        assert_eq!(found.len(), 1, "{found:?}");
        let path = write(&found[0]);
        assert_eq!(d.ok(&run), usual);
        let said = format!("its spare does not become it: {path} has changed since the machine mounted it");
        assert!(d.log().contains(&said), "{}", d.log());
    }
    // The next one is sound.
    run_from_pool(&d, 1, &["--name", "one"], &["sleep", "1000"]);
    assert_eq!(d.ok(&["exec", "one", "sha256sum", "/bin/busybox"]), usual);
}

/// Processes and the daemon are killed between a spare's Become and the container's Start, and around it:
/// `cargo xtask soak spares` makes a campaign of it.
#[test]
fn a_kill_while_a_spare_becomes_a_container_leaves_nothing() {
    let (rounds, seed) = (rounds(6), seed(20_261_130));
    println!("{rounds} kills, seed {seed}");
    let mut random = Random::new(seed);
    let mut d = with_ready(1);
    let (mut spares, mut ran) = (Spares::default(), 0);
    for round in 0..rounds {
        let shim = ready(&d, 1)[0];
        spares.look(&d);
        let machine = children(shim)[0];
        let name = format!("c{round}");
        let run = ["run", "-d", "--name", &name, "--isolation", "hyperv", IMAGE, "sleep", "1000"];
        let run = d.command(&run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The moment is what this is about.
        std::thread::sleep(Duration::from_millis(20 + random.below(150)));
        match round % 3 {
            0 => kill(shim),
            1 => kill(machine),
            _ => {
                d.stop(true);
                d.again();
            }
        }
        let run = run.wait_with_output().unwrap();
        // It runs and can be entered, or is known not to; or it was not made before the daemon was killed.
        let end = Instant::now() + Duration::from_secs(30);
        let state = || d.docker(&["inspect", "-f", "{{.State.Status}}", &name]).out;
        while state() == "running" {
            if d.docker(&["exec", &name, "true"]).code == 0 {
                ran += 1;
                break;
            }
            assert!(Instant::now() < end, "{name} is said to run\n{}", d.log());
        }
        let said = String::from_utf8_lossy(&run.stderr);
        println!("{}: {} {}", round % 3, state(), said.trim());
        match round % 3 {
            // The container's own shim, by then.
            0 => assert!(run.status.success() || said.contains("shim"), "{said}"),
            // Its machine may have been told the program.
            1 => assert!(run.status.success() || said.contains("its virtual machine was killed"), "{said}"),
            _ => {}
        }
        d.docker(&["rm", "-f", &name]);
        assert_eq!(state(), "");
        // Whatever came of it, the next one is had.
        if round % 3 == 2 {
            d.ok(&["run", "--rm", "--isolation", "hyperv", IMAGE, "true"]);
        }
    }
    println!("{ran} ran");
    spares.are_accounted_for(&d);
    d.stop(false);
    spares.are_gone(&mut d);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let left = std::fs::read_dir(d.path("root/containers")).unwrap().count();
    assert_eq!(left, 0, "directories of containers are left");
}

#[test]
fn there_are_as_many_as_may_be_and_of_what_was_asked_for_last() {
    let d = with_ready(1);
    assert_eq!(ready(&d, 1).len(), 1);
    // Another size of machine is another kind: the one spare there may be is of that now.
    let built = d.silo(&["vm", "template", "build", "--memory", "1500"]);
    assert_eq!(built.code, 0, "{built:?}");
    let before = ready(&d, 1)[0];
    d.ok(&["run", "--rm", "--isolation", "hyperv", "--memory", "1500m", IMAGE, "true"]);
    while ready(&d, 1)[0] == before {
        assert!(Path::new(&format!("/proc/{before}")).exists(), "it is gone and still shown");
    }
    assert_eq!(ready(&d, 1).len(), 1);
    await_gone(before);
    let info = d.silo(&["info"]);
    assert!(info.out.contains("1 ready") && info.out.contains("1 at most"), "{}", info.out);
    // Containers of the host's kernel need none.
    d.ok(&["run", "--rm", "--isolation", "process", IMAGE, "true"]);
}
