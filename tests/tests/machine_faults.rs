//! Containers with hyperv isolation whose machine, shim, daemon, template or disks fail: each says why, and nothing is left.
//!
//! `SILO_SOAK_ROUNDS` and `SILO_SOAK_SEED` make a campaign of the kills: `cargo xtask soak machines`.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use silo_tests::spares::Spares;
use silo_tests::{Daemon, Random, rounds, seed};

const IMAGE: &str = "localhost/busybox";
/// Kills of the short version.
const ROUNDS: u64 = 6;

/// `docker run --isolation hyperv`, which must succeed.
fn run(d: &Daemon, arguments: &[&str]) -> String {
    d.ok(&[&["run", "--isolation", "hyperv"], arguments].concat())
}

/// The template, made by now.
fn template(d: &Daemon) -> PathBuf {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let found = std::fs::read_dir(d.path("vm/templates")).into_iter().flatten().flatten();
        if let Some(dir) = found.map(|e| e.path()).find(|p| p.join("template.json").exists()) {
            return dir;
        }
        assert!(Instant::now() < end, "there is no template\n{}", d.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn chain_image(d: &Daemon) -> PathBuf {
    let files = std::fs::read_dir(d.path("root/disks")).unwrap().flatten().map(|e| e.path());
    files.into_iter().find(|p| p.extension().is_some_and(|e| e == "erofs")).unwrap()
}

fn pid(d: &Daemon, name: &str) -> i32 {
    d.ok(&["inspect", "-f", "{{.State.Pid}}", name]).parse().unwrap()
}

fn parent(pid: i32) -> i32 {
    field(pid, "PPid").parse().unwrap()
}

/// A line of `/proc/<pid>/status`.
fn field(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().replace('\t', " ")
}

fn signal(pid: i32, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    assert!(status.is_ok());
}

/// Processes, other than the daemon's own, that have the daemon's directory in their command line or files open below it.
fn processes(d: &Daemon) -> Vec<String> {
    let dir = d.path("root").display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(" daemon ") || line.is_empty() || name == std::process::id().to_string() {
            continue;
        }
        let files = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let open = files.filter_map(|f| std::fs::read_link(f.path()).ok()).any(|f| f.starts_with(&dir));
        if open || line.contains(&dir) {
            found.push(format!("{name} {line}"));
        }
    }
    found
}

fn await_empty<T: std::fmt::Debug>(what: &str, mut list: impl FnMut() -> Vec<T>) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = list();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} are left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is done to a file, and what the daemon says of it.
type Break = (fn(&Path), &'static str);

/// Writes to a file in its place; if `unseen`, with the time of its last change as it was, as a medium that fails does.
fn harm(path: &Path, at: u64, bytes: &[u8], unseen: bool) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, at).unwrap();
    if unseen {
        file.set_modified(before).unwrap();
    }
}

/// Nothing is left of any of the daemon's containers, which had these ids.
fn nothing_is_left(d: &Daemon, ids: &[String]) {
    let dir = d.path("root").display().to_string();
    await_empty("processes", || processes(d));
    await_empty("directories", || {
        std::fs::read_dir(d.path("root/containers")).unwrap().flatten().map(|e| e.path()).collect()
    });
    await_empty("mounts", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|l| l.contains(&dir)).map(str::to_owned).collect::<Vec<_>>()
    });
    await_empty("adapters", || {
        let output = Command::new("ip").args(["-o", "link", "show", "master", d.bridge()]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    });
    await_empty("cgroups", || {
        let output = Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let ours = |l: &&str| ids.iter().any(|id| l.contains(id.as_str()));
        text.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
    });
    await_empty("half-made files", || {
        let all = ["root/disks", "vm/templates"].into_iter().flat_map(|n| std::fs::read_dir(d.path(n)));
        let names = all.flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names
            .filter(|n| n.starts_with('.') && !n.ends_with(".lock") && !n.starts_with(".fresh-"))
            .collect::<Vec<_>>()
    });
}

fn ids(d: &Daemon) -> Vec<String> {
    d.ok(&["ps", "-aq", "--no-trunc"]).lines().map(str::to_owned).collect()
}

