//! What the API serves beside the options of `docker run`: filters, refusals, streams, settings of the daemon.

use std::io::{BufRead, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use silo_tests::{Daemon, silo};
use tungstenite::Message;

const IMAGE: &str = "localhost/busybox";

#[test]
fn names_are_filtered_by_regular_expression() {
    let d = Daemon::start();
    for name in ["web-1", "web-22", "db"] {
        d.ok(&["create", "--name", name, IMAGE, "true"]);
    }
    d.ok(&["create", "--name", "user", "--link", "db:store", IMAGE, "true"]);
    for (pattern, wanted) in [
        ("web", "web-1 web-22"),
        ("^eb", ""),
        ("eb-", "web-1 web-22"),
        ("^/web-1$", "web-1"),
        ("^web-\\d{2}$", "web-22"),
        ("^(db|web-1)$", "db web-1"),
        ("[2d]", "db web-22"),
        // What is no regular expression matches nothing.
        ("web(", ""),
        // By its name as a link of another.
        ("^/user/store$", "db"),
    ] {
        let list = d.ok(&["ps", "-a", "--filter", &format!("name={pattern}"), "--format", "{{.Names}}"]);
        let mut names: Vec<&str> = list.lines().map(|l| l.split(',').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), wanted, "{pattern}");
    }
}

