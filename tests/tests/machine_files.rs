//! The files of containers with a kernel of their own: nothing of them is on the host, and everything is asked for.

use std::path::Path;
use std::process::Command;

use silo_tests::{Daemon, NANOSERVER};

const IMAGE: &str = "localhost/busybox";

/// Gives the daemon a kernel to boot: Debian's smallest, as apt would install it.
fn kernel(d: &Daemon) {
    let said = match std::env::var("SILO_VM_KERNEL") {
        Ok(package) => d.silo(&["vm", "kernel", "--package", &package]),
        Err(_) => d.silo(&["vm", "kernel"]),
    };
    assert_eq!(said.code, 0, "silo vm kernel: {said:?}");
}

fn linux() -> Daemon {
    let d = Daemon::start();
    kernel(&d);
    d
}

fn tree_of(tar: &str) -> Vec<String> {
    let list = Command::new("tar").args(["-tf", tar]).output().unwrap();
    String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect()
}

/// What a container leaves in its directory on the host for a moment.
fn copies(d: &Daemon) -> Vec<String> {
    let containers = std::fs::read_dir(d.path("root/containers")).unwrap().flatten();
    let names = containers.flat_map(|c| std::fs::read_dir(c.path()).unwrap().flatten());
    names.map(|n| n.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with("copy-")).collect()
}

#[test]
fn files_go_in_and_out_of_a_machine_that_runs_or_not() {
    let d = linux();
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(dir.path().join("x"), "content").unwrap();
    // Never started: its disk is made for the copy.
    d.ok(&["create", "--name", "aa", "--isolation", "hyperv", IMAGE, "sleep", "1000"]);
    d.ok(&["cp", &at("x"), "aa:/root/x"]);
    d.ok(&["start", "aa"]);
    assert_eq!(d.ok(&["exec", "aa", "cat", "/root/x"]), "content");
    d.ok(&["exec", "aa", "sh", "-c", "mkdir /new; echo 1 > /new/f; rm /etc/group; ln -s /new /way"]);
    d.ok(&["cp", &at("x"), "aa:/way/x"]);
    d.ok(&["cp", "aa:/new", &at("out")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("out/f")).unwrap(), "1\n");
    d.ok(&["cp", "-L", "aa:/way", &at("followed")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("followed/x")).unwrap(), "content");
    d.fails(&["cp", "aa:/nosuch", &at("y")], "Could not find the file /nosuch in container");
    d.fails(&["cp", &at("x"), "aa:/nosuch/x"], "Could not find the file");
    let looks = || {
        let diff = d.ok(&["diff", "aa"]);
        for line in ["A /new", "A /new/f", "D /etc/group", "C /etc", "A /root/x", "A /way"] {
            assert!(diff.lines().any(|l| l == line), "{line} is not in {diff}");
        }
        d.ok(&["export", "-o", &at("tree.tar"), "aa"]);
        let list = tree_of(&at("tree.tar"));
        assert!(list.iter().any(|l| l == "new/f") && list.iter().any(|l| l == "proc/"), "{list:?}");
        assert!(list.iter().any(|l| l == "bin/busybox"), "{list:?}");
        assert!(!list.iter().any(|l| l.starts_with("proc/") && l != "proc/"), "{list:?}");
    };
    looks();
    d.ok(&["stop", "-t", "0", "aa"]);
    looks();
    d.ok(&["cp", &at("x"), "aa:/new/stopped"]);
    d.ok(&["cp", "aa:/new/stopped", &at("back")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("back")).unwrap(), "content");
    d.ok(&["start", "aa"]);
    assert_eq!(d.ok(&["exec", "aa", "cat", "/new/stopped"]), "content");
    assert_eq!(copies(&d), Vec::<String>::new());
}

#[test]
fn a_large_file_passes_whole_and_a_reader_who_leaves_ends_the_tool() {
    let d = linux();
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let bytes: Vec<u8> = (0..40u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(dir.path().join("large"), &bytes).unwrap();
    d.ok(&["run", "-d", "--name", "aa", "--isolation", "hyperv", IMAGE, "sleep", "1000"]);
    d.ok(&["cp", &at("large"), "aa:/large"]);
    d.ok(&["cp", "aa:/large", &at("again")]);
    assert!(std::fs::read(dir.path().join("again")).unwrap() == bytes, "it came back as something else");
    let size = d.ok(&["ps", "-s", "--format", "{{.Size}}"]);
    let written: f64 = size.split("MB").next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    // And the journal.
    assert!((41.0..53.0).contains(&written), "{size}");
    let docker = d.command(&["cp", "aa:/large", "-"]);
    let shell = format!("DOCKER_HOST={} {docker:?} | head -c 1000 | wc -c", d.host());
    let left = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "1000");
    assert!(!d.ok(&["top", "aa"]).contains("agent"));
    assert_eq!(d.ok(&["exec", "aa", "echo", "lives"]), "lives");
}

#[test]
fn what_a_machine_has_written_becomes_an_image_for_both_isolations() {
    let d = linux();
    d.ok(&["run", "-d", "--name", "aa", "--isolation", "hyperv", IMAGE, "sleep", "1000"]);
    d.ok(&["exec", "aa", "sh", "-c", "echo running > /made; rm /etc/group; chmod 700 /tmp"]);
    d.ok(&["commit", "-c", "ENV Z=9", "aa", "made:running"]);
    d.ok(&["pause", "aa"]);
    d.ok(&["commit", "aa", "made:paused"]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Status}}", "aa"]), "paused");
    d.ok(&["unpause", "aa"]);
    d.ok(&["exec", "aa", "sh", "-c", "echo stopped > /made"]);
    d.ok(&["stop", "-t", "0", "aa"]);
    d.ok(&["commit", "-c", "ENV Z=9", "aa", "made:stopped"]);
    let script = "cat /made; echo $Z; ls -d /etc/group 2>&1; stat -c %a /tmp";
    for made in ["running", "stopped"] {
        for isolation in ["process", "hyperv"] {
            let image = format!("made:{made}");
            let out = d.ok(&["run", "--rm", "--isolation", isolation, &image, "sh", "-c", script]);
            assert_eq!(
                out,
                format!("{made}\n9\nls: /etc/group: No such file or directory\n700"),
                "{isolation}"
            );
        }
    }
}

