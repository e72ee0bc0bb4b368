//! The life of containers: start, stop, kill, pause, restart, rename, remove, wait, exec, logs, files, a daemon that goes and comes.

use silo_tests::Daemon;

const IMAGE: &str = "localhost/busybox";

#[test]
fn a_container_lives_through_all_its_states() {
    let d = Daemon::start();
    d.ok(&["create", "--name", "aa", IMAGE, "sleep", "1000"]);
    let status = |wanted: &str| assert_eq!(d.ok(&["inspect", "-f", "{{.State.Status}}", "aa"]), wanted);
    status("created");
    d.ok(&["start", "aa"]);
    status("running");
    d.ok(&["pause", "aa"]);
    status("paused");
    d.fails(&["exec", "aa", "true"], "is paused");
    d.ok(&["unpause", "aa"]);
    d.ok(&["restart", "-t", "0", "aa"]);
    status("running");
    d.ok(&["rename", "aa", "bb"]);
    d.fails(&["rm", "bb"], "container is running");
    d.ok(&["kill", "bb"]);
    d.fails(&["kill", "bb"], "is not running");
    assert_eq!(d.ok(&["wait", "bb"]), "137");
    d.ok(&["rm", "bb"]);
    d.fails(&["container", "inspect", "bb"], "No such");
    d.fails(&["rm", "bb"], "No such container: b");
}

#[test]
fn stop_sends_the_signal_and_then_kills() {
    let d = Daemon::start();
    d.ok(&[
        "run",
        "-d",
        "--name",
        "kind",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    d.await_line(&["logs", "-f", "kind"], "ready");
    d.ok(&["stop", "kind"]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.ExitCode}}", "kind"]), "3");
    d.ok(&["run", "-d", "--name", "stubborn", IMAGE, "sleep", "1000"]);
    d.ok(&["stop", "-t", "1", "stubborn"]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.ExitCode}}", "stubborn"]), "137");
}

#[test]
fn exec_runs_beside_the_first_process() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "aa", "-e", "X=1", IMAGE, "sleep", "1000"]);
    assert_eq!(
        d.ok(&["exec", "-e", "Y=2", "-w", "/tmp", "aa", "sh", "-c", "echo $X $Y; pwd; cat /proc/1/comm"]),
        "1 2\n/tmp\nsleep"
    );
    assert_eq!(d.docker(&["exec", "aa", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(d.ok(&["exec", "-u", "bob", "aa", "id", "-un"]), "bob");
    assert_eq!(d.docker(&["exec", "aa", "nosuch"]).code, 127);
    assert!(d.ok(&["top", "aa"]).contains("sleep 1000"));
    let top = d.ok(&["top", "aa", "-o", "pid,comm,nlwp"]);
    let rows: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows[0] == ["PID", "COMMAND", "NLWP"] && rows[1][1..] == ["sleep", "1"], "{top}");
    assert!(d.ok(&["top", "aa", "aux"]).starts_with("USER"));
    d.fails(&["top", "aa", "-o", "pid,nothing"], "nothing");
    let stats = d.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "aa"]);
    assert!(stats.starts_with("aa ") && stats.contains("iB / ") && stats.ends_with(" 1"), "{stats}");
}