#[test]
fn memory_mounts_are_shown_as_dockerd_shows_them() {
    let d = Daemon::start();
    d.ok(&[
        "run",
        "--name",
        "aa",
        "--mount",
        "type=tmpfs,target=/m,tmpfs-size=1048576",
        "--tmpfs",
        "/t:size=2m",
        IMAGE,
        "sh",
        "-c",
        "grep -c ' /[mt] ' /proc/mounts",
    ]);
    assert_eq!(d.ok(&["logs", "aa"]), "2");
    assert_eq!(
        d.ok(&["inspect", "-f", "{{json .Mounts}}", "aa"]),
        r#"[{"Type":"tmpfs","Source":"","Destination":"/m","Mode":"","RW":true,"Propagation":""}]"#
    );
    assert_eq!(d.ok(&["inspect", "-f", "{{json .HostConfig.Tmpfs}}", "aa"]), r#"{"/t":"size=2m"}"#);
    assert_eq!(d.ok(&["inspect", "-f", "{{(index .HostConfig.Mounts 0).Target}}", "aa"]), "/m");
    d.fails(
        &["create", "--tmpfs", "/m", "--mount", "type=tmpfs,target=/m", IMAGE],
        "Duplicate mount point: /m",
    );
}

#[test]
fn platforms_are_honoured_or_refused() {
    let d = Daemon::start();
    let archive = d.path("image.tar").display().to_string();
    let arm = "platform (linux/arm64)";
    for verb in [&["history"][..], &["image", "inspect"]] {
        let with = |platform: &'static str| [verb, &["--platform", platform, IMAGE]].concat();
        d.ok(&with("linux/amd64"));
        d.fails(&with("linux/arm64"), arm);
    }
    d.fails(
        &["save", "--platform", "linux/arm64", "-o", &archive, IMAGE],
        "no suitable export target found for platform linux/arm64",
    );
    d.ok(&["save", "--platform", "linux/amd64", "-o", &archive, IMAGE]);
    d.ok(&["rmi", IMAGE]);
    d.fails(&["load", "--platform", "linux/arm64", "-i", &archive], "no image for the platform linux/arm64");
    assert_eq!(d.ok(&["images", "-q"]), "");
    d.ok(&["load", "--platform", "linux/amd64", "-i", &archive]);
    assert_ne!(d.ok(&["images", "-q", IMAGE]), "");
    let (status, body) = d.request(&format!("GET /v1.48/images/{IMAGE}/history?platform=linux"));
    assert!(status == 400 && body.contains("failed to parse platform"), "{status} {body}");
    let (status, _) = d.request(&format!("GET /v1.47/images/{IMAGE}/history?platform=linux"));
    assert_eq!(status, 200);
}

/// A websocket to a container's streams.
fn attach(d: &Daemon, name: &str, query: &str) -> tungstenite::WebSocket<UnixStream> {
    let stream = UnixStream::connect(d.path("silo.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let url = format!("ws://localhost/v1.50/containers/{name}/attach/ws?{query}");
    tungstenite::client(url, stream).unwrap().0
}

/// What comes in binary messages, until the end or until it ends with `last`.
fn read(socket: &mut tungstenite::WebSocket<UnixStream>, last: &str) -> String {
    let mut text = String::new();
    while last.is_empty() || !text.ends_with(last) {
        match socket.read().unwrap() {
            Message::Binary(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Message::Close(_) => break,
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

#[test]
fn streams_go_over_a_websocket() {
    let d = Daemon::start();
    d.ok(&["create", "-i", "--name", "aa", IMAGE, "sh", "-c", "echo begin; echo err >&2; cat; exit 5"]);
    let mut socket = attach(&d, "aa", "stream=1&stdin=1&stdout=1&stderr=1");
    d.ok(&["start", "aa"]);
    let first = read(&mut socket, "err\n");
    assert!(first.contains("begin\n"), "{first:?}");
    socket.send(Message::binary(&b"there"[..])).unwrap();
    assert_eq!(read(&mut socket, "there"), "there");
    socket.send(Message::text(" and back\n")).unwrap();
    assert_eq!(read(&mut socket, "\n"), " and back\n");

    // What was written before, and only what is asked for.
    let mut second = attach(&d, "aa", "logs=1&stderr=1");
    assert_eq!(read(&mut second, ""), "err\n");

    // The last client with input has gone: the container's input ends.
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    assert_eq!(d.ok(&["wait", "aa"]), "5");
}

#[test]
fn a_websocket_hears_of_the_end() {
    let d = Daemon::start();
    d.ok(&["create", "--name", "aa", IMAGE, "sh", "-c", "seq 1 100000"]);
    let mut socket = attach(&d, "aa", "stream=1&stdout=1");
    d.ok(&["start", "aa"]);
    let text = read(&mut socket, "");
    assert!(text.lines().eq((1..=100_000).map(|n| n.to_string())), "{} bytes", text.len());
    let (status, _) = d.request("GET /v1.50/containers/nobody/attach/ws?stream=1");
    assert_eq!(status, 404);
    let (status, body) = d.request("GET /v1.50/containers/aa/attach/ws?stream=1");
    assert_eq!(status, 400, "{body}");
}

#[test]
fn limits_that_the_host_cannot_keep_are_warned_of() {
    let d = Daemon::start();
    let create = |options: &[&str]| d.docker(&[&["create"], options, &[IMAGE, "true"]].concat());
    let v2 = d.ok(&["info", "-f", "{{.CgroupVersion}}"]) == "2";
    let said = create(&["--memory-swappiness", "10", "--memory", "64m"]);
    let discarded = said.err.contains(
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    );
    assert_eq!((said.code, discarded), (0, v2), "{said:?}");
    let said = create(&["--oom-kill-disable"]);
    let word = if v2 {
        "Your kernel does not support OomKillDisable. OomKillDisable discarded."
    } else {
        "OOM killer is disabled for the container, but no memory limit is set"
    };
    assert!(said.code == 0 && said.err.contains(word), "{said:?}");
    let said = create(&["--memory", "64m"]);
    let swap = d.ok(&["info", "-f", "{{.SwapLimit}}"]) == "true";
    assert_eq!(said.err.contains("does not support swap limit capabilities"), !swap, "{said:?}");
    if !std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        d.fails(
            &["create", "--cpu-rt-runtime", "1000", IMAGE],
            "Your kernel does not support CPU real-time scheduler",
        );
    }
}

#[test]
fn a_refused_container_leaves_no_volumes() {
    let d = Daemon::start();
    d.fails(&["create", "-v", "/data", "--mount", "type=bind,source=/nowhere,target=/b", IMAGE], "/nowhere");
    d.fails(&["create", "-v", "/data", "-v", "named:/n", "-v", "x/y:/z", IMAGE], "x/y");
    // As with dockerd, a volume of a name stays.
    assert!(matches!(&*d.ok(&["volume", "ls", "-q"]), "" | "named"));
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let left: Vec<_> = std::fs::read_dir(d.path("root/volumes")).unwrap().flatten().collect();
    assert!(left.iter().all(|e| e.file_name() == "named"), "{left:?}");
}

#[test]
fn wait_hears_of_the_next_end() {
    let d = Daemon::start();
    d.docker(&["run", "--name", "aa", IMAGE, "sh", "-c", "[ -e /again ] && exit 7; touch /again; exit 3"]);
    // It has ended: not-running answers at once, next-exit with the run to come.
    let (_, body) = d.request("POST /v1.50/containers/aa/wait?condition=not-running");
    assert!(body.contains(r#""StatusCode":3"#), "{body}");
    let mut waiting = UnixStream::connect(d.path("silo.sock")).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    waiting
        .write_all(b"POST /v1.50/containers/aa/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    // The head comes at once: whoever has it will hear of the end.
    let mut lines = std::io::BufReader::new(waiting).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    assert!(lines.by_ref().any(|l| l.is_empty()));
    d.ok(&["start", "aa"]);
    let body: String = lines.collect();
    assert!(body.contains(r#""StatusCode":7"#), "{body}");
}

#[test]
fn stats_go_on() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "aa", "--memory", "64m", IMAGE, "sh", "-c", "while :; do :; done"]);
    let mut stream = UnixStream::connect(d.path("silo.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /v1.50/containers/aa/stats HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let lines = std::io::BufReader::new(stream).lines().map(Result::unwrap);
    let number = |line: &str, name: &str| -> u64 {
        let rest = line.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{name}: {line}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let samples: Vec<String> = lines.filter(|l| l.starts_with('{')).take(3).collect();
    let used: Vec<u64> = samples.iter().map(|s| number(s, "total_usage")).collect();
    assert!(used.windows(2).all(|w| w[0] < w[1]), "{used:?}");
    assert_eq!(number(&samples[2], "limit"), 64 << 20);
    d.await_line(&["stats", "--format", "{{.Name}} {{.MemUsage}}"], "/ 64MiB");
}

#[test]
fn settings_come_from_a_file_and_the_host_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let bridge = format!("stt{}", std::process::id() % 100_000);
    let text = format!(
        "root = {:?}\nrun-dir = {:?}\nsocket = {:?}\nbridge = {bridge:?}\n",
        at("root"),
        at("run"),
        at("file.sock")
    );
    std::fs::write(at("silo.toml"), text).unwrap();
    let daemon =
        Command::new(silo()).args(["daemon", "--config", &at("silo.toml")]).stderr(Stdio::null()).spawn();
    let mut daemon = daemon.unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(at("file.sock")).is_err() {
        assert!(
            std::time::Instant::now() < end && daemon.try_wait().unwrap().is_none(),
            "it does not listen"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let client = Command::new(silo())
        .args(["base", "ls"])
        .env("SILO_HOST", format!("unix://{}", at("file.sock")))
        .output()
        .unwrap();
    let elsewhere = Command::new(silo())
        .args(["base", "ls"])
        .env("SILO_HOST", format!("unix://{}", at("no.sock")))
        .output();
    let linked = std::path::Path::new("/sys/class/net").join(&bridge).exists();
    let made = dir.path().join("root/silo.db").exists();
    Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
    daemon.wait().unwrap();
    let _ = Command::new("ip").args(["link", "delete", &bridge]).stderr(Stdio::null()).status();
    silo_tests::remove_tables(&bridge);
    assert!(linked && made, "bridge {linked}, database {made}");
    assert!(client.status.success(), "{client:?}");
    assert!(!elsewhere.unwrap().status.success());

    std::fs::write(at("silo.toml"), "colour = 1\n").unwrap();
    let refused = Command::new(silo()).args(["daemon", "--config", &at("silo.toml")]).output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("colour"), "{words}");
}

#[test]
fn an_oci_layout_made_by_another_tool_is_loaded() {
    let d = Daemon::start();
    let at = |name: &str| d.path(name).display().to_string();
    d.ok(&["save", "-o", &at("docker.tar"), IMAGE]);
    let before = d.ok(&["run", "--rm", IMAGE, "sh", "-c", "ls -l /bin /root; cat /etc/passwd"]);
    d.ok(&["rmi", IMAGE]);
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("docker-archive:{}", at("docker.tar")))
        .arg(format!("oci-archive:{}:example.test/other:1", at("oci.tar")))
        .output()
        .expect("skopeo is installed by `cargo xtask test`");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert!(d.ok(&["load", "-i", &at("oci.tar")]).contains("Loaded image: example.test/other:1"));
    let after =
        d.ok(&["run", "--rm", "example.test/other:1", "sh", "-c", "ls -l /bin /root; cat /etc/passwd"]);
    assert_eq!(after, before);
}
