//! Limits: a program runs into each and is held there, its neighbours do not notice, and what the daemon tells of it is true.
//!
//! Nothing here measures how fast the machine is: that a container gets no more than its limit holds on a busy one too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use silo_tests::{Daemon, Said, only_under};

const IMAGE: &str = "localhost/busybox";
const MIB: u64 = 1 << 20;

/// A daemon and the directory of the program, as a mount.
fn ready() -> (Daemon, tempfile::TempDir, String) {
    let (d, dir) = (Daemon::start(), silo_tests::guests::programs("stress"));
    let bin = format!("{}:/bin/limits:ro", dir.path().display());
    (d, dir, bin)
}

fn run(d: &Daemon, bin: &str, options: &[&str], program: &[&str]) -> Said {
    let command = ["/bin/limits/stress"];
    d.docker(&[&["run", "-v", bin][..], options, &[IMAGE], &command[..], program].concat())
}

fn inspect(d: &Daemon, name: &str, what: &str) -> String {
    d.ok(&["inspect", "-f", what, name])
}

fn stats(d: &Daemon, name: &str) -> Value {
    let body = d.get(&format!("/containers/{name}/stats?stream=false&one-shot=true"));
    serde_json::from_str(&body).unwrap()
}

/// The disk that the daemon's files are on; `None`: none that could be limited.
fn disk(d: &Daemon) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(d.path("root")).unwrap().dev();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let of = format!("/sys/dev/block/{major}:{minor}");
    if Path::new(&of).join("partition").exists() {
        return None;
    }
    let text = std::fs::read_to_string(format!("{of}/uevent")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("DEVNAME=")).map(|name| Path::new("/dev").join(name))
}