#[test]
fn a_vmm_is_confined() {
    let d = Daemon::with_own_machines();
    let shared = d.path("shared");
    std::fs::create_dir(&shared).unwrap();
    run(&d, &["-d", "--name", "one", "-v", &format!("{}:/shared", shared.display()), IMAGE, "sleep", "1000"]);
    template(&d);
    // Booted, and cloned.
    for round in 0..2 {
        let vmm = pid(&d, "one");
        let uid = field(vmm, "Uid");
        assert!(uid.split(' ').all(|u| u.parse::<u32>().unwrap() >= 1 << 16), "{uid}");
        assert_eq!((field(vmm, "Gid"), field(vmm, "Groups")), (uid, String::new()));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(vmm, set), "0000000000000000", "{set}");
        }
        assert_eq!((field(vmm, "NoNewPrivs"), field(vmm, "Seccomp")), ("1".into(), "2".into()));
        assert!(field(vmm, "NSpid").ends_with(" 1"));
        for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            assert_ne!(of(&vmm.to_string()), of("self"), "{name}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{vmm}/mountinfo")).unwrap();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            assert!(fields[5].starts_with("ro,"), "{line}");
            let at = fields[4];
            let expected = ["/usr/", "/etc/ld.so.cache", "/dev/", "/proc", "/lib"];
            let boots = round == 0 && at.starts_with(&d.path("vm").display().to_string());
            assert!(at == "/" || boots || expected.iter().any(|e| at.starts_with(e)), "{line}");
        }
        let seen = |path: &str| Path::new(&format!("/proc/{vmm}/root{path}")).exists();
        assert!(seen("/usr/bin/qemu-system-x86_64") && !seen("/etc/passwd") && !seen("/usr/bin/env"));
        assert!(!seen(&d.path("root/silo.db").display().to_string()));
        let (id, root) = (d.ok(&["inspect", "-f", "{{.Id}}", "one"]), d.path("root"));
        for file in std::fs::read_dir(format!("/proc/{vmm}/fd")).unwrap().flatten() {
            let to = std::fs::read_link(file.path()).unwrap();
            let text = to.display().to_string();
            let plain = ["/null", "socket:[", "pipe:[", "anon_inode:", "/memfd:template", "/dev/net/tun"];
            let own = to == root.join("containers").join(&id).join("scratch.ext4");
            let disk = to.starts_with(root.join("disks"));
            assert!(own || disk || plain.iter().any(|p| text.starts_with(p)), "{text}");
        }
        let limits = std::fs::read_to_string(format!("/proc/{vmm}/limits")).unwrap();
        assert!(limits.lines().any(|l| l.split_whitespace().eq("Max core file size 0 0 bytes".split(' '))));
        d.ok(&["kill", "one"]);
        d.ok(&["start", "one"]);
    }
    d.ok(&["rm", "-f", "one"]);
}

#[test]
fn a_broken_template_is_a_cold_boot() {
    let mut d = Daemon::with_own_machines();
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "booted"]), "booted");
    let dir = template(&d);
    let address = "ip -4 addr show eth0 | grep -c inet; wget -q -T 1 -O- http://127.0.0.1:1/ || hostname";
    let usual = run(&d, &["--rm", "--hostname", "same", IMAGE, "sh", "-c", address]);
    assert_eq!(usual, "1\nsame");

    // Under a daemon that has loaded it: seen by nothing but what the clone does.
    harm(&dir.join("state"), 4096, &[0xa5; 16 << 10], true);
    assert_eq!(run(&d, &["--rm", "--hostname", "same", IMAGE, "sh", "-c", address]), usual);
    assert!(!dir.join("template.json").exists(), "it is still believed");
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "again"]), "again");
    // Seen before anything is started from it, and made anew.
    let breaks: [Break; 2] = [
        (|state| harm(state, 4096, &[0xa5], false), "its content has changed; it is made anew"),
        (
            |state| std::fs::remove_file(state).unwrap(),
            "No such file or directory (os error 2); it is made anew",
        ),
    ];
    for (harm, said) in breaks {
        let dir = template(&d);
        harm(&dir.join("state"));
        assert_eq!(run(&d, &["--rm", IMAGE, "echo", "fine"]), "fine");
        assert!(d.log().contains(said), "{}", d.log());
    }
    template(&d);

    // Under one that has not.
    let breaks: [fn(&Path); 3] = [
        |dir| std::fs::File::options().write(true).open(dir.join("memory")).unwrap().set_len(4096).unwrap(),
        |dir| std::fs::write(dir.join("template.json"), [0xff, 0, b'{']).unwrap(),
        |dir| std::fs::write(dir.join("state"), "").unwrap(),
    ];
    for harm in breaks {
        run(&d, &["--rm", IMAGE, "true"]);
        let dir = template(&d);
        d.stop(false);
        harm(&dir);
        d.again();
        assert_eq!(run(&d, &["--rm", IMAGE, "echo", "fine"]), "fine");
    }
    template(&d);
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "cloned"]), "cloned");
    nothing_is_left(&d, &[]);
}