#[test]
fn logs_are_kept_in_order_and_cut_to_wish() {
    let d = Daemon::start();
    d.ok(&["run", "--name", "aa", IMAGE, "sh", "-c", "seq 1 1000; echo last >&2"]);
    let said = d.docker(&["logs", "aa"]);
    let expected: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
    assert_eq!(said.out.lines().collect::<Vec<_>>(), expected);
    assert_eq!(said.err, "last");
    let all = d.docker(&["logs", "--tail", "3", "aa"]);
    assert_eq!(format!("{}\n{}", all.out, all.err), "999\n1000\nlast");
    assert!(d.ok(&["logs", "-t", "--tail", "2", "aa"]).contains("T"));
    d.ok(&["run", "-d", "--name", "bb", IMAGE, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"]);
    assert_eq!(d.ok(&["logs", "-f", "bb"]), "1\n2\n3");
}

#[test]
fn files_go_in_and_out_of_running_and_stopped_containers() {
    let d = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    std::fs::write(dir.path().join("x"), "content").unwrap();
    d.ok(&["create", "--name", "aa", IMAGE, "sleep", "1000"]);
    d.ok(&["cp", &at("x"), "aa:/root/x"]);
    d.ok(&["start", "aa"]);
    assert_eq!(d.ok(&["exec", "aa", "cat", "/root/x"]), "content");
    d.ok(&["exec", "aa", "sh", "-c", "mkdir /new; echo 1 > /new/f; rm /etc/group"]);
    d.ok(&["cp", "aa:/new", &at("out")]);
    assert_eq!(std::fs::read_to_string(dir.path().join("out/f")).unwrap(), "1\n");
    let diff = d.ok(&["diff", "aa"]);
    for line in ["A /new", "A /new/f", "D /etc/group", "C /etc", "A /root/x"] {
        assert!(diff.lines().any(|l| l == line), "{line} is not in {diff}");
    }
    d.ok(&["commit", "-m", "note", "-c", "ENV Z=9", "aa", "made:1"]);
    assert_eq!(
        d.ok(&["run", "--rm", "made:1", "sh", "-c", "cat /root/x; echo $Z; ls /etc/group 2>&1; true"]),
        "content9\nls: /etc/group: No such file or directory"
    );
    // The tree as the image and the container made it, and nothing of /proc or what is bound.
    d.ok(&["export", "-o", &at("tree.tar"), "aa"]);
    let list = std::process::Command::new("tar").args(["-tf", &at("tree.tar")]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|l| l == "new/f") && list.lines().any(|l| l == "proc/"), "{list}");
    assert!(!list.lines().any(|l| l.starts_with("proc/") && l != "proc/"), "{list}");
    d.fails(&["cp", "aa:/nosuch", &at("y")], "Could not find the file /nosuch in container");
}

#[test]
fn images_are_saved_loaded_tagged_and_removed() {
    let d = Daemon::start();
    let file = d.path("image.tar").display().to_string();
    let id = d.ok(&["image", "inspect", "-f", "{{.Id}}", IMAGE]);
    d.ok(&["tag", IMAGE, "other:2"]);
    d.ok(&["save", "-o", &file, IMAGE]);
    d.ok(&["rmi", IMAGE]);
    d.ok(&["rmi", "other:2"]);
    d.fails(&["image", "inspect", IMAGE], "No such image: localhost/busybox:latest");
    assert!(d.ok(&["load", "-i", &file]).contains("Loaded image: localhost/busybox:latest"));
    assert_eq!(d.ok(&["image", "inspect", "-f", "{{.Id}}", IMAGE]), id);
    assert!(d.ok(&["history", IMAGE]).contains("Imported from -"));
    d.ok(&["create", "--name", "aa", IMAGE]);
    d.fails(&["rmi", IMAGE], "unable to remove repository reference");
}

#[test]
fn a_daemon_that_is_killed_finds_everything_again() {
    let mut d = Daemon::start();
    d.ok(&[
        "run",
        "-d",
        "--name",
        "runs",
        IMAGE,
        "sh",
        "-c",
        "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done",
    ]);
    d.ok(&["run", "-d", "--name", "ends", IMAGE, "sh", "-c", "sleep 1; exit 5"]);
    d.ok(&["run", "-d", "--name", "always", "--restart", "always", IMAGE, "sleep", "1000"]);
    let pid = d.ok(&["inspect", "-f", "{{.State.Pid}}", "runs"]);
    d.stop(true);
    // The container goes on by itself: its own end is what is waited for.
    let ends = d.path("root");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let ended =
        || std::process::Command::new("find").arg(&ends).args(["-name", "exit.json"]).output().unwrap();
    while ended().stdout.is_empty() {
        assert!(std::time::Instant::now() < end, "the container did not end while the daemon was away");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    d.again();
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Pid}}", "runs"]), pid);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends"]), "exited 5");
    assert_eq!(d.ok(&["exec", "runs", "echo", "hi"]), "hi");
    let log = d.docker(&["logs", "runs"]).out;
    let numbers: Vec<u32> = log.lines().map(|l| l.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "the log has a gap");
    d.await_state("always", "{{.State.Status}}", "running");
    d.ok(&["stop", "-t", "1", "runs"]);
}

#[test]
fn clients_attach_again_after_a_daemon_restart() {
    let mut d = Daemon::start();
    d.ok(&["run", "-d", "-i", "--name", "aa", IMAGE, "sh", "-c", "while read l; do echo got $l; done"]);
    silo_tests::say_to(&d, "aa", "one\n", "got one");
    for (kill, word) in [(true, "two"), (false, "three")] {
        d.stop(kill);
        d.again();
        silo_tests::say_to(&d, "aa", &format!("{word}\n"), &format!("got {word}"));
    }
    assert_eq!(d.ok(&["logs", "aa"]), "got one\ngot two\ngot three");
}

