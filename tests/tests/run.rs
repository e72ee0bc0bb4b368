//! `docker run` and its options, on a Linux image under process isolation.

use std::process::Command;

use silo_tests::{Daemon, only_under};

const IMAGE: &str = "localhost/busybox";

#[test]
fn programs_run_and_their_codes_come_back() {
    let d = Daemon::start();
    assert_eq!(d.ok(&["run", "--rm", IMAGE, "echo", "hello"]), "hello");
    assert_eq!(d.docker(&["run", "--rm", IMAGE, "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(d.docker(&["run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
    let said = d.docker(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out", "err"));
    assert_eq!(d.fails(&["run", "--rm", IMAGE, "nosuch"], "executable file not found in $PATH").code, 127);
    assert_eq!(d.fails(&["run", "--rm", IMAGE, "/etc/passwd"], "permission denied").code, 126);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

#[test]
fn options_change_what_the_program_sees() {
    let d = Daemon::start();
    let check = |options: &[&str], script: &str, expected: &str| {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend([IMAGE, "sh", "-c", script]);
        assert_eq!(d.ok(&arguments), expected, "{options:?}");
    };
    check(&["-e", "A=1", "-e", "B=two words"], "echo $A $B", "1 two words");
    check(&["-w", "/some/where"], "pwd", "/some/where");
    check(&["-u", "bob"], "id -u; id -g", "1000\n1000");
    check(&["-u", "7:8"], "id -u; id -g", "7\n8");
    check(&["--hostname", "box"], "hostname; cat /etc/hostname", "box\nbox");
    check(&["--entrypoint", "echo"], "x", "sh -c x");
    check(&["--read-only"], "touch /x 2>&1; echo $?", "touch: /x: Read-only file system\n1");
    check(&["--tmpfs", "/t:size=1m"], "df /t | tail -1 | awk '{print $2}'", "1024");
    check(
        &["--memory", "64m"],
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
        "67108864",
    );
    check(
        &["--pids-limit", "50"],
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max",
        "50",
    );
    check(&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn", "100\n200");
    check(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status | cut -f2", "0000000000000000");
    check(&[], "grep CapEff /proc/self/status | cut -f2", "00000000a80425fb");
    check(&["--cap-add", "NET_ADMIN"], "grep CapEff /proc/self/status | cut -f2", "00000000a80435fb");
    check(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status | cut -f2", "1");
    check(&[], "grep '^Seccomp:' /proc/self/status | cut -f2", "2");
    check(&["--security-opt", "seccomp=unconfined"], "grep '^Seccomp:' /proc/self/status | cut -f2", "0");
    check(&["--network", "none"], "ls /sys/class/net", "lo");
    check(&["--ipc", "host", "--isolation", "process"], "test -d /dev/shm && echo ok", "ok");
    check(&["--init"], "readlink /proc/1/exe", "/sbin/docker-init");
    check(&["--stop-signal", "INT", "--label", "a=b"], "echo ok", "ok");
}

#[test]
fn folders_are_bound() {
    let d = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in"), "from host").unwrap();
    let source = dir.path().display();
    let out = d.ok(&[
        "run",
        "--rm",
        "-v",
        &format!("{source}:/data"),
        IMAGE,
        "sh",
        "-c",
        "cat /data/in; echo made > /data/out",
    ]);
    assert_eq!(out, "from host");
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "made\n");
    let mount = format!("type=bind,source={source},target=/data,readonly");
    let said = d.docker(&["run", "--rm", "--mount", &mount, IMAGE, "touch", "/data/x"]);
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    d.fails(
        &["run", "--rm", "--mount", "type=bind,source=/nonexistent,target=/x", IMAGE, "true"],
        "bind source path does not exist",
    );
}

#[test]
fn standard_input_is_binary_clean_to_its_end() {
    use std::io::Write;
    let d = Daemon::start();
    let mut child = d
        .command(&["run", "--rm", "-i", IMAGE, "md5sum"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7) as u8).collect();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let inside = child.wait_with_output().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let outside = std::process::Command::new("md5sum").arg(file.path()).output().unwrap();
    assert_eq!(inside.stdout[..32], outside.stdout[..32]);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let d = Daemon::start();
    d.fails(&["run", "--rm", "--isolation", "chroot", IMAGE, "true"], "invalid isolation \"chroot\"");
    d.fails(&["run", "--rm", "--isolation", "hyperv", "--network", "host", IMAGE, "true"], "--network host");
    d.fails(&["run", "--rm", "--isolation", "hyperv", "--device", "/dev/fuse", IMAGE, "true"], "--device");
    d.fails(
        &["run", "--rm", "--isolation", "process", "--storage-opt", "size=1M", IMAGE, "true"],
        "from 64 MiB to 1 TiB are possible",
    );
    d.fails(&["run", "--rm", "--network", "mine", IMAGE, "true"], "network mine not found");
    d.fails(&["run", "--rm", "--memory", "1m", IMAGE, "true"], "Minimum memory limit allowed is 6MB");
    d.fails(&["run", "--rm", "--cpus", "1000", IMAGE, "true"], "range of CPUs is from 0.01");
    d.fails(
        &["run", "--rm", "--device-read-bps", "/dev/null:1mb", IMAGE, "true"],
        "device /dev/null: not a block device",
    );
    d.fails(&["run", "--rm", "--user", "eve", IMAGE, "true"], "unable to find user eve");
    d.fails(&["run", "127.0.0.1:1/nosuchimage"], "refused");
    d.fails(&["create", "--name", "a b", IMAGE], "Invalid container name");
}

/// The daemon holds a few files for each container; the container has the limit that the daemon was started with.
#[test]
fn a_container_has_the_limit_of_open_files_that_the_daemon_was_started_with() {
    if !only_under("process", "a machine has limits of its own") {
        return;
    }
    let own = |pid: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find(|l| l.starts_with("Max open files")).unwrap().to_owned();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        (numbers[0], numbers[1])
    };
    let (soft, hard) = own("self");
    let less = soft.min(512);
    let status = |n: u64| {
        let limit = format!("--nofile={n}:{hard}");
        Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status().unwrap()
    };
    assert!(status(less).success());
    let d = Daemon::start();
    assert!(status(soft).success());
    assert_eq!(d.ok(&["run", "--rm", IMAGE, "sh", "-c", "ulimit -n; ulimit -Hn"]), format!("{less}\n{hard}"));
}