#[test]
fn an_end_says_why() {
    let mut d = Daemon::with_own_machines();
    let why = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    run(
        &d,
        &[
            "-d",
            "--name",
            "one",
            "-v",
            "data:/data",
            IMAGE,
            "sh",
            "-c",
            "trap '' TERM; sleep 1000 & wait; wait",
        ],
    );

    signal(pid(&d, "one"), "-KILL");
    d.await_state("one", why, "exited 137 its virtual machine was killed (QEMU: signal 9)");
    d.ok(&["start", "one"]);
    let vmm = pid(&d, "one");
    signal(parent(vmm), "-KILL");
    d.await_state("one", why, "exited 137 the container's shim was killed");
    await_empty("VMMs", || processes(&d));

    // A guest that hangs.
    for command in [&["kill", "one"][..], &["stop", "-t", "1", "one"], &["rm", "-f", "one"]] {
        d.ok(&["start", "one"]);
        signal(pid(&d, "one"), "-STOP");
        let begin = Instant::now();
        d.ok(command);
        assert!(begin.elapsed() < Duration::from_secs(20), "{command:?} took {:?}", begin.elapsed());
        if command[0] != "rm" {
            d.await_state("one", why, "exited 137");
        }
    }

    // A kernel that panics.
    let panics = ["sh", "-c", "echo before; echo c > /proc/sysrq-trigger; echo after"];
    let run_it = [&["run", "--name", "panics", "--isolation", "hyperv", "--privileged", IMAGE][..], &panics];
    let said = d.docker(&run_it.concat());
    // What the kernel had not sent yet is lost with it.
    assert!(said.code == 137 && ["before", ""].contains(&said.out.as_str()), "{said:?}");
    let crashed = "exited 137 its virtual machine ended: its kernel or the agent in it has crashed";
    d.await_state("panics", why, crashed);
    d.ok(&["rm", "panics"]);

    // A daemon that comes back takes a machine over, and learns of the end of another.
    let names = ["stays", "ends"];
    for name in names {
        run(&d, &["-d", "--name", name, IMAGE, "sleep", "1000"]);
    }
    let ends = pid(&d, "ends");
    d.stop(true);
    signal(ends, "-KILL");
    d.again();
    d.await_state("ends", why, "exited 137 its virtual machine was killed (QEMU: signal 9)");
    assert_eq!(d.ok(&["exec", "stays", "echo", "in"]), "in");
    let all = ids(&d);
    d.ok(&["rm", "-f", "stays", "ends"]);
    nothing_is_left(&d, &all);
}

#[test]
fn damaged_disks_are_told() {
    let d = Daemon::with_own_machines();
    run(&d, &["--name", "one", IMAGE, "true"]);
    // Cut off: made anew.
    let image = chain_image(&d);
    let length = std::fs::metadata(&image).unwrap().len();
    std::fs::File::options().write(true).open(&image).unwrap().set_len(4096).unwrap();
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "fine"]), "fine");
    // A bit in its middle: made anew.
    let content = ["--rm", IMAGE, "sha256sum", "/bin/busybox"];
    let usual = run(&d, &content);
    let middle = std::fs::metadata(&image).unwrap().blocks() * 512 / 2;
    harm(&image, middle, &[0xa5], false);
    assert_eq!(run(&d, &content), usual);
    // Its head, by a medium that fails: one start fails, and says why.
    harm(&image, 1024 + 4, &[0xa5; 64], true);
    d.fails(&["run", "--isolation", "hyperv", "--rm", IMAGE, "true"], "mounting disk silo-0");
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "fine"]), "fine");
    assert_eq!(std::fs::metadata(&image).unwrap().len(), length);
    // Under a machine that runs: its own trouble, and it goes.
    run(&d, &["-d", "--name", "two", IMAGE, "sleep", "1000"]);
    std::fs::File::options().write(true).open(&image).unwrap().set_len(4096).unwrap();
    d.docker(&["exec", "two", "sha256sum", "/bin/busybox"]);
    d.ok(&["rm", "-f", "two"]);
    // A scratch holds what is nowhere else: it stays as it is.
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "one"]);
    let scratch = d.path("root/containers").join(id).join("scratch.ext4");
    std::fs::File::options().write(true).open(&scratch).unwrap().set_len(4096).unwrap();
    d.fails(&["start", "one"], "mounting disk silo-scratch");
    let error = d.ok(&["inspect", "-f", "{{.State.Error}}", "one"]);
    assert!(error.contains("mounting disk silo-scratch"), "{error}");
    assert_eq!(std::fs::metadata(&scratch).unwrap().size(), 4096);
    let all = ids(&d);
    d.ok(&["rm", "-f", "one"]);
    nothing_is_left(&d, &all);
}