#[test]
fn out_of_memory_ends_the_container_alone() {
    let (d, _dir, bin) = ready();
    d.ok(&["run", "-d", "--name", "neighbour", "--memory", "64m", IMAGE, "sleep", "1000"]);
    let pieces = (1024 * MIB / (64 << 10)).to_string();
    let limit = 160 * MIB;
    let said = run(
        &d,
        &bin,
        &["-i", "--name", "eater", "--memory", "160m", "--memory-swap", "160m"],
        &["memory", &pieces],
    );
    assert_eq!(said.code, 137, "{said:?}");
    let last = said.out.lines().filter_map(|l| l.parse::<u64>().ok()).max().unwrap() * (64 << 10);
    // What the program and the kernel need for it beside is within it.
    assert!(last <= limit && last >= limit - limit / 50, "{last} of {limit}");
    assert_eq!(inspect(&d, "eater", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    let now = silo_tests::now();
    let events = ["events", "--since", "0", "--until", &now, "--filter", "event=oom"];
    assert!(d.ok(&[&events[..], &["--format", "{{.Actor.Attributes.name}}"]].concat()).contains("eater"));
    assert_eq!(inspect(&d, "neighbour", "{{.State.Running}} {{.State.OOMKilled}}"), "true false");
    assert_eq!(d.ok(&["exec", "neighbour", "echo", "here"]), "here");
    // One that holds still is not touched, and shows what it holds.
    let held = (64 * MIB / (64 << 10)).to_string();
    let holder = ["-d", "-i", "--name", "holder", "--memory", "160m"];
    assert_eq!(run(&d, &bin, &holder, &["memory", &held]).code, 0);
    d.await_line(&["logs", "-f", "holder"], "all");
    let used = stats(&d, "holder")["memory_stats"]["usage"].as_u64().unwrap();
    assert!((64 * MIB..72 * MIB).contains(&used), "{used}");
    let shown = d.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "holder"]);
    let shown: f64 = shown.split("MiB").next().unwrap().parse().unwrap_or_else(|_| panic!("{shown}"));
    assert!((64.0..72.0).contains(&shown), "{shown}");
    // Less than it holds is refused, and nothing of the update is done.
    let refused = ["update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "7", "holder"];
    d.fails(&refused, "Cannot update container");
    assert_eq!(inspect(&d, "holder", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "167772160 <nil>");
    assert_eq!(stats(&d, "holder")["memory_stats"]["limit"], 160 * MIB);
    assert!(stats(&d, "holder")["pids_stats"]["limit"].is_null());
}

#[test]
fn processors_are_kept_to_their_share() {
    let (d, _dir, bin) = ready();
    let share = |options: &[&str]| -> u64 {
        let said = run(&d, &bin, &[options, &["--rm"]].concat(), &["cpu", "1500"]);
        assert_eq!(said.code, 0, "{options:?}: {said:?}");
        said.out.parse().unwrap()
    };
    for (options, limit) in
        [(&["--cpus", "0.5"][..], 5000), (&["--cpu-period", "50000", "--cpu-quota", "10000"][..], 2000)]
    {
        let got = share(options);
        assert!(got <= limit + limit / 20 + 50, "{options:?}: {got}");
    }
    let program = ["-d", "--name", "burner", "--cpus", "0.5"];
    assert_eq!(run(&d, &bin, &program, &["cpu", "600000"]).code, 0);
    let used = |s: &Value| s["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap();
    let over = |d: &Daemon| {
        let (begin, first) = (Instant::now(), stats(d, "burner"));
        std::thread::sleep(Duration::from_millis(1500));
        let second = stats(d, "burner");
        (used(&second) - used(&first)) as f64 / begin.elapsed().as_nanos() as f64
    };
    let half = over(&d);
    assert!(half <= 0.56, "{half}");
    let throttled = &stats(&d, "burner")["cpu_stats"]["throttling_data"];
    assert!(throttled["throttled_periods"].as_u64().unwrap() > 0, "{throttled}");
    let shown = d.ok(&["stats", "--no-stream", "--format", "{{.CPUPerc}}", "burner"]);
    let shown: f64 = shown.trim_end_matches('%').parse().unwrap();
    assert!(shown > 1.0 && shown <= 56.0, "{shown}");
    d.ok(&["update", "--cpus", "0.1", "burner"]);
    let tenth = over(&d);
    assert!(tenth <= 0.12, "{tenth}");
    d.fails(&["update", "--cpu-quota", "5000", "burner"], "NanoCPUs has already been set");
    d.fails(&["update", "--cpuset-cpus", "4000", "burner"], "Requested CPUs are not available");
    d.ok(&["update", "--cpuset-cpus", "0", "--cpu-shares", "512", "burner"]);
    assert_eq!(
        inspect(
            &d,
            "burner",
            "{{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}} {{.HostConfig.CpuShares}}"
        ),
        "100000000 0 512"
    );
    // While it is stopped, for its next start.
    d.ok(&["kill", "burner"]);
    d.ok(&["update", "--cpus", "0.2", "burner"]);
    d.ok(&["start", "burner"]);
    let fifth = over(&d);
    assert!(fifth <= 0.23, "{fifth}");
}

#[test]
fn tasks_are_counted_exactly() {
    let (d, _dir, bin) = ready();
    let options = ["-d", "-i", "--name", "many", "--pids-limit", "25"];
    assert_eq!(run(&d, &bin, &options, &["tasks", "1000"]).code, 0);
    d.await_line(&["logs", "-f", "many"], "25");
    assert_eq!(stats(&d, "many")["pids_stats"]["current"], 25);
    assert_eq!(stats(&d, "many")["pids_stats"]["limit"], 25);
    assert_eq!(d.ok(&["stats", "--no-stream", "--format", "{{.PIDs}}", "many"]), "25");
    d.ok(&["update", "--pids-limit", "30", "many"]);
    let said = d.docker(&["exec", "many", "/bin/limits/stress", "tasks", "1000"]);
    assert_eq!(said.out, "5", "{said:?}");
    d.ok(&["update", "--pids-limit", "-1", "many"]);
    assert!(stats(&d, "many")["pids_stats"]["limit"].is_null());
    assert_eq!(d.docker(&["exec", "many", "/bin/limits/stress", "tasks", "60"]).out, "60");
}

#[test]
fn a_disk_is_full_at_its_size() {
    let (mut d, _dir, bin) = ready();
    let size = 100 * MIB;
    let options = ["--name", "full", "--storage-opt", "size=100m"];
    let said = run(&d, &bin, &options, &["fill", "/file"]);
    let (room, written) = said.out.split_once(' ').unwrap_or_else(|| panic!("{said:?}"));
    let (room, written): (u64, u64) = (room.parse().unwrap(), written.parse().unwrap());
    // A container's first files and the map of the large one take some of it.
    assert!(room <= size && room >= size - 128 * 1024, "{room}");
    assert!(written <= room && written >= room - 128 * 1024, "{written} of {room}");
    // What is on it is used as any container's files are, over a daemon that is killed and the next start.
    d.stop(true);
    d.again();
    let to = d.path("copy").display().to_string();
    d.ok(&["cp", "full:/file", &to]);
    assert_eq!(std::fs::metadata(&to).unwrap().len(), written);
    let diff = d.ok(&["diff", "full"]);
    assert!(diff.contains("A /file"), "{diff}");
    d.ok(&["create", "--name", "small", "--storage-opt", "size=64m", IMAGE, "sleep", "1000"]);
    d.ok(&["cp", "/etc/hostname", "small:/put"]);
    d.ok(&["start", "small"]);
    let line = "cat /put > /seen; rm -f /gone; head -c 1000000 /dev/zero > /big; sync";
    d.ok(&["exec", "small", "sh", "-c", line]);
    d.ok(&["cp", "/etc/hostname", "small:/while"]);
    assert_eq!(d.ok(&["exec", "small", "ls", "/while", "/seen"]), "/seen\n/while");
    d.stop(true);
    d.again();
    let sizes = d.ok(&["ps", "-s", "--format", "{{.Names}} {{.Size}}"]);
    assert!(sizes.starts_with("small ") && sizes.contains("MB (virtual"), "{sizes}");
    d.ok(&["commit", "small", "localhost/made"]);
    assert_eq!(d.ok(&["run", "--rm", "localhost/made", "wc", "-c", "/big"]), "1000000 /big");
    d.ok(&["restart", "-t", "0", "small"]);
    assert_eq!(d.ok(&["exec", "small", "wc", "-c", "/big"]), "1000000 /big");
    let tar = d.path("out.tar").display().to_string();
    d.ok(&["export", "-o", &tar, "small"]);
    let listed = Command::new("tar").args(["tf", &tar]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|l| l == "big"));
    d.ok(&["rm", "-f", "small", "full"]);
    let root = d.path("root").display().to_string();
    let end = Instant::now() + Duration::from_secs(20);
    let left = || {
        let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
        disks
            .filter_map(|e| std::fs::read_to_string(e.path().join("loop/backing_file")).ok())
            .any(|t| t.contains(&root))
    };
    while left() {
        assert!(Instant::now() < end, "a loop device is left");
        std::thread::sleep(Duration::from_millis(100));
    }
    d.fails(&["create", "--storage-opt", "size=1m", IMAGE], "64 MiB");
}

#[test]
fn disks_are_read_and_written_at_their_rate() {
    if !only_under(
        "process",
        "what a machine writes is more than its program does, and slower than the limit",
    ) {
        return;
    }
    let (d, _dir, bin) = ready();
    let Some(disk) = disk(&d).map(|p| p.display().to_string()) else { return };
    let device = format!("{disk}:1mb");
    let within = |name: &str, pieces: &str, most: u64| {
        let said = d.docker(&["exec", name, "/bin/limits/stress", "synced", "/file", pieces]);
        assert_eq!(said.code, 0, "{said:?}");
        let rate: u64 = said.out.parse().unwrap();
        assert!(rate <= most + most / 10, "{name}: {rate} of {most} bytes a second");
    };
    let create = |options: &[&str]| {
        d.ok(&[&["run", "-d", "-v", &bin][..], options, &[IMAGE, "sleep", "1000"]].concat())
    };
    create(&[
        "--name",
        "bytes",
        "--device-write-bps",
        &device,
        "--device-read-iops",
        &format!("{disk}:1000"),
    ]);
    within("bytes", "48", MIB);
    let shown = "{{range .HostConfig.BlkioDeviceWriteBps}}{{.Path}} {{.Rate}}{{end}}";
    assert_eq!(inspect(&d, "bytes", shown), format!("{disk} {MIB}"));
    // What a client cannot say, the API can.
    let updated = |name: &str, change: Value| d.post(&format!("/containers/{name}/update"), &change).1;
    let said = updated("bytes", json!({"BlkioDeviceWriteBps": [{"Path": disk, "Rate": 524288}]}));
    assert!(said.contains("Warnings"), "{said}");
    within("bytes", "24", MIB / 2);
    assert_eq!(inspect(&d, "bytes", shown), format!("{disk} 524288"));
    let said = updated("bytes", json!({"BlkioDeviceWriteBps": [{"Path": "/dev/null", "Rate": 5}]}));
    assert!(said.contains("device /dev/null: not a block device"), "{said}");
    assert_eq!(inspect(&d, "bytes", shown), format!("{disk} 524288"));
    // Windows' flags, of any guest.
    // The stock client says them to Windows hosts alone.
    create(&["--name", "drive"]);
    assert!(updated("drive", json!({"IOMaximumBandwidth": MIB})).contains("Warnings"));
    within("drive", "48", MIB);
    assert_eq!(inspect(&d, "drive", "{{.HostConfig.IOMaximumBandwidth}}"), MIB.to_string());
    create(&["--name", "few"]);
    assert!(updated("few", json!({"IOMaximumIOps": 20})).contains("Warnings"));
    // One or more operations for each piece.
    within("few", "24", 20 * 65536);
    // What a container has written shows.
    let line = "dd if=/dev/zero of=/ten bs=1M count=10 conv=fsync 2> /dev/null";
    d.ok(&["run", "-d", "--name", "writer", IMAGE, "sh", "-c", &format!("{line}; exec sleep 1000")]);
    let end = Instant::now() + Duration::from_secs(30);
    let written = || -> u64 {
        let all = stats(&d, "writer");
        let entries =
            all["blkio_stats"]["io_service_bytes_recursive"].as_array().cloned().unwrap_or_default();
        let writes = entries.iter().filter(|e| e["op"].as_str().unwrap().eq_ignore_ascii_case("write"));
        writes.map(|e| e["value"].as_u64().unwrap()).sum()
    };
    while written() < 10 * MIB {
        assert!(Instant::now() < end, "{} bytes are shown of what was written", written());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(written() < 20 * MIB, "{}", written());
    let shown = d.ok(&["stats", "--no-stream", "--format", "{{.BlockIO}}", "writer"]);
    assert!(shown.contains("/ 1") && shown.ends_with("MB"), "{shown}");
}

#[test]
fn what_a_host_cannot_do_is_refused_or_warned_of() {
    let d = Daemon::start();
    let create = |options: &[&str]| d.docker(&[&["create"][..], options, &[IMAGE]].concat());
    let fails = |options: &[&str], words: &str| {
        let said = create(options);
        assert!(said.code != 0 && said.err.contains(words), "{options:?}: {said:?}");
    };
    fails(&["--cpuset-cpus", "0,900"], "Requested CPUs are not available - requested 0,900");
    fails(&["--cpuset-mems", "70"], "Requested memory nodes are not available");
    fails(&["--cgroup-parent", "/a/../../b"], "invalid cgroup-parent");
    fails(&["--device-write-iops", "/dev/nosuch:5"], "/dev/nosuch");
    fails(&["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000");
    let info: Value = serde_json::from_str(&d.get("/info")).unwrap();
    for name in ["MemoryLimit", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"] {
        assert_eq!(info[name], true, "{name}");
    }
    assert!(!info["Warnings"].to_string().contains("memory limit"), "{}", info["Warnings"]);
}

#[test]
fn a_cgroup_has_the_parent_that_was_asked_for() {
    let d = Daemon::start();
    let parent = format!("silo-test-{}", std::process::id());
    d.ok(&["run", "-d", "--name", "aa", "--cgroup-parent", &parent, IMAGE, "sleep", "1000"]);
    let id = inspect(&d, "aa", "{{.Id}}");
    let pid = inspect(&d, "aa", "{{.State.Pid}}");
    let of = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(of.contains(&format!("/{parent}/{id}")), "{of}");
    assert_eq!(inspect(&d, "aa", "{{.HostConfig.CgroupParent}}"), parent);
    d.ok(&["rm", "-f", "aa"]);
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    for mount in hierarchies.chain(["/sys/fs/cgroup".into()]) {
        // A machine's goes when its VMM has been taken apart.
        let end = Instant::now() + Duration::from_secs(10);
        while mount.join(&parent).join(&id).exists() {
            assert!(Instant::now() < end, "{}", mount.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::fs::remove_dir(mount.join(&parent));
    }
}

/// A container that answers each line, and a client that is attached to it.
struct Neighbour {
    name: String,
    client: std::process::Child,
    to: std::process::ChildStdin,
    from: std::io::BufReader<std::process::ChildStdout>,
}

impl Neighbour {
    fn new(d: &Daemon, number: usize) -> Self {
        let name = format!("neighbour{number}");
        let line = "while read x; do echo $x; done";
        let run = ["run", "-i", "--name", &name, "--memory", "64m", IMAGE, "sh", "-c", line];
        // A client of its own: it lives as long as the test.
        let mut command = Command::new("docker");
        command.args(run).env("DOCKER_HOST", d.host()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.stderr(Stdio::null()).spawn().unwrap();
        let (to, from) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        let mut made = Self { name, client, to, from: std::io::BufReader::new(from) };
        made.ask();
        made
    }

    /// How long one answer takes.
    fn ask(&mut self) -> Duration {
        use std::io::{BufRead, Write};
        let begin = Instant::now();
        self.to.write_all(b"ping\n").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert_eq!(line, "ping\n", "{}", self.name);
        begin.elapsed()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// `cargo xtask soak limits`: more rounds, and their figures.
#[test]
fn neighbours_keep_their_service_times() {
    let rounds = silo_tests::rounds(1);
    let (d, _dir, bin) = ready();
    let count = if silo_tests::isolation() == "hyperv" && rounds == 1 { 4 } else { 20 };
    let mut neighbours: Vec<Neighbour> = (0..count).map(|i| Neighbour::new(&d, i)).collect();
    let mut measure = |at_least: Duration| {
        let (mut all, end) = (Vec::new(), Instant::now() + at_least);
        while Instant::now() < end || all.len() < 5 * count {
            all.extend(neighbours.iter_mut().map(Neighbour::ask));
            // As somebody who comes now and then.
            std::thread::sleep(Duration::from_millis(5));
        }
        median(&mut all)
    };
    let while_it = Duration::from_millis(700 * rounds);
    let device = disk(&d).map(|p| format!("{}:1mb", p.display()));
    let mut limits: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        ("memory", vec!["--memory", "100m", "--memory-swap", "100m"], vec!["memory", "1000000"]),
        ("processors", vec!["--cpus", "0.5"], vec!["cpu", "600000"]),
        ("tasks", vec!["--pids-limit", "100"], vec!["tasks", "100000"]),
        ("disk", vec!["--storage-opt", "size=64m"], vec!["fill", "/file"]),
    ];
    if let Some(device) = &device {
        limits.push(("I/O", vec!["--device-write-bps", device.as_str()], vec!["synced", "/file", "1000000"]));
    }
    for (what, options, program) in limits {
        let before = measure(while_it);
        // Again and again into its limit, as long as it is measured.
        let options = [&["-d", "-i", "--name", "greedy", "--restart", "always"][..], &options[..]].concat();
        assert_eq!(run(&d, &bin, &options, &program).code, 0);
        let during = measure(while_it);
        d.ok(&["rm", "-f", "greedy"]);
        let ratio = during.as_secs_f64() / before.as_secs_f64();
        println!("{count} neighbours beside {what}: {before:?} before, {during:?} meanwhile, {ratio:.2} x");
        assert!(ratio < 10.0 || during < Duration::from_millis(30), "{what}: {before:?}, {during:?}");
    }
    for i in 0..count {
        let state = inspect(&d, &format!("neighbour{i}"), "{{.State.Running}} {{.State.OOMKilled}}");
        assert_eq!(state, "true false", "neighbour{i}");
    }
}
