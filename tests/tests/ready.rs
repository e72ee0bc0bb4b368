//! Windows containers that are had from a pool of prepared ones: they are what they would be without it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use silo_tests::{Daemon, NANOSERVER, Said};

/// The spares that a page of the pool names.
fn named(pool: &str) -> Vec<String> {
    pool.split("\"Id\":\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

/// The spares that are ready, as soon as there is one.
fn spares(d: &Daemon) -> Vec<String> {
    named(&d.get("/silo/pool?ready=1"))
}

/// Does something that has to take a spare.
fn with_spare<T>(d: &Daemon, act: impl FnOnce() -> T) -> T {
    let before = spares(d);
    assert!(!before.is_empty(), "no spare is made:\n{}", d.log());
    let done = act();
    let after = named(&d.get("/silo/pool"));
    let taken: Vec<&String> = before.iter().filter(|id| !after.contains(id)).collect();
    assert_eq!(taken.len(), 1, "one spare is taken:\n{}", d.log());
    done
}

fn run(d: &Daemon, options: &[&str], command: &[&str]) -> Said {
    let arguments = [&["run", "--rm"], options, &[NANOSERVER], command].concat();
    with_spare(d, || d.docker(&arguments))
}

fn out(d: &Daemon, options: &[&str], command: &[&str]) -> String {
    let said = run(d, options, command);
    assert!(said.code == 0 && said.err.is_empty(), "{options:?} {command:?}: {said:?}\n{}", d.log());
    said.out.replace('\r', "")
}

#[test]
fn what_is_known_when_it_is_taken_shows_inside() {
    let d = Daemon::windows_with_pool(2);
    let name = "HKLM\\System\\CurrentControlSet\\Control\\ComputerName\\ActiveComputerName";
    let said = out(
        &d,
        &["--hostname", "box", "-e", "Foo=two words"],
        &[
            "cmd",
            "/c",
            &format!(
                "hostname & echo %COMPUTERNAME% %USERDOMAIN% %LOGONSERVER% %FOO% & reg query {name} & cd"
            ),
        ],
    );
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[..2], ["BOX", r"BOX BOX \\BOX two words"], "{said}");
    assert!(said.contains("REG_SZ    BOX") && said.trim_end().ends_with("C:\\"), "{said}");
    // Nothing of the Linux side's.
    let set = out(&d, &[], &["cmd", "/c", "set"]);
    assert!(!set.contains("SILO_") && !set.contains("WINE") && !set.contains("LD_"), "{set}");
    // A directory that no layer has; one of a mount.
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("f.txt"), "from the host").unwrap();
    let bind = format!("{}:C:\\data\\in", host.path().display());
    assert_eq!(out(&d, &["-w", "C:\\app\\x"], &["cmd", "/c", "cd"]), "C:\\app\\x");
    let said = out(&d, &["-v", &bind, "-w", "C:\\data\\in"], &["cmd", "/c", "type f.txt & echo x>new.txt"]);
    assert_eq!(said, "from the host");
    assert_eq!(std::fs::read_to_string(host.path().join("new.txt")).unwrap(), "x\r\n");
    // Limits are shown by what was mounted before: with them it is a usual start.
    let line = ["run", "--rm", "--memory", "256m", "--cpus", "1", NANOSERVER];
    let said = d.ok(&[&line[..], &["cmd", "/c", "systeminfo & echo %NUMBER_OF_PROCESSORS%"]].concat());
    assert!(said.contains("256 MB") && said.trim_end().ends_with('1'), "{said}");
    // The whole exit code, input, and none.
    assert_eq!(run(&d, &[], &["cmd", "/c", "exit -1073741819"]).code, 5);
    d.ok(&["run", "--name", "crash", "-d", NANOSERVER, "cmd", "/c", "exit -1073741819"]);
    assert_eq!(d.ok(&["wait", "crash"]), "3221225477");
    let mut command = d.command(&["run", "-i", "--rm", NANOSERVER, "cmd", "/c", "findstr o & exit 3"]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"one\r\ntwo\r\nsix\r\n").unwrap();
    let said: Said = client.wait_with_output().unwrap().into();
    assert_eq!((said.code, said.out.replace('\r', "").as_str()), (3, "one\ntwo"));
}

