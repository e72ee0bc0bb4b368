//! Containers with a kernel of their own: what is theirs alone, and how they come to it.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use silo_tests::{Daemon, OWN, TELL_OWN};

const IMAGE: &str = "localhost/busybox";
const CLONES: usize = 10;

fn with_kernel() -> Daemon {
    let d = Daemon::start();
    let machines = d.silo(&["info"]);
    if machines.out.contains("silo vm kernel") {
        let said = d.silo(&["vm", "kernel"]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    d
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// When a file in a container was changed last, by its machine's clock: seconds since 1970.
fn changed(d: &Daemon, name: &str, path: &str) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    d.ok(&["cp", "-a", &format!("{name}:{path}"), &dir.path().display().to_string()]);
    let at = dir.path().join(path.rsplit('/').next().unwrap());
    let time = std::fs::metadata(at).unwrap().modified().unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn ten_clones_are_ten_machines() {
    let d = with_kernel();
    let built = d.silo(&["vm", "template", "build"]);
    assert_eq!(built.code, 0, "{built:?}");
    // The first instructions of each tell what it was given.
    let options = ["run", "-d", "--privileged", "--isolation", "hyperv"];
    let mut running: Vec<_> = (0..CLONES)
        .map(|i| {
            let name = format!("c{i}");
            d.command(&[&options[..], &["--name", &name, IMAGE, "sh", "-c", TELL_OWN]].concat())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for run in &mut running {
        assert!(run.wait().unwrap().success(), "{}", d.log());
    }
    let mut seen = OWN.map(|_| BTreeSet::new());
    for i in 0..CLONES {
        let name = format!("c{i}");
        d.await_line(&["logs", "-f", &name], "end");
        let log = d.ok(&["logs", &name]);
        assert_eq!(log.lines().count(), OWN.len() + 1, "{log}");
        for (set, line) in seen.iter_mut().zip(log.lines()) {
            set.insert(line.to_owned());
        }
    }
    for (what, set) in OWN.iter().zip(&seen) {
        assert_eq!(set.len(), CLONES, "{what}: {set:?}");
    }
    assert!(seen[5].iter().all(|id| id.len() == 32 && u128::from_str_radix(id, 16).is_ok()), "{seen:?}");
    for i in 0..CLONES {
        let name = format!("c{i}");
        let before = now();
        d.ok(&["exec", &name, "touch", "/now"]);
        let after = now();
        let there = changed(&d, &name, "/now");
        // A file's time is that of the kernel's last tick, 4 ms at most before.
        assert!(before - 0.05 < there && there < after + 0.05, "{name}: {there} is not in {before}..{after}");
    }
}

#[test]
fn one_image_runs_on_two_kernels_side_by_side() {
    let d = with_kernel();
    let on = |isolation: &str| d.ok(&["run", "--rm", "--isolation", isolation, IMAGE, "uname", "-r"]);
    let (hosts, own) = (on("process"), on("hyperv"));
    assert_ne!(hosts, own);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim(), hosts);
    // By the image's label, and by what the run asks for in its place.
    d.ok(&["create", "--name", "plain", IMAGE]);
    d.ok(&["commit", "-c", "LABEL dev.silo.isolation=hyperv", "plain", "localhost/labelled"]);
    d.ok(&["commit", "-c", "LABEL dev.silo.isolation=moon", "plain", "localhost/wrong"]);
    assert_eq!(d.ok(&["run", "--rm", "localhost/labelled", "uname", "-r"]), own);
    assert_eq!(d.ok(&["run", "--rm", "--isolation", "process", "localhost/labelled", "uname", "-r"]), hosts);
    d.fails(&["run", "--rm", "localhost/wrong", "true"], "dev.silo.isolation");
}

#[test]
fn a_disk_of_its_own_has_the_size_that_was_asked_for() {
    let d = with_kernel();
    let run = |size: &str, line: &str| {
        d.docker(&["run", "--rm", "--isolation", "hyperv", "--storage-opt", size, IMAGE, "sh", "-c", line])
    };
    let kib: u64 = run("size=300M", "df -k / | tail -1 | awk '{print $2}'").out.parse().unwrap();
    assert!((200 << 10..310 << 10).contains(&kib), "{kib} KiB");
    let full = run("size=100M", "dd if=/dev/zero of=/f bs=1M count=200");
    assert!(full.code != 0 && full.err.contains("No space left on device"), "{full:?}");
    for (size, words) in [("size=1M", "64 MiB"), ("size=x", "invalid size"), ("colour=red", "unknown option")]
    {
        let said = run(size, "true");
        assert!(said.code != 0 && said.err.contains(words), "{size}: {said:?}");
    }
}

#[test]
fn templates_are_listed_removed_and_made_again() {
    let d = with_kernel();
    // Of a size that no other test of this run asks for: templates are shared by all of them, and outlive a build.
    let find = || -> Option<String> {
        let said = d.silo(&["vm", "template", "ls"]);
        let line = said.out.lines().find(|l| l.contains("4096 MiB")).map(str::to_owned)?;
        line.split_whitespace().next().map(str::to_owned)
    };
    while let Some(old) = find() {
        assert_eq!(d.silo(&["vm", "template", "rm", &old]).code, 0);
    }
    assert_eq!(d.silo(&["vm", "template", "build", "--memory", "3000"]).code, 0);
    let key = find().expect("the template is listed");
    let memory = ["run", "--rm", "--isolation", "hyperv", "--memory", "3000m", IMAGE];
    let mut asks = memory.to_vec();
    asks.extend(["sh", "-c", "free -m | awk '/Mem/ {print $2}'; cat /sys/fs/cgroup/memory.max"]);
    let said = d.ok(&asks);
    let (total, limit) = said.split_once('\n').unwrap();
    assert!((3500..4096).contains(&total.parse::<u32>().unwrap()), "{total} MiB");
    assert_eq!(limit, (3000u64 << 20).to_string());
    assert_eq!(d.silo(&["vm", "template", "rm", &key]).code, 0);
    assert_eq!(find(), None);
    let again = d.silo(&["vm", "template", "rm", &key]);
    assert!(again.code != 0 && again.err.contains(&key), "{again:?}");
    // Without one it boots.
    let mut plain = memory.to_vec();
    plain.extend(["echo", "booted"]);
    assert_eq!(d.ok(&plain), "booted");
}
