//! Windows images as Windows has them: files and registry in layers, by the stock client.

use silo_tests::{Daemon, NANOSERVER};

const MACHINE: &str = r"HKLM\Software\Acme";

/// What a command prints in a new container of `image`.
fn in_new(d: &Daemon, image: &str, command: &[&str]) -> String {
    d.ok(&[&["run", "--rm", image], command].concat()).replace('\r', "")
}

#[test]
fn a_container_that_did_nothing_commits_an_empty_layer() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "idle", NANOSERVER, "cmd"]);
    d.ok(&["exec", "idle", "sc", "query", "CExecSvc"]);
    assert_eq!(d.ok(&["diff", "idle"]), "");
    d.ok(&["commit", "idle", "running"]);
    d.ok(&["stop", "-t", "5", "idle"]);
    assert_eq!(d.ok(&["diff", "idle"]), "");
    d.ok(&["commit", "idle", "stopped"]);
    for image in ["running", "stopped"] {
        let names = layer_names(&d, image);
        assert_eq!(names, ["Files", "Hives"], "{image}");
    }
}

/// The names in an image's uppermost layer.
fn layer_names(d: &Daemon, image: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    d.ok(&["save", "-o", &archive.display().to_string(), image]);
    let script = "set -e; cd \"$1\"; tar -xf image.tar; \
        layer=$(python3 -c 'import json; print(json.load(open(\"manifest.json\"))[0][\"Layers\"][-1])'); \
        python3 -c 'import sys,tarfile; print(*(m.name for m in tarfile.open(sys.argv[1])), sep=\"\\n\")' \"$layer\"";
    let listed = std::process::Command::new("bash")
        .args(["-c", script, "names", &dir.path().display().to_string()])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn files_and_registry_come_back_elsewhere_deletions_too() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "inst", NANOSERVER, "cmd"]);
    let run = |command: &[&str]| d.ok(&[&["exec", "inst"], command].concat());
    run(&["reg", "add", MACHINE, "/v", "Version", "/d", "1.2", "/f"]);
    run(&["reg", "add", MACHINE, "/v", "Count", "/t", "REG_DWORD", "/d", "70000", "/f"]);
    run(&["reg", "add", r"HKCU\Software\Acme", "/v", "Mine", "/d", "yes", "/f"]);
    run(&["reg", "delete", r"HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug", "/f"]);
    run(&[
        "reg",
        "delete",
        r"HKLM\Software\Microsoft\Windows NT\CurrentVersion",
        "/v",
        "DisplayVersion",
        "/f",
    ]);
    run(&["sc", "create", "Acme", "binPath=", r"C:\windows\system32\CExecSvc.exe", "start=", "demand"]);
    run(&["cmd", "/c", r"mkdir C:\Acme & echo one> C:\Acme\a.txt & del C:\Windows\System32\sc.exe"]);
    // A value of a root itself.
    run(&["reg", "add", "HKCU", "/v", "Root", "/d", "top", "/f"]);
    let diff = d.ok(&["diff", "inst"]);
    for line in [
        r"C C:\Windows\System32\config\SOFTWARE",
        r"C C:\Windows\System32\config\SYSTEM",
        r"A C:\Users\ContainerAdministrator\NTUSER.DAT",
        r"A C:\Acme\a.txt",
        r"D C:\Windows\System32\sc.exe",
    ] {
        assert!(diff.lines().any(|l| l == line), "{line} in {diff}");
    }
    d.ok(&["exec", "inst", "reg", "add", MACHINE, "/v", "Late", "/d", "1", "/f"]);
    d.ok(&["pause", "inst"]);
    d.ok(&["commit", "-a", "Ann", "-m", "installed", "-c", "ENV ACME=1", "inst", "acme:1"]);
    let names = layer_names(&d, "acme:1");
    let hives: Vec<&str> = names.iter().filter_map(|n| n.strip_prefix("Hives/")).collect();
    assert_eq!(hives, ["Software_Delta", "System_Delta"], "{names:?}");
    assert!(names.iter().any(|n| n == "Files/Windows/System32/.wh.sc.exe"), "{names:?}");
    assert!(names.iter().any(|n| n == "Files/Users/ContainerAdministrator/NTUSER.DAT"), "{names:?}");

    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("acme.tar").display().to_string();
    d.ok(&["save", "-o", &archive, "acme:1"]);
    let other = Daemon::empty();
    other.ok(&["load", "-i", &archive]);
    for d in [&d, &other] {
        let query = |key: &str| in_new(d, "acme:1", &["reg", "query", key]);
        let machine = query(MACHINE);
        assert!(machine.contains("Late    REG_SZ    1"), "{machine}");
        assert!(machine.contains("Version    REG_SZ    1.2") && machine.contains("0x11170"), "{machine}");
        assert!(query(r"HKCU\Software\Acme").contains("Mine    REG_SZ    yes"));
        assert!(query("HKCU").contains("Root    REG_SZ    top"));
        assert!(query(r"HKLM\System\CurrentControlSet\Services\Acme").contains("CExecSvc.exe"));
        let version = query(r"HKLM\Software\Microsoft\Windows NT\CurrentVersion");
        assert!(version.contains("CurrentBuildNumber") && !version.contains("DisplayVersion"), "{version}");
        let gone = [r"HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug"];
        assert_ne!(d.docker(&[&["run", "--rm", "acme:1", "reg", "query"], &gone[..]].concat()).code, 0);
        let look = r"type C:\Acme\a.txt & echo %ACME% & if not exist C:\Windows\System32\sc.exe echo gone";
        let files = in_new(d, "acme:1", &["cmd", "/c", look]);
        assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["one", "1", "gone"]);
    }
}

