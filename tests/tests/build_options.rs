//! What a client may ask of a build, each option by what it does; and all ways of a context to the daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::builds::{context, counts};
use silo_tests::http::{Reply, Server};
use silo_tests::images::tar;
use silo_tests::registry::{Registry, run};
use silo_tests::{Daemon, Said, isolation, only_under};

/// Builds with a standard input.
fn build_from(d: &Daemon, arguments: &[&str], input: &[u8]) -> Said {
    let mut all = vec!["build"];
    all.extend(arguments);
    let mut client = d.command(&all);
    let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().unwrap();
    // A client that refuses reads nothing.
    let _ = client.stdin.take().unwrap().write_all(input);
    client.wait_with_output().unwrap().into()
}

fn ok_from(d: &Daemon, arguments: &[&str], input: &[u8]) -> String {
    let said = build_from(d, arguments, input);
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}\n{}", d.log());
    said.out
}

/// A server of one thing at any path.
fn serve(kind: &'static str, body: impl Into<Vec<u8>>) -> Server {
    let body = body.into();
    Server::start(move |_, _| Reply::new(200, body.clone()).with("content-type", kind))
}

/// Asks for a build with a Dockerfile alone, by the API; what was answered.
fn post(d: &Daemon, dockerfile: &str, query: &str) -> String {
    let server = serve("text/plain", dockerfile);
    let (status, body) = d.request(&format!(
        "POST /v1.43/build?remote=http%3A%2F%2F{}%2FDockerfile&rm=1&{query}",
        server.host()
    ));
    assert_eq!(status, 200, "{query}: {body}\n{}", d.log());
    body
}

