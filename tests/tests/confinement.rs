//! What a hostile program in a container tries, by Windows names, raw system calls and shell: each attempt fails and
//! the host is unharmed.

use std::path::{Path, PathBuf};

use silo_tests::{Daemon, NANOSERVER};

fn probe(dir: &Path) -> PathBuf {
    silo_tests::probe("confinement.c", dir)
}

/// Every line says "held", and there are at least so many.
fn all_held(text: &str, at_least: usize) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let breaches: Vec<&&str> = lines.iter().filter(|l| !l.starts_with("held ")).collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
    assert!(lines.len() >= at_least, "only {} attempts: {text}", lines.len());
}

#[test]
fn a_windows_program_stays_inside() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    probe(dir.path());
    let secret = d.path("secret");
    std::fs::write(&secret, "the host's").unwrap();
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let host_process = std::process::id().to_string();
    let secret = secret.display().to_string();
    for user in ["ContainerAdministrator", "ContainerUser"] {
        let said = d.docker(&[
            "run",
            "--rm",
            "-u",
            user,
            "-v",
            &bin,
            NANOSERVER,
            "C:\\bin\\probe.exe",
            &secret,
            &host_process,
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        all_held(&said.out, 30);
    }
    let said = d.docker(&[
        "run",
        "--rm",
        "--pids-limit",
        "60",
        "-v",
        &bin,
        NANOSERVER,
        "C:\\bin\\probe.exe",
        "processes",
    ]);
    assert!(!said.out.contains("BREACH"), "{said:?}");
    let said = d.docker(&[
        "run",
        "--name",
        "hungry",
        "--memory",
        "128m",
        "-v",
        &bin,
        NANOSERVER,
        "C:\\bin\\probe.exe",
        "memory",
    ]);
    assert!(!said.out.contains("BREACH") && (said.code != 0 || said.out.contains("held")), "{said:?}");
    // The host's own side goes on.
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "the host's");
    assert_eq!(d.docker(&["run", "--rm", NANOSERVER, "cmd", "/c", "echo fine"]).out, "fine");
}

const ATTEMPTS: &str = r#"
t() { what=$1; shift; if "$@" >/dev/null 2>&1; then echo "BREACH $what"; else echo "held $what"; fi; }
t "host file" cat "$SECRET"
t "host file by init's root" cat "/proc/1/root$SECRET"
t "host process" kill -0 "$HOST_PROCESS"
t "host process in /proc" test -e "/proc/$HOST_PROCESS"
t "mount" mount -t tmpfs t /mnt
t "bind mount" mount --bind / /mnt
t "unshare" unshare -m true
t "unshare user" unshare -U true
t "sysrq" sh -c 'echo h > /proc/sysrq-trigger'
t "core_pattern" sh -c 'echo x > /proc/sys/kernel/core_pattern'
t "kcore" head -c 1 /proc/kcore
t "read a disk" sh -c 'mknod /tmp/d b 254 0 && head -c 1 /tmp/d'
t "/dev/mem" sh -c 'mknod /tmp/m c 1 1 && head -c 1 /tmp/m'
t "kernel log" dmesg
t "host name" hostname other
t "clock" sh -c 'date -s 2000-01-01; test $(date +%Y) = 2000'
t "routes" ip route del default
t "release agent" sh -c 'echo /x > /sys/fs/cgroup/memory/release_agent'
t "cgroup limits" sh -c 'echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo 1 > /sys/fs/cgroup/memory.max'
t "modules" sh -c 'insmod /x || modprobe x'
"#;

#[test]
fn a_linux_program_stays_inside() {
    let d = Daemon::start();
    let secret = d.path("secret");
    std::fs::write(&secret, "the host's").unwrap();
    let process = format!("HOST_PROCESS={}", std::process::id());
    let secret_is = format!("SECRET={}", secret.display());
    let image = "localhost/busybox";
    let said = d.docker(&["run", "--rm", "-e", &secret_is, "-e", &process, image, "sh", "-c", ATTEMPTS]);
    assert_eq!(said.code, 0, "{said:?}");
    all_held(&said.out, 20);
    // As many processes as are allowed, and no more.
    let script = "i=0; while [ $i -lt 100 ]; do sleep 20 & i=$((i+1)); done; echo BREACH";
    let said = d.docker(&["run", "--rm", "--pids-limit", "20", image, "sh", "-c", script]);
    assert!(!said.out.contains("BREACH") && said.err.contains("can't fork"), "{said:?}");
    let script = "head -c 300m /dev/zero | tail | wc -c";
    d.docker(&[
        "run",
        "--name",
        "hungry",
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        image,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "hungry"]), "true");
    assert_eq!(d.ok(&["run", "--rm", image, "echo", "fine"]), "fine");
}
