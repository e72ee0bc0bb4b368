//! `docker build` by the stock client without BuildKit.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silo_tests::builds::{context, counts, put};
use silo_tests::{Daemon, NANOSERVER, Said, only_under};

fn command(d: &Daemon, dir: &Path, options: &[&str]) -> Command {
    let mut arguments = vec!["build"];
    arguments.extend(options);
    let dir = dir.display().to_string();
    arguments.push(&dir);
    let mut command = d.command(&arguments);
    command.env("DOCKER_BUILDKIT", "0");
    command
}

fn try_build(d: &Daemon, dir: &Path, options: &[&str]) -> Said {
    command(d, dir, options).output().unwrap().into()
}

/// Builds, which must succeed; what was printed.
fn build(d: &Daemon, dir: &Path, options: &[&str]) -> String {
    let said = try_build(d, dir, options);
    assert_eq!(said.code, 0, "{options:?}: {said:?}\n{}", d.log());
    said.out
}

fn inspect(d: &Daemon, image: &str, format: &str) -> String {
    d.ok(&["image", "inspect", "-f", format, image])
}

const STAGES: &str = r#"
ARG BASE=localhost/busybox
FROM $BASE AS compiler
ARG FLAGS=none
ENV OUT=/out
RUN mkdir $OUT && echo "built with $FLAGS" > $OUT/program
COPY src/ $OUT/

FROM $BASE AS unused
RUN echo this must not run && exit 1

FROM $BASE
LABEL org.example.a="1 2" b=c
COPY --from=compiler --chown=bob /out /app/
WORKDIR /app
RUN <<EOF
set -e
echo "first" > made
echo "second" >> made
EOF
USER bob
ENV PATH=/app:$PATH GREETING="hello world"
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
ENTRYPOINT ["cat"]
CMD ["program", "made", "main.c"]
"#;