#[test]
fn execs_go_on_while_the_daemon_is_away() {
    let mut d = Daemon::start();
    let signs = d.path("signs");
    std::fs::create_dir(&signs).unwrap();
    let bind = format!("{}:/s", signs.display());
    d.ok(&["run", "-d", "--name", "aa", "-v", &bind, IMAGE, "sleep", "1000"]);
    let run = |sign: &str, code: &str| {
        let line = format!("while [ ! -e /s/{sign} ]; do sleep 0.05; done; exit {code}");
        let before = d.ok(&["inspect", "-f", "{{json .ExecIDs}}", "aa"]);
        d.ok(&["exec", "-d", "aa", "sh", "-c", &line]);
        let after = d.ok(&["inspect", "-f", "{{json .ExecIDs}}", "aa"]);
        let new = after.split('"').find(|id| id.len() == 64 && !before.contains(id));
        new.unwrap_or_else(|| panic!("{before} {after}")).to_owned()
    };
    let (away, back) = (run("away", "9"), run("back", "7"));
    let line = "echo in; while [ ! -e /s/back ]; do sleep 0.05; done; echo out; exit 5";
    let attached = d.command(&["exec", "aa", "sh", "-c", line]).stdout(std::process::Stdio::piped()).spawn();
    let mut attached = attached.unwrap();
    let mut first = [0; 3];
    std::io::Read::read_exact(attached.stdout.as_mut().unwrap(), &mut first).unwrap();
    d.stop(true);
    let moment = silo_tests::now();
    std::fs::write(signs.join("away"), "").unwrap();
    // Its own end is what is waited for; nobody tells while the daemon is away.
    std::thread::sleep(std::time::Duration::from_secs(1));
    d.again();
    let state = |exec: &str| {
        let body = d.get(&format!("/exec/{exec}/json"));
        let field = |name: &str| {
            let rest = body.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{name}: {body}"));
            rest.split([',', '}']).next().unwrap().to_owned()
        };
        (field("Running"), field("ExitCode"), field("entrypoint"))
    };
    let of = |running: &str, code: &str| (running.to_owned(), code.to_owned(), "\"sh\"".to_owned());
    assert_eq!(state(&away), of("false", "9"));
    assert_eq!(state(&back), of("true", "null"));
    assert!(d.ok(&["inspect", "-f", "{{json .ExecIDs}}", "aa"]).contains(&back));
    std::fs::write(signs.join("back"), "").unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while state(&back) != of("false", "7") {
        assert!(std::time::Instant::now() < end, "{:?}", state(&back));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // A client that was there before the daemon went gets output and exit code.
    let said: silo_tests::Said = attached.wait_with_output().unwrap().into();
    assert_eq!((said.code, &*said.out), (5, "out"), "{said:?}");
    let died = d.ok(&[
        "events",
        "--since",
        &moment,
        "--until",
        &silo_tests::now(),
        "--filter",
        "event=exec_die",
        "--format",
        "{{.Actor.Attributes.execID}} {{.Actor.Attributes.exitCode}}",
    ]);
    assert!(died.contains(&format!("{away} 9")) && died.contains(&format!("{back} 7")), "{died}");
}

#[test]
fn what_an_exec_leaves_behind_may_write_for_a_while() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "aa", IMAGE, "sleep", "1000"]);
    assert_eq!(d.ok(&["exec", "aa", "sh", "-c", "(sleep 1; echo late) & echo early"]), "early\nlate");
    let start = std::time::Instant::now();
    let said = d.docker(&["exec", "aa", "sh", "-c", "sleep 500 & echo early; exit 4"]);
    assert_eq!((said.code, &*said.out), (4, "early"));
    let took = start.elapsed().as_secs_f32();
    assert!((2.0..20.0).contains(&took), "{took}");
    // It holds its streams, not the exec's end; without them there is nothing to wait for.
    let start = std::time::Instant::now();
    d.ok(&["exec", "aa", "sh", "-c", "sleep 500 >/dev/null 2>&1 & echo early"]);
    assert!(start.elapsed().as_secs_f32() < 2.0);
    assert!(d.ok(&["top", "aa"]).matches("sleep 500").count() == 2);
}

#[test]
fn restart_policies_and_health_checks_do_their_work() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "ff", "--restart", "on-failure:2", IMAGE, "false"]);
    d.await_state("ff", "{{.State.Status}} {{.RestartCount}}", "exited 2");
    d.ok(&[
        "run",
        "-d",
        "--name",
        "hh",
        "--health-cmd",
        "test -f /ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        IMAGE,
        "sleep",
        "1000",
    ]);
    d.await_state("hh", "{{.State.Health.Status}}", "unhealthy");
    d.ok(&["exec", "hh", "touch", "/ok"]);
    d.await_state("hh", "{{.State.Health.Status}}", "healthy");
}

#[test]
fn containers_reach_each_other_and_are_reached_from_the_host() {
    let d = Daemon::start();
    d.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        IMAGE,
        "sh",
        "-c",
        "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www",
    ]);
    let ip = d.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let url = format!("http://{ip}/");
    let script =
        format!("for i in $(seq 50); do wget -qO- {url} 2>/dev/null && exit; sleep 0.1; done; exit 1");
    assert_eq!(d.ok(&["run", "--rm", IMAGE, "sh", "-c", &script]), "page");
    let host = std::process::Command::new("busybox").args(["wget", "-qO-", &url]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&host.stdout), "page\n");
}

#[test]
fn events_are_told_as_they_happened() {
    let d = Daemon::start();
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    d.ok(&["run", "--rm", "--name", "aa", IMAGE, "true"]);
    d.await_state("aa", "{{.State.Status}}", "");
    let until = (since.parse::<u64>().unwrap() + 3600).to_string();
    let _ = until;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64().to_string();
    let text = d.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &now,
        "--filter",
        "container=aa",
        "--format",
        "{{.Action}}",
    ]);
    let actions: Vec<&str> = text.lines().collect();
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
}