/// Client commands that run over and over; most of those that a kill meets fail, and may.
fn work(host: &str, stop: &AtomicBool, worker: u32, done: &AtomicU32) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("w{worker}-{n}");
        let run = ["run", "--isolation", "hyperv"];
        let commands = [
            [
                &run[..],
                &[
                    "-d",
                    "--name",
                    &name,
                    "-v",
                    "/data",
                    IMAGE,
                    "sh",
                    "-c",
                    "while :; do echo x; sleep 0.1; done",
                ],
            ]
            .concat(),
            [&run[..], &["--rm", IMAGE, "true"]].concat(),
            vec!["exec", &name, "sh", "-c", "echo in > /data/file; sync"],
            vec!["stop", "-t", "0", &name],
            vec!["start", &name],
            if n % 2 == 0 { vec!["rm", "-f", "-v", &name] } else { vec!["version"] },
        ];
        for command in commands {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let mut docker = Command::new("timeout");
            docker.args(["-s", "KILL", "60", "docker"]).args(command).env("DOCKER_HOST", host);
            let status = docker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            if status.is_ok_and(|s| s.success()) {
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// VMMs, shims and servers of shared folders of the daemon's.
fn victims(d: &Daemon) -> Vec<i32> {
    processes(d).iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn every_machine_is_accounted_for() {
    let (rounds, seed) = (rounds(ROUNDS), seed(20_261_125));
    println!("{rounds} kills, seed {seed}");
    let mut random = Random::new(seed);
    let mut d = Daemon::with_own_machines();
    d.stop(false);
    d.keep_spares(2);
    d.again();
    let mut spares = Spares::default();
    let (stop, done, host) = (AtomicBool::new(false), AtomicU32::new(0), d.host());
    let mut hit = 0;
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (stop, done, host) = (&stop, &done, &host);
            scope.spawn(move || work(host, stop, worker, done));
        }
        for round in 0..rounds {
            // The moment is what this is about.
            std::thread::sleep(Duration::from_millis(500 + random.below(3000)));
            spares.look(&d);
            if round % 3 == 0 {
                d.stop(true);
                d.again();
                continue;
            }
            let all = victims(&d);
            if !all.is_empty() {
                hit += 1;
                signal(all[random.below(all.len() as u64) as usize], "-KILL");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let done = done.load(Ordering::Relaxed);
    println!("{done} commands succeeded, {hit} processes of machines were killed");
    assert!(u64::from(done) > rounds / 2, "only {done} commands succeeded between {rounds} kills");

    let all = ids(&d);
    for id in &all {
        let state = d.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id]);
        let (status, pid) = state.split_once(' ').unwrap();
        let alive = pid != "0" && Path::new("/proc").join(pid).exists();
        assert_eq!(alive, status == "running", "{id}: {state}");
        if status == "running" {
            assert_eq!(d.ok(&["exec", id, "echo", "hi"]), "hi");
        }
    }
    for id in &all {
        d.ok(&["rm", "-f", "-v", id]);
    }
    spares.are_accounted_for(&d);
    d.stop(false);
    spares.are_gone(&mut d);
    nothing_is_left(&d, &all);
    assert_eq!(d.ok(&["volume", "ls", "-q", "-f", "dangling=true"]), "");
    assert_eq!(run(&d, &["--rm", IMAGE, "echo", "fine"]), "fine");
}

/// Unmounts it at the end, whatever comes of the test.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_not_an_end() {
    let mut d = Daemon::with_own_machines();
    run(&d, &["--rm", IMAGE, "true"]);
    d.stop(false);
    let containers = d.path("root/containers");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&containers);
    assert!(mount.status().unwrap().success());
    let small = Small(containers);
    d.again();

    let talks = "while :; do echo line; sleep 0.1; done";
    run(&d, &["-d", "--name", "one", IMAGE, "sh", "-c", talks]);
    d.ok(&["run", "-d", "--isolation", "process", "--name", "plain", IMAGE, "sh", "-c", talks]);
    d.ok(&["create", "--isolation", "hyperv", "--name", "late", IMAGE, "echo", "late"]);
    let _ = std::fs::write(small.0.join("fill"), vec![b'x'; 64 << 20]);
    d.fails(&["start", "late"], "No space left on device");
    // Its own writes fail; it lives, and so does its neighbour, whose log has no room either.
    d.docker(&["exec", "one", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=40; sync"]);
    for name in ["one", "plain"] {
        assert_eq!(d.ok(&["exec", name, "echo", "in"]), "in");
    }
    std::fs::remove_file(small.0.join("fill")).unwrap();
    d.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(d.ok(&["exec", "one", "sh", "-c", "echo x > /file && cat /file"]), "x");
    assert_eq!(d.ok(&["start", "-a", "late"]), "late");
    let all = ids(&d);
    d.ok(&["rm", "-f", "one", "plain", "late"]);
    // What is mounted below is this test's own.
    d.stop(false);
    drop(small);
    d.again();
    nothing_is_left(&d, &all);
}