#[test]
fn stages_are_built_once_and_found_again() {
    let mut d = Daemon::start();
    let dir = context(&[
        ("Dockerfile", STAGES),
        ("src/main.c", "int main;\n"),
        ("src/junk", "x"),
        (".dockerignore", "**/junk\n"),
    ]);
    let out = build(&d, dir.path(), &["-t", "it:1", "-t", "it:2", "--build-arg", "FLAGS=O2"]);
    assert!(!out.contains("must not run") && out.contains("Successfully tagged it:1"), "{out}");
    assert!(out.contains("Successfully tagged it:2"), "{out}");
    assert_eq!(counts(&out), (0, 2), "{out}");
    assert_eq!(d.ok(&["run", "--rm", "it:1"]), "built with O2\nfirst\nsecond\nint main;");
    assert_eq!(
        d.ok(&["run", "--rm", "--entrypoint", "ls", "it:1", "-n", "main.c"]).split_whitespace().nth(2),
        Some("1000")
    );
    assert!(d.docker(&["run", "--rm", "--entrypoint", "ls", "it:1", "junk"]).code != 0);
    let config = "{{.Config.User}} {{.Config.WorkingDir}} {{json .Config.Env}} {{json .Config.ExposedPorts}} \
        {{json .Config.Volumes}} {{.Config.StopSignal}} {{json .Config.Healthcheck}} {{json .Config.Entrypoint}} \
        {{json .Config.Cmd}} {{json .Config.Labels}}";
    assert_eq!(
        inspect(&d, "it:1", config),
        r#"bob /app ["PATH=/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","GREETING=hello world"] "#.to_owned()
            + r#"{"53/udp":{},"80/tcp":{}} {"/data":{}} SIGINT {"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2} "#
            + r#"["cat"] ["program","made","main.c"] {"b":"c","org.example.a":"1 2"}"#
    );
    // The same again, and after a restart: nothing runs, and it is the same image.
    let id = inspect(&d, "it:1", "{{.Id}}");
    d.stop(false);
    d.again();
    let out = build(&d, dir.path(), &["-t", "it:1", "--build-arg", "FLAGS=O2"]);
    assert_eq!(counts(&out).1, 0, "{out}");
    assert_eq!(inspect(&d, "it:1", "{{.Id}}"), id);
    // Another file: what follows its copy is made again, and nothing before.
    put(dir.path(), "src/main.c", "int other;\n");
    let out = build(&d, dir.path(), &["-t", "it:1", "--build-arg", "FLAGS=O2"]);
    assert_eq!(counts(&out).1, 1, "{out}");
    assert!(d.ok(&["run", "--rm", "it:1"]).ends_with("int other;"));
    // Another argument: so is what follows that.
    let out = build(&d, dir.path(), &["-q", "--build-arg", "FLAGS=O3"]);
    assert_eq!(d.ok(&["run", "--rm", &out, "program"]), "built with O3");
    let out = build(
        &d,
        dir.path(),
        &["--no-cache", "--build-arg", "FLAGS=O3", "--target", "compiler", "-t", "only"],
    );
    assert_eq!(counts(&out), (0, 1), "{out}");
    assert_eq!(d.ok(&["run", "--rm", "only", "ls", "/out"]), "main.c\nprogram");
    assert!(d.ok(&["history", "--no-trunc", "it:1"]).contains("HEALTHCHECK"));
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

#[test]
fn triggers_run_in_the_next_build() {
    let d = Daemon::start();
    let dir = context(&[(
        "Dockerfile",
        "FROM localhost/busybox\nONBUILD COPY file /copied\nONBUILD RUN cat /copied > /ran\n",
    )]);
    build(&d, dir.path(), &["-t", "base"]);
    assert_eq!(
        inspect(&d, "base", "{{json .Config.OnBuild}}"),
        r#"["COPY file /copied","RUN cat /copied > /ran"]"#
    );
    let next = context(&[("Dockerfile", "FROM base\nCMD [\"cat\", \"/ran\"]\n"), ("file", "content")]);
    let out = build(&d, next.path(), &["-t", "next"]);
    assert!(out.contains("# Executing 2 build triggers"), "{out}");
    assert_eq!(d.ok(&["run", "--rm", "next"]), "content");
    assert_eq!(inspect(&d, "next", "{{json .Config.OnBuild}}"), "null");
}

#[test]
fn mounts_show_files_that_no_layer_has() {
    let d = Daemon::start();
    let dockerfile = "FROM localhost/busybox AS other\nRUN echo theirs > /file\n\
        FROM localhost/busybox\n\
        RUN --mount=type=bind,target=/ctx --mount=type=bind,from=other,source=/file,target=/f cat /ctx/here /f > /out; ! touch /ctx/x\n\
        RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/tmpfs echo x >> /cache/count && wc -l < /cache/count >> /out && touch /tmpfs/y\n\
        RUN --mount=type=secret,id=none cat /run/secrets/none 2>&1 | grep -c 'No such' >> /out\n\
        RUN --network=none ls /sys/class/net >> /out\n";
    let dir = context(&[("Dockerfile", dockerfile), ("here", "ours\n")]);
    build(&d, dir.path(), &["-t", "it"]);
    assert_eq!(d.ok(&["run", "--rm", "it", "cat", "/out"]), "ours\ntheirs\n1\n1\nlo");
    let left = d.ok(&["run", "--rm", "it", "ls", "/"]);
    assert!(
        !["ctx", "cache", "tmpfs"].iter().any(|name| left.split_whitespace().any(|l| l == *name)),
        "{left}"
    );
    // The cache mount outlives the build.
    build(&d, dir.path(), &["-t", "it", "--no-cache"]);
    assert_eq!(d.ok(&["run", "--rm", "it", "cat", "/out"]), "ours\ntheirs\n2\n1\nlo");
    // A file that a mount shows counts.
    put(dir.path(), "here", "changed\n");
    build(&d, dir.path(), &["-t", "it"]);
    assert!(d.ok(&["run", "--rm", "it", "cat", "/out"]).starts_with("changed"));
    let usage = d.ok(&["system", "df", "-v"]);
    assert!(usage.contains("exec.cachemount") && usage.contains("regular"), "{usage}");
    d.ok(&["builder", "prune", "-f"]);
    assert_eq!(counts(&build(&d, dir.path(), &["-t", "it"])).1, 1, "the cache mount's step is no image's");
    d.ok(&["builder", "prune", "-af"]);
    let usage = d.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"]);
    assert!(usage.contains("Build Cache 0 0B"), "{usage}");
    assert_eq!(d.ok(&["run", "--rm", "it", "tail", "-1", "/out"]), "lo");
}

#[test]
fn cache_mounts_are_had_in_turn_and_no_prune_takes_them() {
    let d = Daemon::start();
    let mount = |id: &str, at: &str, sharing: &str| {
        format!("--mount=type=cache,id={id},target={at},sharing={sharing} ")
    };
    let (a, b) = (mount("a", "/a", "locked"), mount("b", "/b", "locked"));
    // Two wait for the first in opposite orders; the last has one of them twice.
    let wait = "touch /a/started; until test -e /a/go; do sleep .05; done;";
    let run = "echo x >> /a/count; echo x >> /b/count; touch /out";
    let private = mount("p", "/p", "private");
    let dockerfile = format!(
        "FROM localhost/busybox AS one\nRUN {a}{b}{wait} {run}\n\
        FROM localhost/busybox AS two\nRUN {b}{a}{wait} {run}\n\
        FROM localhost/busybox AS three\nRUN {a}{b}{wait} {run}\n\
        FROM localhost/busybox\nCOPY --from=one /out /1\nCOPY --from=two /out /2\nCOPY --from=three /out /3\n\
        RUN {a}{b}{again}cat /a/count /b/count /c/count | wc -l > /out\n\
        RUN {private}echo x >> /p/count\nRUN {private}echo x >> /p/count; wc -l < /p/count >> /out\n",
        again = mount("a", "/c", "locked")
    );
    let dir = context(&[("Dockerfile", &dockerfile)]);
    let mut client = command(&d, dir.path(), &["-t", "it"]);
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let started = || {
        let mounts = std::fs::read_dir(d.path("root/build")).into_iter().flatten().flatten();
        mounts.map(|mount| mount.path()).find(|mount| mount.join("started").exists())
    };
    let mount = loop {
        if let Some(mount) = started() {
            break mount;
        }
        assert!(Instant::now() < end, "no step has begun\n{}", d.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    d.ok(&["builder", "prune", "-af"]);
    std::fs::write(mount.join("go"), "").unwrap();
    let said: Said = client.wait_with_output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}\n{}", d.log());
    assert_eq!(d.ok(&["run", "--rm", "it", "cat", "/out"]), "9\n2");
    d.ok(&["builder", "prune", "-af"]);
    assert_eq!(std::fs::read_dir(d.path("root/build")).unwrap().count(), 0);
}

#[test]
fn a_build_that_fails_or_is_given_up_names_the_place_and_leaves_nothing() {
    let mut d = Daemon::start();
    let dir =
        context(&[("Dockerfile", "FROM localhost/busybox\nENV A=1\n\nRUN echo before; \\\n  exit 3\n")]);
    let said = try_build(&d, dir.path(), &["--force-rm"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("before") && said.err.contains("returned a non-zero code: 3"), "{said:?}");
    assert!(said.err.contains("Dockerfile:4: RUN echo before;"), "{said:?}");
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let bad = context(&[("Dockerfile", "FROM localhost/busybox\nRUM x\n")]);
    let said = try_build(&d, bad.path(), &[]);
    assert!(said.code == 1 && said.err.contains("line 2") && said.err.contains("RUM"), "{said:?}");
    let slow = context(&[("Dockerfile", "FROM localhost/busybox\nRUN echo started; sleep 1000\n")]);
    let begin = |d: &Daemon| {
        use std::io::BufRead;
        let mut client =
            command(d, slow.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(client.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "started"), "{}", d.log());
        client
    };
    let mut client = begin(&d);
    // `timeout` passes it on to the client.
    Command::new("kill").args(["-INT", &client.id().to_string()]).status().unwrap();
    client.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let scratch = |d: &Daemon| std::fs::read_dir(d.path("root/tmp")).unwrap().count();
    while !d.ok(&["ps", "-aq"]).is_empty() || scratch(&d) > 0 {
        assert!(
            Instant::now() < end,
            "the container or directory of a build that was given up is left\n{}",
            d.log()
        );
        // The client is gone before the daemon knows.
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut client = begin(&d);
    d.stop(true);
    client.wait().unwrap();
    d.again();
    assert_eq!(d.ok(&["ps", "-aq"]), "");
    let left: Vec<_> = std::fs::read_dir(d.path("root/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn windows_images_are_built_and_feed_linux_stages() {
    let d = Daemon::windows();
    d.import_busybox();
    let dockerfile = format!(
        r#"# escape=`
FROM localhost/busybox AS linux
RUN echo from linux > /file
FROM {NANOSERVER} AS windows
WORKDIR C:\app
COPY --from=linux /file ./
COPY here.txt C:\app\sub\
RUN reg add HKLM\Software\Mine /v a /d built /f
RUN setx /M EXTRA value
ENV PATH="C:\app;${{PATH}}" NAME=x
RUN echo %NAME%> made.txt
USER ContainerUser
CMD type made.txt & type sub\here.txt & type file
FROM localhost/busybox
COPY --from=windows C:\app\made.txt /from-windows
CMD ["cat", "/from-windows"]
"#
    );
    let dir = context(&[("Dockerfile", &dockerfile), ("here.txt", "from the context\n")]);
    build(&d, dir.path(), &["-t", "windows", "--target", "windows"]);
    let clean =
        |out: String| out.replace('\r', "").lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(clean(d.ok(&["run", "--rm", "windows"])), ["x", "from the context", "from linux"]);
    let out = d.ok(&["run", "--rm", "windows", "cmd", "/c", "echo %USERNAME% & path"]);
    assert!(out.contains("ContainerUser") && out.contains("C:\\app;"), "{out}");
    let out =
        d.ok(&["run", "--rm", "windows", "cmd", "/c", "reg query HKLM\\Software\\Mine & echo EXTRA=%EXTRA%"]);
    assert!(out.contains("built") && out.contains("EXTRA=value"), "{out}");
    let out = build(&d, dir.path(), &["-t", "linux"]);
    assert_eq!(counts(&out).1, 0, "{out}");
    assert_eq!(clean(d.ok(&["run", "--rm", "linux"])), ["x"]);
    if only_under("process", "the daemon's own isolation is asked for otherwise there") {
        let out = build(&d, dir.path(), &["--isolation", "process", "--target", "windows"]);
        assert_eq!(counts(&out).1, 0, "{out}");
    }
}