#[test]
fn two_share_nothing() {
    let d = Daemon::windows_with_pool(2);
    for name in ["one", "two"] {
        with_spare(&d, || d.ok(&["run", "-dit", "--name", name, NANOSERVER, "cmd"]));
    }
    let exec = |name: &str, line: &str| {
        let said = d.docker(&["exec", name, "cmd", "/c", line]);
        (said.code, said.out.replace('\r', ""))
    };
    let mut names = Vec::new();
    for name in ["one", "two"] {
        let line = format!(
            "reg add HKLM\\Software\\X /v {name} /d 1 /f & reg add HKCU\\X /v {name} /d 1 /f & echo x>C:\\{name}.txt & setx {name} 1"
        );
        assert_eq!(exec(name, &line).0, 0, "{}", d.log());
        names.push(exec(name, "hostname & echo %COMPUTERNAME%").1);
    }
    assert_ne!(names[0], names[1]);
    for (name, other) in [("one", "two"), ("two", "one")] {
        assert_eq!(exec(name, &format!("reg query HKLM\\Software\\X /v {name}")).0, 0);
        for line in [
            format!("reg query HKLM\\Software\\X /v {other}"),
            format!("reg query HKCU\\X /v {other}"),
            format!("dir C:\\{other}.txt"),
        ] {
            assert_ne!(exec(name, &line).0, 0, "{name}: {line}");
        }
    }
    let ip = |name: &str| d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]);
    assert_ne!(ip("one"), ip("two"));
    assert!(exec("two", &format!("ping -n 1 {}", ip("one"))).1.contains("Received = 1"));
}

#[test]
fn it_goes_on_as_any_other_container() {
    let d = Daemon::windows_with_pool(2);
    with_spare(&d, || d.ok(&["run", "-dit", "--name", "cc", NANOSERVER, "cmd"]));
    // What the boot wrote is no change of the container's.
    assert_eq!(d.ok(&["diff", "cc"]), "");
    d.ok(&["commit", "cc", "same:1"]);
    let size = |image: &str| d.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}} {{.Size}}", image]);
    let grown = size("same:1").split_once(' ').unwrap().1.parse::<u64>().unwrap()
        - size(NANOSERVER).split_once(' ').unwrap().1.parse::<u64>().unwrap();
    assert!(grown < 64 << 10, "an idle container's commit is {grown} bytes larger");
    assert!(d.ok(&["top", "cc"]).contains("cmd"), "{}", d.ok(&["top", "cc"]));
    d.ok(&["exec", "cc", "cmd", "/c", "reg add HKLM\\Software\\X /v a /d kept /f & echo y>C:\\y.txt"]);
    d.ok(&["commit", "cc", "changed:1"]);
    let query = "reg query HKLM\\Software\\X & type C:\\y.txt";
    let said = d.ok(&["run", "--rm", "changed:1", "cmd", "/c", query]);
    assert!(said.contains("kept") && said.ends_with('y'), "{said}");
    // Stopped it writes its registry; the next start is a usual one.
    d.ok(&["stop", "-t", "20", "cc"]);
    d.ok(&["start", "cc"]);
    let said = d.ok(&["exec", "cc", "cmd", "/c", query]);
    assert!(said.contains("kept") && said.ends_with('y'), "{said}");
    d.ok(&["restart", "-t", "20", "cc"]);
    d.ok(&["kill", "cc"]);
    d.await_state("cc", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
}

#[test]
fn what_a_prepared_one_cannot_be_is_had_without_it() {
    let d = Daemon::windows_with_pool(2);
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("f.txt"), "on D").unwrap();
    let bind = format!("{}:D:", host.path().display());
    // Known beforehand: it costs no spare.
    let settled: [(&[&str], &str, &str); 3] = [
        (&["-v", &bind], "type d:\\f.txt", "on D"),
        (&["--ulimit", "nofile=2048"], "echo x", "x"),
        (&["--memory", "256m"], "echo x", "x"),
    ];
    for (options, line, said) in settled {
        let before = spares(&d);
        let arguments = [&["run", "--rm"], options, &[NANOSERVER, "cmd", "/c", line]].concat();
        assert_eq!(d.ok(&arguments), said);
        let after = named(&d.get("/silo/pool"));
        assert!(before.iter().all(|id| after.contains(id)), "{options:?} took one of {before:?}: {after:?}");
    }
    // Another account has another registry, and its own spares from then on.
    let user =
        ["run", "--rm", "-u", "ContainerUser", NANOSERVER, "cmd", "/c", "echo %USERNAME% %USERPROFILE%"];
    for _ in 0..2 {
        assert_eq!(d.ok(&user), "ContainerUser C:\\Users\\ContainerUser");
        spares(&d);
    }
}

#[test]
fn machines_go_on_from_a_saved_guest() {
    let mut d = Daemon::windows_with_machines();
    a_saved_guest_is_gone_on_from(&d);
    no_two_are_one_machine(&mut d);
}

