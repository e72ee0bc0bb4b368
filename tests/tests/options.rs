//! Options of `docker run` and verbs of the client, one by one; those that do not depend on the guest run on both.

use std::process::Stdio;

use silo_tests::{Daemon, NANOSERVER, now};

const IMAGE: &str = "localhost/busybox";

/// A guest in the words of its shell.
struct Guest {
    image: &'static str,
    shell: [&'static str; 2],
    /// Runs until it is stopped.
    idle: &'static str,
    home: &'static str,
}

const LINUX: Guest = Guest { image: IMAGE, shell: ["sh", "-c"], idle: "exec sleep 1000", home: "/root" };
const WINDOWS: Guest =
    Guest { image: NANOSERVER, shell: ["cmd", "/c"], idle: "ping -n 1000 127.0.0.1 >nul", home: "C:\\Users" };

impl Guest {
    /// `docker run` of a line of the shell.
    fn run(&self, d: &Daemon, options: &[&str], line: &str) -> String {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.push(self.image);
        arguments.extend(self.shell);
        arguments.push(line);
        d.ok(&arguments).replace('\r', "")
    }

    fn exec(&self, d: &Daemon, options: &[&str], name: &str, line: &str) -> String {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.push(name);
        arguments.extend(self.shell);
        arguments.push(line);
        d.ok(&arguments).replace('\r', "")
    }
}

#[test]
fn network_options_show_in_the_containers_files() {
    let d = Daemon::start();
    let check = |options: &[&str], line: &str, wanted: &str| {
        let options: Vec<&str> = ["--rm"].iter().chain(options).copied().collect();
        let said = LINUX.run(&d, &options, line);
        assert!(said.contains(wanted), "{options:?} {line:?} should say {wanted:?}: {said}");
    };
    check(&["--add-host", "db:10.9.8.7"], "cat /etc/hosts", "10.9.8.7\tdb");
    check(
        &["--dns", "9.9.9.9", "--dns-search", "corp.test", "--dns-option", "ndots:3"],
        "cat /etc/resolv.conf",
        "nameserver 9.9.9.9\nsearch corp.test\noptions ndots:3",
    );
    check(&["--mac-address", "02:42:ac:11:00:99"], "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99");
    check(&["--network", "bridge"], "ls /sys/class/net", "eth0");
    check(&["--network", "host", "--isolation", "process"], "ls /sys/class/net", d.bridge());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    check(&["--network", "host", "--isolation", "process"], "hostname", host.trim());
    check(&["--domainname", "corp.test", "--hostname", "h"], "hostname -f", "h.corp.test");
    d.ok(&["run", "-d", "--name", "db", "-e", "PASS=x", "--isolation", "process", IMAGE, "sleep", "1000"]);
    check(&["--link", "db:store"], "ping -c1 -w5 store | head -1; echo $STORE_ENV_PASS", "PING store");
    check(
        &["--network", "container:db", "--isolation", "process"],
        "hostname -i",
        &d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"]),
    );
    d.ok(&["run", "-d", "--name", "pub", "-p", "127.0.0.1:0:80", IMAGE, "sleep", "1000"]);
    let port = d.ok(&["port", "pub", "80"]);
    assert!(port.starts_with("127.0.0.1:") && !port.ends_with(":0"), "{port}");
}

#[test]
fn namespaces_and_rights_are_as_asked_for() {
    let d = Daemon::start();
    let run = |options: &[&str], line: &str| {
        let options: Vec<&str> = ["--rm"].iter().chain(options).copied().collect();
        LINUX.run(&d, &options, line)
    };
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for kind in ["pid", "ipc", "uts"] {
        let line = format!("readlink /proc/self/ns/{kind}");
        assert_ne!(run(&[], &line), own(kind), "{kind}");
        assert_eq!(
            run(&[&format!("--{kind}"), "host", "--isolation", "process"], &line),
            own(kind),
            "{kind}"
        );
    }
    assert_eq!(run(&["--privileged"], "mkdir /m && mount -t tmpfs none /m && echo mounted"), "mounted");
    assert_eq!(run(&["--privileged"], "grep '^Seccomp:' /proc/self/status | cut -f2"), "0");
    assert_eq!(
        run(
            &["--device", "/dev/null:/dev/mine:r", "--isolation", "process"],
            "test -c /dev/mine && echo there"
        ),
        "there"
    );
    assert_eq!(run(&["--group-add", "77", "--group-add", "bob"], "id -G"), "0 77 1000");
    assert_eq!(
        run(
            &["--sysctl", "net.ipv4.ip_unprivileged_port_start=77"],
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
        ),
        "77"
    );
    assert_eq!(run(&["--shm-size", "8m"], "df /dev/shm | tail -1 | awk '{print $2}'"), "8192");
    assert_eq!(run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
    assert_eq!(run(&["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status | cut -f2"), "0");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    assert_eq!(run(&["--cpus", "0.5"], quota), "50000");
    assert_eq!(run(&["--platform", "linux/amd64"], "echo yes"), "yes");
    d.fails(&["run", "--rm", "--platform", "windows/amd64", IMAGE, "true"], "Unable to find image");
    let profile = d.path("profile.json");
    let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, deny).unwrap();
    let option = format!("seccomp={}", profile.display());
    assert_eq!(
        run(&["--security-opt", &option], "mkdir /x 2>&1; true"),
        "mkdir: can't create directory '/x': Operation not permitted"
    );
}

#[test]
fn shared_memory_is_whose_the_ipc_mode_says() {
    if !silo_tests::only_under("process", "a kernel of its own shares no memory") {
        return;
    }
    let d = Daemon::start();
    let run = |options: &[&str], line: &str| {
        let options: Vec<&str> = ["--rm"].iter().chain(options).copied().collect();
        LINUX.run(&d, &options, line)
    };
    assert_eq!(run(&["--ipc", "none"], "test -e /dev/shm || echo nothing"), "nothing");
    d.ok(&["run", "-d", "--name", "own", "-v", "/data", IMAGE, "sleep", "1000"]);
    d.ok(&["run", "-d", "--name", "aa", "--ipc", "shareable", "--shm-size", "8m", IMAGE, "sleep", "1000"]);
    d.ok(&["exec", "aa", "sh", "-c", "echo there > /dev/shm/f"]);
    let line = "cat /dev/shm/f; echo back > /dev/shm/g; df /dev/shm | tail -1 | awk '{print $2}'";
    assert_eq!(run(&["--ipc", "container:aa"], line), "there\n8192");
    assert_eq!(d.ok(&["exec", "aa", "cat", "/dev/shm/g"]), "back");
    // Of one that shares another's.
    d.ok(&["run", "-d", "--name", "bb", "--ipc", "container:aa", IMAGE, "sleep", "1000"]);
    assert_eq!(run(&["--ipc", "container:bb"], "cat /dev/shm/f"), "there");
    d.fails(&["run", "--rm", "--ipc", "container:own", IMAGE, "true"], "non-shareable IPC");
    // Files of a container are there when the one whose memory it shared is gone.
    d.ok(&["rm", "-f", "aa"]);
    d.ok(&["stop", "-t", "0", "bb"]);
    d.ok(&["cp", "bb:/etc/passwd", &d.path("passwd").display().to_string()]);
}

#[test]
fn unused_things_are_pruned() {
    let d = Daemon::start();
    d.ok(&["volume", "create", "kept"]);
    d.ok(&["run", "-d", "--name", "runs", "-v", "kept:/v", IMAGE, "sleep", "1000"]);
    d.ok(&["run", "--name", "ended", "-v", "/anonymous", IMAGE, "true"]);
    let said = d.ok(&["system", "prune", "-f"]);
    assert!(said.contains("Deleted Containers") && said.contains("Total reclaimed space"), "{said}");
    assert_eq!(d.ok(&["ps", "-a", "--format", "{{.Names}}"]), "runs");
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), 2);
    let said = d.ok(&["volume", "prune", "-f"]);
    assert!(said.contains("Deleted Volumes"), "{said}");
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "kept");
    d.ok(&["system", "prune", "-f", "-a", "--volumes"]);
    assert_eq!(d.ok(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn volumes_are_shared_and_go_with_their_container() {
    let d = Daemon::start();
    d.ok(&[
        "run",
        "--name",
        "aa",
        "-v",
        "/data",
        "-v",
        "named:/other",
        IMAGE,
        "sh",
        "-c",
        "echo 1 > /data/f; echo 2 > /other/f",
    ]);
    assert_eq!(d.ok(&["run", "--rm", "--volumes-from", "aa", IMAGE, "cat", "/data/f", "/other/f"]), "1\n2");
    let volumes = || d.ok(&["volume", "ls", "-q"]).lines().count();
    assert_eq!(volumes(), 2);
    d.ok(&["rm", "-v", "aa"]);
    assert_eq!((volumes(), d.ok(&["volume", "ls", "-q"])), (1, "named".to_owned()));
}

fn options_of_both(d: &Daemon, guest: &Guest) {
    let file = d.path("env");
    std::fs::write(&file, "FROM_FILE=a b\n# comment\n").unwrap();
    let variable = if guest.image == IMAGE { "echo $FROM_FILE" } else { "echo %FROM_FILE%" };
    assert_eq!(guest.run(d, &["--rm", "--env-file", &file.display().to_string()], variable), "a b");
    let id_file = d.path(if guest.image == IMAGE { "id-linux" } else { "id-windows" });
    guest.run(
        d,
        &[
            "--name",
            "opt",
            "--cidfile",
            &id_file.display().to_string(),
            "--label",
            "k=v",
            "--isolation",
            "process",
            "--stop-timeout",
            "3",
            "--annotation",
            "x=y",
        ],
        "echo hi",
    );
    assert_eq!(
        d.ok(&["inspect", "-f", "{{.Config.Labels.k}} {{.HostConfig.Isolation}} {{.Config.StopTimeout}} {{.HostConfig.Annotations.x}}", "opt"]),
        "v process 3 y"
    );
    assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", "opt"]), std::fs::read_to_string(&id_file).unwrap());
    d.ok(&["rm", "opt"]);
    // 10 files of 1 kB hold the end of what was written, and no more.
    guest.run(
        d,
        &["--name", "opt", "--log-opt", "max-size=1k", "--log-opt", "max-file=2"],
        if guest.image == IMAGE { "seq 1 1000" } else { "for /L %i in (1,1,1000) do @echo %i" },
    );
    let log = d.ok(&["logs", "opt"]).replace('\r', "");
    let numbers: Vec<u32> = log.lines().map(|l| l.parse().unwrap()).collect();
    assert!(
        numbers.last() == Some(&1000) && numbers.len() < 200,
        "{} lines to {:?}",
        numbers.len(),
        numbers.last()
    );
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    d.ok(&["rm", "opt"]);
}

#[test]
fn options_that_any_guest_has_linux() {
    options_of_both(&Daemon::start(), &LINUX);
}

#[test]
fn options_that_any_guest_has_windows() {
    options_of_both(&Daemon::windows(), &WINDOWS);
}

fn verbs_of_both(d: &Daemon, guest: &Guest) {
    let started = now();
    guest.run(d, &["-d", "--name", "one", "--label", "of=test"], guest.idle);
    d.ok(&["create", "--name", "two", guest.image, guest.shell[0], guest.shell[1], "exit 4"]);
    let names = |filter: &str| {
        let list = d.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("status=running"), ["one"]);
    assert_eq!(names("status=created"), ["two"]);
    assert_eq!(names("label=of=test"), ["one"]);
    assert_eq!(names("name=tw"), ["two"]);
    assert_eq!(names("since=one"), ["two"]);
    assert_eq!(names(&format!("ancestor={}", guest.image)), ["two", "one"]);
    assert_eq!(d.ok(&["ps", "-q", "-n", "1", "--no-trunc"]), d.ok(&["inspect", "-f", "{{.Id}}", "two"]));
    assert!(d.ok(&["ps", "-s", "--format", "{{.Size}}"]).contains("virtual"));

    // wait hears of ends that come later, and of ended containers at once.
    let waiting = d.command(&["wait", "two"]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(d.docker(&["start", "-a", "two"]).code, 4);
    let waited = waiting.wait_with_output().unwrap();
    assert!(["4\n", "0\n"].contains(&&*String::from_utf8_lossy(&waited.stdout)), "{waited:?}");
    assert_eq!(d.ok(&["wait", "two"]), "4");
    assert_eq!(names("exited=4"), ["two"]);

    d.ok(&["pause", "one"]);
    assert_eq!(names("status=paused"), ["one"]);
    d.ok(&["unpause", "one"]);
    d.ok(&["rename", "one", "uno"]);
    d.ok(&[
        "update",
        "--memory",
        "300m",
        "--memory-swap",
        "300m",
        "--restart",
        "no",
        "--pids-limit",
        "200",
        "uno",
    ]);
    assert_eq!(
        d.ok(&["inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "uno"]),
        "314572800 200"
    );
    assert!(d.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "uno"]).ends_with("/ 300MiB"));
    let top = d.ok(&["top", "uno"]);
    assert!(top.contains(if guest.image == IMAGE { "sleep 1000" } else { "ping -n 1000" }), "{top}");

    // exec: in the background, as another, with its own variables; its pieces of input come back whole.
    guest.exec(d, &["-d"], "uno", if guest.image == IMAGE { "echo x > /made" } else { "echo x> c:\\made" });
    let copied = d.path("made");
    let from = if guest.image == IMAGE { "uno:/made" } else { "uno:C:\\made" };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while d.docker(&["cp", from, &copied.display().to_string()]).code != 0 {
        assert!(std::time::Instant::now() < end, "exec -d has made nothing");
    }
    assert_eq!(
        guest.exec(d, &["-w", guest.home], "uno", if guest.image == IMAGE { "pwd" } else { "cd" }),
        guest.home
    );
    let into = format!("uno:{}", guest.home);
    d.ok(&["cp", &copied.display().to_string(), &into]);
    let diff = d.ok(&["diff", "uno"]);
    let slash = if guest.image == IMAGE { '/' } else { '\\' };
    let made = format!("A {}{slash}made", guest.home);
    assert!(diff.lines().any(|line| line == made), "{diff}");

    d.ok(&["kill", "uno"]);
    d.ok(&["start", "uno"]);
    d.ok(&["restart", "-t", "1", "uno"]);
    d.fails(&["rm", "uno"], "container is running");
    d.ok(&["commit", "-a", "me", "-m", "words", "-c", "LABEL a=b", "uno", "made:by-test"]);
    assert_eq!(
        d.ok(&["image", "inspect", "-f", "{{.Author}} {{.Comment}} {{.Config.Labels.a}}", "made:by-test"]),
        "me words b"
    );
    assert!(
        d.ok(&["history", "--no-trunc", "--format", "{{.Comment}}", "made:by-test"]).starts_with("words")
    );
    d.ok(&["rm", "-f", "-v", "uno"]);
    assert!(d.ok(&["container", "prune", "-f"]).contains("Deleted Containers"));
    assert_eq!(d.ok(&["ps", "-aq"]), "");

    let text = d.ok(&[
        "events",
        "--since",
        &started,
        "--until",
        &now(),
        "--filter",
        "type=container",
        "--filter",
        "event=rename",
        "--filter",
        "event=pause",
        "--filter",
        "event=update",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    assert_eq!(text, "pause one\nrename uno\nupdate uno");
}

#[test]
fn verbs_that_any_guest_has_linux() {
    verbs_of_both(&Daemon::start(), &LINUX);
}

#[test]
fn verbs_that_any_guest_has_windows() {
    verbs_of_both(&Daemon::windows(), &WINDOWS);
}

#[test]
fn attached_clients_detach_and_come_back() {
    let d = Daemon::start();
    d.ok(&["run", "-dit", "--name", "aa", IMAGE, "cat"]);
    let line = format!("docker -H {} attach --detach-keys ctrl-a,d aa", d.host());
    let script = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut client = script.unwrap();
    use std::io::Write;
    client.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    // The keys are the client's once it has seen an answer.
    let mut seen = Vec::new();
    let mut out = client.stdout.take().unwrap();
    while !String::from_utf8_lossy(&seen).contains("hello\r\nhello") {
        let mut bytes = [0; 256];
        let n = std::io::Read::read(&mut out, &mut bytes).unwrap();
        assert!(n > 0, "attach ended: {}", String::from_utf8_lossy(&seen));
        seen.extend(&bytes[..n]);
    }
    client.stdin.as_mut().unwrap().write_all(b"\x01d").unwrap();
    std::io::Read::read_to_end(&mut out, &mut seen).unwrap();
    client.wait().unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("read escape sequence"), "{seen}");
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Running}}", "aa"]), "true");
    assert!(d.ok(&["logs", "aa"]).contains("hello"));
}

#[test]
fn logs_by_time() {
    let d = Daemon::start();
    d.ok(&["run", "--name", "aa", IMAGE, "echo", "early"]);
    let between = now();
    d.ok(&["start", "-a", "aa"]);
    assert_eq!(d.ok(&["logs", "--since", &between, "aa"]), "early");
    assert_eq!(d.ok(&["logs", "--until", &between, "aa"]), "early");
    assert_eq!(d.ok(&["logs", "aa"]), "early\nearly");
    assert_eq!(d.ok(&["logs", "--since", "1h", "--until", "30m", "aa"]), "");
}

#[test]
fn images_in_every_packing() {
    let d = Daemon::start();
    let at = |name: &str| d.path(name).display().to_string();
    let shell = |line: &str| {
        let done = std::process::Command::new("sh").args(["-ec", line]).status().unwrap();
        assert!(done.success(), "{line}");
    };
    d.ok(&["create", "--name", "aa", IMAGE]);
    d.ok(&["export", "-o", &at("root.tar"), "aa"]);
    d.ok(&["rm", "aa"]);
    d.ok(&["save", "-o", &at("image.tar"), IMAGE]);
    let before = d.ok(&["images", "-q", "--no-trunc", IMAGE]);
    shell(&format!("cd {}; gzip -k image.tar root.tar; zstd -q image.tar root.tar", d.path("").display()));
    for packing in ["image.tar", "image.tar.gz", "image.tar.zst"] {
        d.ok(&["rmi", IMAGE]);
        assert!(
            d.ok(&["load", "-i", &at(packing)]).contains("Loaded image: localhost/busybox:latest"),
            "{packing}"
        );
        assert_eq!(d.ok(&["images", "-q", "--no-trunc", IMAGE]), before, "{packing}");
    }
    for packing in ["root.tar", "root.tar.gz", "root.tar.zst"] {
        let id =
            d.ok(&["import", "-m", "brought", "-c", "CMD [\"echo\", \"in\"]", &at(packing), "brought:1"]);
        assert_eq!(d.ok(&["run", "--rm", "brought:1"]), "in", "{packing}");
        assert_eq!(d.ok(&["images", "-q", "--no-trunc", "--filter", "reference=brought"]), id, "{packing}");
        assert_eq!(d.ok(&["image", "inspect", "-f", "{{.Comment}}", "brought:1"]), "brought");
    }
    // The last one has the name; the others have none and are pruned.
    assert_eq!(d.ok(&["images", "-q", "--filter", "dangling=true"]).lines().count(), 2);
    d.ok(&["image", "prune", "-f"]);
    assert_eq!(d.ok(&["images", "-q", "--filter", "dangling=true"]), "");
    let usage = d.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert!(usage.contains("Images 2 0") && usage.contains("Containers 0 0"), "{usage}");
    assert!(d.ok(&["info", "--format", "{{.Images}} {{.OSType}} {{.Driver}}"]).starts_with("2 linux "));
    d.fails(&["load", "-i", "/dev/null"], "");
}