#[test]
fn a_registry_is_seen_into() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "look", NANOSERVER, "cmd"]);
    d.ok(&["exec", "look", "reg", "add", MACHINE, "/v", "Version", "/d", "1.2", "/f"]);
    let silo = |words: &[&str]| {
        let output = std::process::Command::new(silo_tests::silo())
            .args(["--host", &d.host(), "registry"])
            .args(words)
            .output();
        silo_tests::Said::from(output.unwrap())
    };
    let diff = silo(&["diff", "look"]);
    assert_eq!(
        diff.out,
        format!("+ {MACHINE}\n+     Version    REG_SZ    1.2").replace("Software", "SOFTWARE"),
        "{diff:?}"
    );
    assert_eq!(silo(&["get", "look", MACHINE, "version"]).out, "1.2");
    assert!(
        silo(&["ls", "look", r"HKLM\System\CurrentControlSet\Services"])
            .out
            .contains(r"ControlSet001\Services\CExecSvc")
    );
    assert_eq!(silo(&["diff", NANOSERVER]).code, 0);
    d.ok(&["commit", "look", "seen:1"]);
    for words in [&["diff", "seen:1"][..], &["diff", &format!("{NANOSERVER}..seen:1")]] {
        assert_eq!(silo(words).out, diff.out, "{words:?}");
    }
    let json = silo(&["diff", "--json", "seen:1"]).out;
    assert!(json.contains("\"change\":\"added\"") && json.contains("\"text\":\"1.2\""), "{json}");
    for (words, said) in [
        (&["get", "look", r"HKLM\Software\None"][..], r"there is no key HKLM\Software\None"),
        (&["get", "look", MACHINE, "none"], "has no value \"none\""),
        (&["ls", "nobody"], "No such image: nobody"),
    ] {
        let said_this = silo(words);
        assert!(said_this.code == 1 && said_this.err.contains(said), "{said_this:?}");
    }
}