#[test]
fn users_are_those_of_the_machine() {
    let d = linux();
    d.ok(&["run", "-d", "--name", "aa", "--isolation", "hyperv", IMAGE, "sleep", "1000"]);
    assert_eq!(d.ok(&["exec", "-u", "bob", "aa", "id", "-u"]), "1000");
    d.ok(&["exec", "aa", "sh", "-c", "echo 'eve:x:1234:5::/:/bin/sh' >> /etc/passwd"]);
    assert_eq!(d.ok(&["exec", "-u", "eve", "aa", "id", "-u"]), "1234");
    assert_eq!(d.ok(&["exec", "-u", "7:8", "aa", "sh", "-c", "echo $(id -u) $(id -g)"]), "7 8");
    d.fails(&["exec", "-u", "nobody", "aa", "id"], "unable to find user nobody");
    // No file of the machine's leads to one of the host's, and one that is none is not waited for.
    d.ok(&["exec", "aa", "sh", "-c", "rm /etc/passwd; ln -s /../../../../etc/passwd /etc/passwd"]);
    d.fails(&["exec", "-u", "nobody", "aa", "id"], "unable to find user nobody");
    d.ok(&["exec", "aa", "sh", "-c", "rm /etc/passwd; mkfifo /etc/passwd"]);
    d.fails(&["exec", "-u", "bob", "aa", "id"], "unable to find user bob");
    let top = d.ok(&["top", "aa"]);
    assert!(top.starts_with("UID") && top.contains("sleep 1000"), "{top}");
}

#[test]
fn a_daemon_that_is_killed_leaves_no_machine_that_was_booted_for_files() {
    let mut d = linux();
    d.ok(&[
        "run",
        "--name",
        "aa",
        "--isolation",
        "hyperv",
        IMAGE,
        "dd",
        "if=/dev/zero",
        "of=/large",
        "bs=1M",
        "count=64",
    ]);
    let mut reader = d.command(&["cp", "aa:/large", "-"]);
    // It reads nothing: the machine stays.
    let mut reader = reader.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "aa"]);
    let socket = d.path(&format!("run/s/{}.files", &id[..32]));
    let wait = |wanted: bool| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while socket.exists() != wanted {
            assert!(std::time::Instant::now() < end, "{} exists: {}", socket.display(), !wanted);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait(true);
    d.stop(true);
    wait(false);
    let _ = reader.kill();
    let _ = reader.wait();
    d.again();
    d.ok(&["start", "-a", "aa"]);
}

#[test]
fn windows_files_and_registry_are_asked_for() {
    let d = Daemon::windows();
    kernel(&d);
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(dir.path().join("x"), "content").unwrap();
    d.ok(&["run", "-d", "-i", "--name", "aa", "--isolation", "hyperv", NANOSERVER, "cmd"]);
    d.ok(&["cp", &at("x"), "aa:C:/data.txt"]);
    let make = "mkdir C:\\new & echo 1 > C:\\new\\f.txt & reg add HKLM\\Software\\Mine /v A /d 7";
    d.ok(&["exec", "aa", "cmd", "/c", make]);
    d.ok(&["exec", "-u", "ContainerUser", "aa", "cmd", "/c", "exit 0"]);
    d.fails(&["exec", "-u", "nobody", "aa", "cmd"], "unable to find user nobody");
    assert!(d.ok(&["top", "aa"]).contains("wineserver"));
    let looks = || {
        let diff = d.ok(&["diff", "aa"]);
        for line in [r"A C:\data.txt", r"A C:\new\f.txt", r"C C:\Windows\System32\config\SOFTWARE"] {
            assert!(diff.lines().any(|l| l == line), "{line} is not in {diff}");
        }
        let registry = d.silo(&["registry", "diff", "aa"]);
        assert!(registry.out.contains(r"HKLM\SOFTWARE\Mine"), "{registry:?}");
    };
    looks();
    d.ok(&["commit", "aa", "made:running"]);
    d.ok(&["stop", "-t", "1", "aa"]);
    looks();
    d.ok(&["cp", &at("x"), "aa:C:/new/stopped.txt"]);
    d.ok(&["cp", "aa:C:/new", &at("out")]);
    assert!(Path::new(&at("out/stopped.txt")).exists());
    d.ok(&["commit", "aa", "made:stopped"]);
    d.ok(&["export", "-o", &at("tree.tar"), "aa"]);
    let list = tree_of(&at("tree.tar"));
    for name in ["Files/new/stopped.txt", "Files/Windows/System32/config/SOFTWARE"] {
        assert!(list.iter().any(|l| l == name), "{name} is not in the export");
    }
    let script = "type C:\\data.txt & dir /b C:\\new & reg query HKLM\\Software\\Mine";
    for (image, files) in [("made:running", "f.txt"), ("made:stopped", "stopped.txt")] {
        for isolation in ["process", "hyperv"] {
            let out = d.ok(&["run", "--rm", "--isolation", isolation, image, "cmd", "/c", script]);
            assert!(out.contains("content") && out.contains(files) && out.contains("REG_SZ    7"), "{out}");
        }
    }
}