fn a_saved_guest_is_gone_on_from(d: &Daemon) {
    let docker = |options: &[&str], command: &[&str]| {
        let arguments = [&["run", "--isolation", "hyperv"], options, &[NANOSERVER], command].concat();
        d.docker(&arguments)
    };
    assert_eq!(docker(&["--rm"], &["cmd", "/c", "exit 3"]).code, 3);
    // Made in the background.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(150);
    while !d.silo(&["vm", "template", "ls"]).out.contains("windows-") {
        assert!(std::time::Instant::now() < end, "no template with a guest is made:\n{}", d.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let mut seen = Vec::new();
    for name in ["one", "two"] {
        let line =
            "hostname & echo %COMPUTERNAME% %RANDOM% & dir C:\\other.txt & echo x>C:\\other.txt & exit 0";
        let said = docker(&["--name", name, "--hostname", name], &["cmd", "/c", line]);
        assert_eq!(said.code, 0, "{said:?}\n{}", d.log());
        let out = said.out.replace('\r', "");
        let upper = name.to_uppercase();
        assert!(out.starts_with(&format!("{upper}\n{upper} ")), "{out}");
        // Nothing of the one in the other.
        assert!(!out.contains("other.txt"), "{out}");
        // It was had from there, without a word of another way.
        let shim = d.path("root/containers").join(d.ok(&["inspect", "-f", "{{.Id}}", name])).join("shim.log");
        assert_eq!(std::fs::read_to_string(shim).unwrap(), "");
        seen.push(out);
    }
    assert_ne!(seen[0].replace("ONE", ""), seen[1].replace("TWO", ""));
    // The clock is the host's.
    let said = docker(&["--rm"], &["cmd", "/c", "echo %DATE%"]).out;
    let today = std::process::Command::new("date").args(["-u", "+%-m/%-d/%Y"]).output().unwrap();
    assert!(said.contains(String::from_utf8_lossy(&today.stdout).trim()), "{said}");
    // A second start is a usual one, on the same files.
    assert_eq!(d.docker(&["start", "-a", "one"]).code, 0);
    assert!(d.ok(&["diff", "one"]).contains("other.txt"));
    assert_eq!(docker(&["-d", "--name", "idle", "-t"], &["cmd"]).code, 0);
    assert_eq!(d.ok(&["diff", "idle"]), "");
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("f.txt"), "on D").unwrap();
    let bind = format!("{}:D:", host.path().display());
    // A drive is settled when the guest boots: such a container has it booted anew in its machine.
    assert_eq!(docker(&["--rm", "-v", &bind], &["cmd", "/c", "type d:\\f.txt"]).out, "on D");
    let said = docker(&["--rm", "--memory", "256m"], &["systeminfo"]).out;
    assert!(said.contains("256 MB"), "{said}");
    // A disk of another size is the container's own, whatever there is of the usual one.
    for _ in 0..2 {
        let said = docker(&["--rm", "--storage-opt", "size=1g"], &["cmd", "/c", r"dir c:\"]).out;
        let free = said.lines().find_map(|line| line.trim().strip_suffix(" bytes free")?.rsplit(' ').next());
        let free: u64 = free.unwrap_or_default().replace(',', "").parse().expect(&said);
        assert!((500 << 20..1 << 30).contains(&free), "{said}");
    }
}

/// Of clones of a template that a guest was saved in, and of spares of those.
fn no_two_are_one_machine(d: &mut Daemon) {
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("identity.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let run = ["run", "--rm", "--isolation", "hyperv"];
    let probe = [&run[..], &["-v", &bin, NANOSERVER, r"C:\bin\probe.exe"]].concat();
    let mut seen: [BTreeSet<String>; 2] = Default::default();
    for spares in [0, 2] {
        let mut waiting = Vec::new();
        if spares > 0 {
            d.stop(false);
            d.keep_spares(spares);
            d.again();
            d.ok(&[&run[..], &[NANOSERVER, "cmd", "/c", "exit"]].concat());
            waiting = named(&d.get(&format!("/silo/pool?ready={spares}")));
            assert_eq!(waiting.len(), 2, "{}", d.log());
        }
        let before = milliseconds();
        let both = [(); 2].map(|()| d.command(&probe).stdout(Stdio::piped()).spawn().unwrap());
        let both = both.map(|run| Said::from(run.wait_with_output().unwrap()));
        let after = milliseconds();
        let left = named(&d.get("/silo/pool"));
        assert!(!waiting.iter().any(|id| left.contains(id)), "{left:?} are left of {waiting:?}");
        for said in both {
            let of = |place: &str| {
                let line = said.out.lines().find_map(|l| l.trim().strip_prefix(place)?.strip_prefix('='));
                line.unwrap_or_else(|| panic!("{place}: {said:?}\n{}", d.log())).to_owned()
            };
            let clock: u128 = of("clock").parse().unwrap();
            assert!((before..=after + 50).contains(&clock), "{clock} is not in {before}..{after}");
            assert!(of("sam").starts_with("S-1-5-21-") && of("own-user") == of("sam") + "-1000", "{said:?}");
            seen[0].insert(of("sam"));
            seen[1].insert(of("random"));
        }
    }
    assert!(seen.iter().all(|set| set.len() == 4), "{seen:?}");
}

fn milliseconds() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
}