#[test]
fn an_export_imports_to_the_same_system() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("{}:C:\\mounted", dir.path().display());
    d.ok(&["run", "-d", "-i", "--name", "whole", "-v", &mount, NANOSERVER, "cmd"]);
    let change = format!(
        r"reg add {MACHINE} /v V /d 1 /f & reg add HKCU\Acme /v U /d 2 /f & echo one> C:\a.txt & echo x> C:\mounted\not.txt & del C:\Windows\System32\sc.exe"
    );
    d.ok(&["exec", "whole", "cmd", "/c", &change]);
    for state in ["running", "stopped"] {
        let tar = dir.path().join("whole.tar").display().to_string();
        d.ok(&["export", "-o", &tar, "whole"]);
        d.ok(&["import", "--platform", "windows/amd64", "-c", "CMD cmd /c ver", &tar, state]);
        let look = format!(
            r"reg query {MACHINE} & reg query HKCU\Acme & type C:\a.txt & dir /b C:\mounted & if not exist C:\Windows\System32\sc.exe echo gone"
        );
        let said = d.docker(&["run", "--rm", state, "cmd", "/c", &look]).out;
        for part in ["V    REG_SZ    1", "U    REG_SZ    2", "one", "gone"] {
            assert!(said.contains(part), "{state}: {part}: {said}");
        }
        assert!(!said.contains("not.txt"), "{said}");
        if state == "running" {
            d.ok(&["stop", "-t", "5", "whole"]);
        }
    }
}

#[test]
fn ten_commits_are_as_one() {
    let d = Daemon::windows();
    let mut image = NANOSERVER.to_owned();
    for n in 0..10 {
        let name = format!("step{n}");
        let add = format!(
            r"reg add {MACHINE}\K{n} /v V /d {n} /f & reg add {MACHINE} /v Last /d {n} /f & echo {n}> C:\n{n}.txt"
        );
        let undo = if n > 0 {
            format!(r" & reg delete {MACHINE}\K{} /f & del C:\n{}.txt", n - 1, n - 1)
        } else {
            String::new()
        };
        d.ok(&["run", "--name", &name, &image, "cmd", "/c", &format!("{add}{undo}")]);
        image = format!("chain:{n}");
        d.ok(&["commit", &name, &image]);
    }
    d.ok(&[
        "run",
        "--name",
        "once",
        NANOSERVER,
        "cmd",
        "/c",
        &format!(
            r"reg add {MACHINE}\K9 /v V /d 9 /f & reg add {MACHINE} /v Last /d 9 /f & echo 9> C:\n9.txt"
        ),
    ]);
    d.ok(&["commit", "once", "once"]);
    let look = ["cmd", "/c", &format!(r"reg query {MACHINE} /s & dir /b C:\")];
    let (ten, one) = (in_new(&d, "chain:9", &look), in_new(&d, "once", &look));
    assert_eq!(ten, one);
    assert!(one.contains("K9") && !one.contains("K8") && one.contains("n9.txt"), "{one}");
}

#[test]
fn a_tree_of_files_becomes_a_windows_image() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("app")).unwrap();
    std::fs::write(dir.path().join("app/a.txt"), "one").unwrap();
    let tar = dir.path().join("files.tar").display().to_string();
    let made =
        std::process::Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).arg("app").status();
    assert!(made.unwrap().success());
    d.ok(&["import", "--platform", "windows/amd64", &tar, "files:1"]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.Os}}/{{.Architecture}}", "files:1"]), "windows/amd64");
    let version = |image: &str| d.ok(&["inspect", "-f", "{{.OsVersion}}", image]);
    assert_eq!(
        (version("files:1"), version(NANOSERVER)),
        (version(NANOSERVER), "10.0.20348.4294".to_owned())
    );
    assert_eq!(layer_names(&d, "files:1"), ["Files", "Files/app", "Files/app/a.txt"]);
    // A layer that is one already, such as a base's, stays as it is: the same image runs.
    let saved = dir.path().join("base.tar").display().to_string();
    d.ok(&["save", "-o", &saved, NANOSERVER]);
    let script = "cd \"$1\" && tar -xf base.tar && python3 -c 'import json; print(json.load(open(\"manifest.json\"))[0][\"Layers\"][-1])'";
    let layer =
        std::process::Command::new("bash").args(["-c", script, "x"]).arg(dir.path()).output().unwrap();
    let layer = dir.path().join(String::from_utf8_lossy(&layer.stdout).trim()).display().to_string();
    d.ok(&["import", "--platform", "windows/amd64", &layer, "again:1"]);
    assert_eq!(version("again:1"), version(NANOSERVER));
    assert_eq!(in_new(&d, "again:1", &["cmd", "/c", "echo runs"]), "runs");
    // What NTFS cannot hold is refused by name, and nothing is left of it.
    std::fs::write(dir.path().join("app/b:c"), "").unwrap();
    let made =
        std::process::Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(dir.path()).arg("app").status();
    assert!(made.unwrap().success());
    let said = d.docker(&["import", "--platform", "windows/amd64", &tar, "bad:1"]);
    assert!(said.code == 1 && said.err.contains("b:c"), "{said:?}");
    // Names alone: IDs are any hexadecimal digits.
    assert!(!d.ok(&["images", "--format", "{{.Repository}}"]).contains("bad"));
}