#[test]
fn steps_have_the_limits_hosts_and_network_of_the_build() {
    let d = Daemon::start();
    let dir = context(&[(
        "Dockerfile",
        "FROM localhost/busybox\nLABEL a=file c=file\nRUN cat /etc/hosts > /out; ls /sys/class/net > /net\n",
    )]);
    let id = dir.path().join("id");
    let (path, id_file) = (dir.path().to_str().unwrap(), id.to_str().unwrap());
    let options = [
        "--add-host",
        "named:1.2.3.4",
        "--label",
        "a=given",
        "--label",
        "b=x y",
        "--iidfile",
        id_file,
        "--network",
        "none",
    ];
    d.ok(&[&["build", "-t", "it"][..], &options[..], &[path]].concat());
    let told = d.ok(&["image", "inspect", "-f", "{{.Id}} {{json .Config.Labels}}", "it"]);
    assert_eq!(
        told,
        format!("{} {}", std::fs::read_to_string(&id).unwrap(), r#"{"a":"given","b":"x y","c":"file"}"#)
    );
    let out = d.ok(&["run", "--rm", "it", "cat", "/out", "/net"]);
    assert!(out.contains("1.2.3.4") && out.contains("named"), "{out}");
    assert!(!out.contains("eth0") && out.ends_with("lo"), "{out}");
    if only_under("process", "a machine has no network of the host") {
        d.ok(&["build", "-t", "host", "--network", "host", path]);
        let out = d.ok(&["run", "--rm", "host", "cat", "/net"]);
        assert!(out.contains(d.bridge()), "{out}");
    }
    // What another network would have given is not what the cache has.
    assert_eq!(counts(&d.ok(&[&["build"][..], &options[..], &[path]].concat())), (3, 0));
    let hungry = "FROM localhost/busybox\nRUN dd if=/dev/zero of=/dev/null bs=150M count=1 && echo had it\n";
    let said = build_from(&d, &["--memory", "64m", "--memory-swap", "64m", "-"], hungry.as_bytes());
    assert!(said.code == 137 && said.err.contains("non-zero code: 137"), "{said:?}");
    ok_from(&d, &["-"], hungry.as_bytes());
    let said = build_from(&d, &["--memory", "1k", "-"], hungry.as_bytes());
    assert!(said.code != 0 && said.err.to_lowercase().contains("memory"), "{said:?}");
}

#[test]
fn arguments_of_proxies_and_platforms() {
    let d = Daemon::start();
    let file = "FROM localhost/busybox\nARG TARGETOS TARGETARCH TARGETPLATFORM BUILDPLATFORM\n\
        RUN echo $HTTP_PROXY $TARGETOS $TARGETARCH $TARGETPLATFORM $BUILDPLATFORM > /out\n";
    let secret = "HTTP_PROXY=http://user:secret@proxy:1";
    let args = ["--build-arg", secret, "--build-arg", "NOBODY=x", "-t", "it", "-"];
    let out = ok_from(&d, &args, file.as_bytes());
    assert!(out.contains("build-args [NOBODY] were not consumed"), "{out}");
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(
        d.ok(&["run", "--rm", "it", "cat", "/out"]),
        format!("http://user:secret@proxy:1 linux {arch} linux/{arch} linux/{arch}")
    );
    assert!(!d.ok(&["history", "--no-trunc", "it"]).contains("secret"));
    // Another proxy makes nothing else of it.
    assert_eq!(counts(&ok_from(&d, &["--build-arg", "HTTP_PROXY=other", "-"], file.as_bytes())).1, 0);
}

#[test]
fn contexts_come_by_every_way() {
    let d = Daemon::start();
    let dockerfile = "FROM localhost/busybox\nCOPY . /all/\nCMD [\"ls\", \"/all\"]\n";
    let archive = tar(&[("Dockerfile", dockerfile.as_bytes()), ("a", b"a"), ("sub/b", b"b")]);
    let alone = "FROM localhost/busybox\nRUN echo alone > /out\nCMD [\"cat\", \"/out\"]\n";
    let shows = |tag: &str, out: &str| assert_eq!(d.ok(&["run", "--rm", tag]), out, "{tag}");
    // Standard input: an archive, a Dockerfile alone, a Dockerfile beside a directory.
    ok_from(&d, &["-t", "stdin", "-"], &archive);
    shows("stdin", "Dockerfile\na\nsub");
    ok_from(&d, &["-t", "file", "-"], alone.as_bytes());
    shows("file", "alone");
    let dir = context(&[
        ("Dockerfile", "FROM nowhere\n"),
        ("x", ""),
        ("keep", ""),
        (".dockerignore", "Dockerfile\n"),
    ]);
    let path = dir.path().to_str().unwrap();
    ok_from(&d, &["-t", "beside", "-f", "-", path], dockerfile.as_bytes());
    shows("beside", "keep\nx");
    // A Dockerfile's own list of what is ignored takes the place of the context's.
    std::fs::write(dir.path().join("My.Dockerfile"), dockerfile).unwrap();
    std::fs::write(dir.path().join("My.Dockerfile.dockerignore"), "*\n!keep\n").unwrap();
    d.ok(&["build", "-t", "own", "-f", dir.path().join("My.Dockerfile").to_str().unwrap(), path]);
    shows("own", "keep");
    // URLs: what the client fetches itself, and what the daemon does (`remote=`).
    let zipped = silo_tests::images::pack(&archive, silo_tests::images::Packed::Gzip);
    let server = serve("application/x-gzip", zipped);
    d.ok(&["build", "-t", "url", &format!("http://{}/context.tar.gz", server.host())]);
    shows("url", "Dockerfile\na\nsub");
    let (status, body) =
        d.request(&format!("POST /build?t=remote&remote=http%3A%2F%2F{}%2Fx.tar.gz", server.host()));
    assert!(status == 200 && body.contains("Successfully tagged remote"), "{body}");
    shows("remote", "Dockerfile\na\nsub");
    let text = serve("text/plain", alone);
    d.ok(&["build", "-t", "text", &format!("http://{}/Dockerfile", text.host())]);
    shows("text", "alone");
    post(&d, alone, "t=plain");
    shows("plain", "alone");
    // A repository, as any server of files has it.
    let repository = context(&[("sub/Dockerfile", dockerfile), ("sub/of-branch", ""), ("above", "")]);
    let at = repository.path().to_str().unwrap();
    run(
        "sh",
        &[
            "-c",
            &format!(
                "cd {at} && git init -q -b main . && git add . && git -c user.name=t -c user.email=t@t commit -q -m one \
            && git branch other && git rm -q sub/of-branch && git -c user.name=t -c user.email=t@t commit -q -m two \
            && git update-server-info"
            ),
        ],
    );
    let root = repository.path().join(".git");
    let server = Server::start(move |_, request| {
        let path = request.path.trim_start_matches("/repository.git/");
        match std::fs::read(root.join(path)) {
            Ok(bytes) => Reply::new(200, bytes),
            Err(_) => Reply::new(404, ""),
        }
    });
    for (fragment, shown) in [("main:sub", "Dockerfile"), ("other:sub", "Dockerfile\nof-branch")] {
        let remote =
            format!("http%3A%2F%2F{}%2Frepository.git%23{}", server.host(), fragment.replace(':', "%3A"));
        let (status, body) = d.request(&format!("POST /build?t=git&remote={remote}"));
        assert!(status == 200 && body.contains("Successfully tagged git"), "{fragment}: {body}");
        shows("git", shown);
    }
    for (remote, why) in [("ftp%3A%2F%2Fx", "could not be recognized as URL"), ("client-session", "session")]
    {
        let (status, body) = d.request(&format!("POST /build?remote={remote}"));
        assert!(status == 400 && body.contains(why), "{status} {body}");
    }
}

#[test]
fn a_squashed_image_has_one_layer_more_than_its_base() {
    let d = Daemon::start();
    let file = "FROM localhost/busybox\nRUN echo big > /gone && echo kept > /kept\nRUN rm /gone\nRUN rm /etc/group\nENV A=b\n";
    let body = post(&d, file, "t=it&squash=1");
    assert!(body.contains("Successfully tagged it"), "{body}");
    let layers = |image: &str| d.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", image]);
    assert_eq!((layers("localhost/busybox"), layers("it")), ("1".to_owned(), "2".to_owned()));
    let seen = "cat /kept; ls /gone /etc/group 2>&1 | grep -c 'No such'; echo $A";
    assert_eq!(d.ok(&["run", "--rm", "it", "sh", "-c", seen]), "kept\n2\nb");
    let archive = d.path("it.tar");
    d.ok(&["save", "-o", archive.to_str().unwrap(), "it"]);
    assert!(!String::from_utf8_lossy(&std::fs::read(archive).unwrap()).contains("big\n"));
    assert!(d.ok(&["history", "--no-trunc", "it"]).contains("merge sha256:"));
}

/// An archive of an image with what BuildKit puts beside a config (`type=inline`).
fn with_inline_cache(archive: &[u8]) -> Vec<u8> {
    let mut files: std::collections::BTreeMap<String, Vec<u8>> = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (name, mut bytes) = (entry.path().unwrap().display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    let mut manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let name = manifest[0]["Config"].as_str().unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&files[name]).unwrap();
    config["moby.buildkit.cache.v0"] = "W3siZGlnZXN0IjoieCJ9XQ==".into();
    let layers: Vec<String> =
        manifest[0]["Layers"].as_array().unwrap().iter().map(|l| l.as_str().unwrap().to_owned()).collect();
    manifest[0]["Config"] = "config.json".into();
    let (config, manifest) = (config.to_string().into_bytes(), manifest.to_string().into_bytes());
    let mut all: Vec<(&str, &[u8])> = vec![("manifest.json", &manifest[..]), ("config.json", &config[..])];
    all.extend(layers.iter().map(|name| (name.as_str(), files[name].as_slice())));
    tar(&all)
}

#[test]
fn an_image_that_was_loaded_serves_as_cache() {
    let d = Daemon::start();
    let dir = context(&[
        (
            "Dockerfile",
            "FROM localhost/busybox\nENV A=b\nCOPY file /file\nRUN cat /proc/sys/kernel/random/uuid > /made\n",
        ),
        ("file", "x"),
    ]);
    let path = dir.path().to_str().unwrap();
    d.ok(&["build", "-t", "cache", path]);
    let made = d.ok(&["run", "--rm", "cache", "cat", "/made"]);
    let archive = d.path("cache.tar");
    d.ok(&["save", "-o", archive.to_str().unwrap(), "cache"]);
    let forget = || {
        d.ok(&["rmi", "-f", "cache"]);
        d.ok(&["image", "prune", "-f"]);
        d.ok(&["builder", "prune", "-af"]);
    };
    for inline in [false, true] {
        forget();
        let mut bytes = std::fs::read(&archive).unwrap();
        if inline {
            bytes = with_inline_cache(&bytes);
        }
        let load = d.path("load.tar");
        std::fs::write(&load, bytes).unwrap();
        let loaded = d.ok(&["load", "-q", "-i", load.to_str().unwrap()]);
        assert!(loaded.contains("cache"), "{loaded}");
        let out = d.ok(&["build", "--cache-from", "missing,cache", "-t", "again", path]);
        assert_eq!(counts(&out), (3, 0), "inline {inline}: {out}");
        assert_eq!(d.ok(&["run", "--rm", "again", "cat", "/made"]), made);
        d.ok(&["rmi", "again"]);
    }
    // Without it, or with another file, the step is taken.
    assert_eq!(counts(&d.ok(&["build", path])), (0, 1));
    std::fs::write(dir.path().join("file"), "y").unwrap();
    assert_eq!(counts(&d.ok(&["build", "--cache-from", "cache", path])), (1, 1));
}

#[test]
fn pull_asks_for_the_base_again() {
    let (d, registry) = (Daemon::start(), Registry::start());
    let base = format!("{}/base:1", registry.host());
    let publish = |what: &str| {
        ok_from(
            &d,
            &["-q", "-t", &base, "-"],
            format!("FROM localhost/busybox\nRUN echo {what} > /base\n").as_bytes(),
        );
        d.ok(&["push", "-q", &base]);
        d.ok(&["image", "inspect", "-f", "{{.Id}}", &base])
    };
    let old = publish("old");
    publish("new");
    d.ok(&["tag", &old, &base]);
    let file = format!("FROM {base}\nCMD [\"cat\", \"/base\"]\n");
    let builds = |options: &[&str]| {
        let id = ok_from(&d, &[options, &["-q", "-"]].concat(), file.as_bytes());
        d.ok(&["run", "--rm", &id])
    };
    assert_eq!(builds(&[]), "old");
    assert_eq!(builds(&["--pull"]), "new");
}

#[test]
fn quiet_builds_say_the_id_or_all() {
    let d = Daemon::start();
    let out = ok_from(&d, &["-q", "-"], b"FROM localhost/busybox\nRUN echo said\n");
    assert!(out.starts_with("sha256:") && out.len() == 71, "{out}");
    let file = "FROM localhost/busybox\nRUN echo first; seq 1 300000; echo the last words; exit 4\n";
    let said = build_from(&d, &["-q", "-"], file.as_bytes());
    assert_eq!(said.code, 4, "{}", said.err);
    let all = format!("{}{}", said.out, said.err);
    assert!(
        all.contains("the last words") && all.contains("left out") && all.len() < 4 << 20,
        "{} bytes",
        all.len()
    );
}

#[test]
fn a_build_is_cancelled_by_its_name() {
    let d = Daemon::start();
    let server = serve("text/plain", "FROM localhost/busybox\nRUN echo started; exec sleep 600\n");
    let mut stream = UnixStream::connect(d.path("silo.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let remote = format!("http%3A%2F%2F{}%2FDockerfile", server.host());
    write!(stream, "POST /build?buildid=mine&remote={remote} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let (mut seen, mut piece) = (String::new(), [0; 4096]);
    while !seen.contains("started\\n") || !seen.contains("Running in") {
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "{seen}\n{}", d.log());
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert_eq!(d.request("POST /build/cancel?id=another").0, 200);
    assert_eq!(d.ok(&["ps", "-q"]).lines().count(), 1);
    let began = Instant::now();
    assert_eq!(d.request("POST /build/cancel?id=mine").0, 200);
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("build cancelled") && began.elapsed() < Duration::from_secs(30), "{seen}");
    // All of it is gone before the answer ends.
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let left: Vec<_> = std::fs::read_dir(d.path("root/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(d.request("POST /build/cancel").0, 400);
}

#[test]
fn steps_run_in_the_isolation_that_is_asked_for() {
    // With the kernel for machines.
    let d = Daemon::with_pool(0);
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let file = "FROM localhost/busybox\nRUN cat /proc/sys/kernel/random/boot_id > /kernel\nCMD [\"cat\", \"/kernel\"]\n";
    let other = if isolation() == "process" { "hyperv" } else { "process" };
    let id = ok_from(&d, &["-q", "--isolation", other, "-"], file.as_bytes());
    assert_eq!(d.ok(&["run", "--rm", &id]) == host.trim(), other == "process");
    let said = build_from(&d, &["--isolation", "none", "-"], file.as_bytes());
    assert!(said.code != 0 && said.err.to_lowercase().contains("isolation"), "{said:?}");
}

#[test]
fn what_unpacks_without_bound_is_refused() {
    let d = Daemon::with(|_| {
        ["--build-context-limit", "2MB", "--build-context-files", "50"].map(str::to_owned).to_vec()
    });
    d.import_busybox();
    let dockerfile: &[u8] = b"FROM localhost/busybox\nADD a.tar.gz /a\n";
    let zeros = vec![0; 3 << 20];
    let bomb = silo_tests::images::pack(&tar(&[("zeros", &zeros)]), silo_tests::images::Packed::Gzip);
    let said = build_from(&d, &["-"], &tar(&[("Dockerfile", dockerfile), ("zeros", &zeros)]));
    assert!(
        said.code != 0 && said.err.contains("\"zeros\": the archive exceeds the limit of 2097152 bytes"),
        "{said:?}"
    );
    let said = build_from(&d, &["-"], &tar(&[("Dockerfile", dockerfile), ("a.tar.gz", &bomb)]));
    assert!(
        said.code != 0 && said.err.contains("a.tar.gz") && said.err.contains("limit of 2097152 bytes"),
        "{said:?}"
    );
    let names: Vec<String> = (0..60).map(|n| format!("f{n}")).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("Dockerfile", dockerfile)];
    files.extend(names.iter().map(|name| (name.as_str(), &b""[..])));
    let said = build_from(&d, &["-"], &tar(&files));
    assert!(said.code != 0 && said.err.contains("limit of 50 entries"), "{said:?}");
    let left: Vec<_> = std::fs::read_dir(d.path("root/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // A name of a gigabyte, in a context and in what is loaded: refused at its header.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let endless = [header.as_bytes().to_vec(), vec![b'a'; 1 << 20]].concat();
    let whole = tar(&[("Dockerfile", dockerfile)]);
    let said = build_from(&d, &["-"], &[&whole[..whole.len() - 1024], &endless].concat());
    assert!(said.code != 0 && said.err.contains("too large"), "{said:?}");
    let path = d.path("endless.tar");
    File::create(&path).unwrap().write_all(&endless).unwrap();
    d.fails(
        &["load", "-i", path.to_str().unwrap()],
        "an extension header of the archive has more than 1048576 bytes",
    );
}

#[test]
fn the_cache_stays_below_its_ceiling() {
    let d = Daemon::with(|_| ["--build-cache-limit", "3500k"].map(str::to_owned).to_vec());
    d.import_busybox();
    // A megabyte that no image has, each.
    let file = |n: u32| {
        format!(
            "FROM localhost/busybox AS made\nRUN head -c 1048576 /dev/urandom > /{n}\nFROM localhost/busybox\nCOPY --from=made /etc/passwd /p\n"
        )
    };
    let held = || -> u64 {
        let usage: serde_json::Value = serde_json::from_str(&d.get("/system/df")).unwrap();
        let records = usage["BuildCache"].as_array().unwrap();
        records.iter().filter(|r| r["Shared"] == false).map(|r| r["Size"].as_u64().unwrap()).sum()
    };
    for n in 0..5 {
        ok_from(&d, &["-"], file(n).as_bytes());
        // The first is of use again.
        if n > 0 {
            assert_eq!(counts(&ok_from(&d, &["-"], file(0).as_bytes())).1, 0, "{n}");
        }
        let end = Instant::now() + Duration::from_secs(20);
        while held() > 3500 << 10 {
            assert!(Instant::now() < end, "{} bytes after {n}\n{}", held(), d.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(held() > 2 << 20, "{}", held());
    assert!(d.log().contains("the cache of builds:"), "{}", d.log());
    // What was not used for longest has gone, and nothing else.
    assert_eq!(counts(&ok_from(&d, &["-"], file(4).as_bytes())).1, 0);
    assert_eq!(counts(&ok_from(&d, &["-"], file(0).as_bytes())).1, 0);
    assert_eq!(counts(&ok_from(&d, &["-"], file(1).as_bytes())).1, 1);
    let said: Said = Command::new(silo_tests::silo())
        .args(["daemon", "--build-cache-limit", "much", "--root", d.path("none").to_str().unwrap()])
        .output()
        .unwrap()
        .into();
    assert!(said.code != 0 && said.err.contains("--build-cache-limit \"much\" is no size"), "{said:?}");
}