#[test]
fn a_registry_that_cannot_be_written_makes_no_image() {
    if !silo_tests::only_under(
        "process",
        "the registry is sealed by the host, which has no way into a machine",
    ) {
        return;
    }
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "full", NANOSERVER, "cmd"]);
    d.ok(&["exec", "full", "reg", "add", MACHINE, "/v", "V", "/d", "1", "/f"]);
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "full"]);
    let upper = d.path("root/containers").join(id).join("top/prefix/upper");
    // What is no error on a disk that is not full: nothing can be made there.
    let seal = |how: &str| {
        let done = std::process::Command::new("chattr").arg(how).arg(&upper).status();
        assert!(done.unwrap().success(), "chattr {how} {}", upper.display());
    };
    seal("+i");
    d.ok(&["exec", "full", "reg", "add", MACHINE, "/v", "W", "/d", "1", "/f"]);
    let running = d.docker(&["commit", "full", "full:1"]);
    d.ok(&["pause", "full"]);
    let paused = d.docker(&["commit", "full", "full:1"]);
    let tar = d.path("full.tar").display().to_string();
    for command in [&["diff", "full"][..], &["export", "-o", &tar, "full"]] {
        d.fails(command, "was paused before it could write what it keeps in memory");
    }
    assert_eq!(d.request("GET /silo/registry?of=full").0, 409);
    d.ok(&["unpause", "full"]);
    seal("-i");
    for said in [&running, &paused] {
        assert!(said.code == 1 && said.err.contains("Operation not permitted"), "{said:?}");
    }
    assert!(!d.ok(&["images"]).contains("full"));
    d.ok(&["commit", "full", "full:1"]);
    assert!(in_new(&d, "full:1", &["reg", "query", MACHINE]).contains("W    REG_SZ    1"));
}

#[test]
fn a_registry_that_a_program_spoilt_is_named_with_the_line() {
    if !silo_tests::only_under("process", "the file is spoilt by the host, which has no way into a machine") {
        return;
    }
    let mut d = Daemon::windows();
    d.ok(&["run", "--name", "spoilt", NANOSERVER, "reg", "add", MACHINE, "/v", "V", "/d", "1", "/f"]);
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "spoilt"]);
    let file = d.path("root/containers").join(id).join("top/prefix/upper/system.reg");
    std::fs::write(&file, "WINE REGISTRY Version 2\n\n[Software] 1\nspoilt\n").unwrap();
    let (status, body) = d.request("GET /silo/registry?of=spoilt");
    assert!(status == 409 && body.contains("system.reg: line 4: it is no value"), "{status} {body}");
    for command in [&["diff", "spoilt"][..], &["commit", "spoilt"]] {
        d.fails(command, "system.reg: line 4: it is no value");
    }
    // The same daemon's next start finds what a crash of this one could leave.
    let projections = d.path("root/guest/windows/registry");
    let kept = std::fs::read_dir(&projections).unwrap().flatten().next().unwrap().path();
    let left = [kept.join(".new-1-0"), projections.join("0123-1")];
    left.iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
    d.stop(true);
    d.again();
    assert!(left.iter().all(|path| !path.exists()) && kept.join("machine").exists());
}
