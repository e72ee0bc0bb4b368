//! What a build's steps have that no image keeps: secrets and other mounts; and what is told of a Dockerfile beside its result.

use std::io::Write;
use std::process::{Command, Stdio};

use silo_tests::builds::{context, counts};
use silo_tests::images::tar;
use silo_tests::{Daemon, Said};

const SECRET: &str = "correct horse battery staple";

fn build(d: &Daemon, path: &str, options: &[&str]) -> Said {
    d.docker(&[&["build"][..], options, &[path]].concat())
}

/// Whether a file below a directory has these bytes; disks of machines are no such files.
fn holds(directory: &std::path::Path, words: &str) -> bool {
    let script = "find \"$1\" -type f -size -64M -exec grep -laF -- \"$2\" {} +";
    let mut command = Command::new("sh");
    let found = command.args(["-c", script, "sh", directory.to_str().unwrap(), words]).output().unwrap();
    !found.stdout.is_empty()
}

#[test]
fn secrets_are_had_by_their_step_alone() {
    let d = Daemon::start();
    let dockerfile = "FROM localhost/busybox\n\
        RUN --mount=type=secret,id=one wc -c < /run/secrets/one > /out; stat -c '%a %u %g' /run/secrets/one >> /out; \
            ! echo x > /run/secrets/one\n\
        RUN --mount=type=secret,id=one,target=/root/.token,mode=0440,uid=1000,gid=7,required \
            stat -c '%a %u %g' /root/.token >> /out; md5sum < /root/.token >> /out; ls -A /root >> /out\n\
        RUN --mount=type=secret,id=one,env=TOKEN --mount=type=secret,id=two,env=OTHER,dst=/two \
            echo \"$TOKEN\" | wc -c >> /out; test \"$OTHER\" = \"$(cat /two)\" && ! test -e /run/secrets && echo $OTHER >> /out\n\
        RUN test -z \"$TOKEN$OTHER\" && ! test -e /two && find /root /run 2>/dev/null | sort >> /out\n";
    let dir = context(&[
        ("Dockerfile", dockerfile),
        ("secret-of-the-test", SECRET),
        ("left", ""),
        (".dockerignore", "secret*\n"),
    ]);
    let path = dir.path().to_str().unwrap();
    let file = format!("id=one,src={}", dir.path().join("secret-of-the-test").display());
    let silo =
        |options: &[&str]| d.silo(&[&["build"][..], options, &["--secret", file.as_str(), path]].concat());
    // A part of the other secret may be told: it is not the one that is looked for.
    let said = silo(&["-t", "it", "--secret", "id=two,env=USER_OF_TEST"]);
    assert!(said.code != 0 && said.err.contains("USER_OF_TEST"), "{said:?}");
    std::fs::write(dir.path().join("secret-two"), "two").unwrap();
    let two = format!("id=two,src={}", dir.path().join("secret-two").display());
    let said = silo(&["-t", "it", "--secret", &two]);
    assert!(said.code == 0 && said.out.contains("Successfully tagged it"), "{said:?}\n{}", d.log());
    let sum = Command::new("sh").args(["-c", &format!("printf %s '{SECRET}' | md5sum")]).output().unwrap();
    let sum = String::from_utf8_lossy(&sum.stdout).trim().to_owned();
    let out = d.ok(&["run", "--rm", "it", "cat", "/out"]);
    let length = SECRET.len();
    assert_eq!(out, format!("{length}\n400 0 0\n440 1000 7\n{sum}\n.token\n{}\ntwo\n/root", length + 1));
    // Nothing that lasts has it: layers, records, database, log.
    assert!(
        !holds(&d.path("root"), SECRET) && !holds(&d.path("run"), SECRET),
        "a secret is left\n{}",
        d.log()
    );
    assert!(!d.log().contains(SECRET) && !said.out.contains(SECRET));
    // It is no part of a step's key; what is not there is an error only where it is required.
    std::fs::write(dir.path().join("secret-of-the-test"), "another").unwrap();
    assert_eq!(counts(&silo(&["--secret", &two]).out), (4, 0));
    let said = build(&d, path, &["--no-cache"]);
    assert!(said.code != 0 && said.err.contains("secret one: not found"), "{said:?}");
    let required =
        context(&[("Dockerfile", "FROM localhost/busybox\nRUN --mount=type=secret,id=one,required true\n")]);
    let said = build(&d, required.path().to_str().unwrap(), &[]);
    assert!(
        said.code != 0 && said.err.contains("secret one: not found (Dockerfile:2: RUN --mount"),
        "{said:?}"
    );
    // One that fails leaves a container without it.
    let failing = context(&[(
        "Dockerfile",
        "FROM localhost/busybox\nRUN --mount=type=secret,id=one,env=TOKEN --mount=type=secret,id=one exit 9\n",
    )]);
    std::fs::write(dir.path().join("secret-of-the-test"), SECRET).unwrap();
    let said = d.silo(&["build", "--secret", &file, failing.path().to_str().unwrap()]);
    assert!(said.code != 0 && said.err.contains("code: 9"), "{said:?}");
    let left = d.ok(&["ps", "-aq"]);
    assert!(!d.ok(&["inspect", &left]).contains(SECRET) && !holds(&d.path("root"), SECRET));
    let (status, body) = d.request("POST /build?remote=x HTTP/1.1\r\nX-Silo-Build-Secrets: %%%\r\nX-Rest:");
    assert!(status == 400 && body.contains("invalid X-Silo-Build-Secrets header"), "{status} {body}");
}

#[test]
fn a_step_that_failed_can_be_started_again() {
    let d = Daemon::start();
    let dockerfile = "FROM localhost/busybox AS other\nRUN echo of the stage > /file\n\
        FROM localhost/busybox\n\
        RUN --mount=target=/context --mount=type=cache,target=/cache --mount=type=tmpfs,target=/memory \
            --mount=from=other,source=/file,target=/file cat /file; ls /context /cache; touch /memory/x; exit 5\n";
    let dir = context(&[("Dockerfile", dockerfile)]);
    let said = build(&d, dir.path().to_str().unwrap(), &[]);
    assert_eq!(said.code, 5, "{said:?}");
    let left = d.ok(&["ps", "-aq"]);
    let said = d.docker(&["start", "-a", &left]);
    assert!(said.code == 5 && said.out.contains("of the stage"), "{said:?}\n{}", d.log());
    d.ok(&["rm", &left]);
    let script = context(&[(
        "Dockerfile",
        "FROM localhost/busybox\nRUN <<EOF\n#!/bin/sh\necho by a script\nexit 6\nEOF\n",
    )]);
    assert_eq!(build(&d, script.path().to_str().unwrap(), &[]).code, 6);
    let said = d.docker(&["start", "-a", &d.ok(&["ps", "-aq"])]);
    assert!(said.code == 6 && said.out == "by a script", "{said:?}\n{}", d.log());
}

/// An image for Windows of these files, which runs nothing here.
fn import_windows(d: &Daemon, files: &[(&str, &[u8])]) {
    let path = d.path("windows.tar");
    std::fs::write(&path, tar(files)).unwrap();
    d.ok(&["import", "--platform", "windows/amd64", path.to_str().unwrap(), "win:1"]);
}

#[test]
fn sources_of_mounts_are_paths_and_no_patterns() {
    let d = Daemon::start();
    import_windows(&d, &[("Dir/File.txt", &b"of windows"[..])]);
    let dockerfile = "# escape=`\nFROM win:1 AS win\nFROM localhost/busybox\n\
        RUN --mount=source=a*[b],target=/f --mount=source=a*[b]/../dir,target=/d cat /f /d/x > /out\n\
        RUN --mount=from=win,source=C:\\dir\\FILE.TXT,target=/f --mount=from=win,source=\\Dir,target=/d cat /f /d/File.txt >> /out\n";
    let dir = context(&[
        ("Dockerfile", dockerfile),
        ("a*[b]", "star\n"),
        ("axb", "pattern\n"),
        ("dir/x", "in dir\n"),
    ]);
    let path = dir.path().to_str().unwrap();
    let said = build(&d, path, &["-t", "it"]);
    assert_eq!(said.code, 0, "{said:?}\n{}", d.log());
    assert_eq!(d.ok(&["run", "--rm", "it", "cat", "/out"]), "star\nin dir\nof windowsof windows");
    // Only the file that is shown counts.
    std::fs::write(dir.path().join("axb"), "other").unwrap();
    assert_eq!(counts(&build(&d, path, &[]).out), (2, 0));
    let missing = context(&[
        ("Dockerfile", "FROM localhost/busybox\nRUN --mount=source=no*,target=/f cat /f\n"),
        ("not", ""),
    ]);
    let said = build(&d, missing.path().to_str().unwrap(), &[]);
    assert!(said.code != 0 && said.err.contains("no*"), "{said:?}");
}

#[test]
fn a_platform_is_the_images_where_nobody_asks_for_one() {
    let d = Daemon::start();
    import_windows(&d, &[("x", &b""[..])]);
    let dockerfile =
        "FROM win:1\nARG TARGETOS TARGETPLATFORM BUILDOS\nLABEL all=\"$TARGETOS $TARGETPLATFORM $BUILDOS\"\n";
    let dir = context(&[("Dockerfile", dockerfile)]);
    let said = build(&d, dir.path().to_str().unwrap(), &["-t", "it"]);
    assert_eq!(said.code, 0, "{said:?}");
    let label = d.ok(&["image", "inspect", "-f", "{{index .Config.Labels \"all\"}}", "it"]);
    assert_eq!(label, "windows windows/amd64 linux");
}

#[test]
fn a_device_is_no_dockerfile() {
    let d = Daemon::start();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(5).unwrap();
    header.set_device_minor(2).unwrap();
    header.set_mode(0o666);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    archive.append_data(&mut header, "Dockerfile", &b""[..]).unwrap();
    let mut client = d.command(&["build", "-"]);
    let mut client =
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(&archive.into_inner().unwrap()).unwrap();
    let said: Said = client.wait_with_output().unwrap().into();
    assert!(said.code != 0 && said.err.contains("Dockerfile is no file"), "{said:?}");
}

#[test]
fn what_is_likely_not_meant_is_told() {
    let d = Daemon::start();
    let dockerfile = |check: &str| {
        format!(
            "{check}FROM localhost/busybox as Base\nENV API_KEY x\nWORKDIR app\ncopy $NOTHING$PATHH* .\nCMD echo $HOME\n"
        )
    };
    let dir = context(&[("Dockerfile", &dockerfile(""))]);
    let path = dir.path().to_str().unwrap();
    let told = |out: &str| -> Vec<String> {
        let lines = out.lines().filter_map(|line| line.strip_prefix(" - "));
        lines.map(|line| line.trim_end().to_owned()).collect()
    };
    let said = build(&d, path, &["-t", "it"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.contains("Successfully tagged it") && said.out.contains(" 9 warnings found:"),
        "{}",
        said.out
    );
    assert_eq!(
        told(&said.out),
        [
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (Dockerfile:1)",
            "StageNameCasing: Stage name 'Base' should be lowercase (Dockerfile:1)",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (Dockerfile:2)",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\") (Dockerfile:2)",
            "WorkdirRelativePath: Relative workdir \"app\" can have unexpected results if the base image changes (Dockerfile:3)",
            "ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase) (Dockerfile:4)",
            "UndefinedVar: Usage of undefined variable '$NOTHING' (Dockerfile:4)",
            "UndefinedVar: Usage of undefined variable '$PATHH' (did you mean $PATH?) (Dockerfile:4)",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (Dockerfile:5)",
        ]
    );
    assert!(build(&d, path, &["-q"]).out.starts_with("sha256:"));
    let with = |check: &str, options: &[&str]| {
        std::fs::write(dir.path().join("Dockerfile"), dockerfile(check)).unwrap();
        build(&d, path, options)
    };
    let said = with("# check=skip=all\n", &[]);
    assert!(said.code == 0 && told(&said.out).is_empty(), "{said:?}");
    let most = "# check=skip=FromAsCasing,StageNameCasing,LegacyKeyValueFormat,SecretsUsedInArgOrEnv,WorkdirRelativePath,\
        ConsistentInstructionCasing,JSONArgsRecommended";
    let said = with(&format!("{most}\n"), &[]);
    assert!(said.code == 0 && told(&said.out).len() == 2, "{said:?}");
    // As an error: before anything runs, or where the variable is used.
    let said = with("# check=error=true\n", &[]);
    assert!(
        said.code != 0 && said.err.contains("lint violation found for rules: ConsistentInstructionCasing, "),
        "{said:?}"
    );
    assert!(!said.out.contains("Step 1/") && told(&said.out).len() == 7, "{said:?}");
    let said = with(&format!("{most};error=true\n"), &[]);
    let why = "lint violation found for rules: UndefinedVar (Dockerfile:5: copy";
    assert!(said.code != 0 && said.err.contains(why) && told(&said.out).len() == 2, "{said:?}");
    let said = with("", &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]);
    assert!(said.code == 0 && told(&said.out).is_empty() && !said.out.contains("not consumed"), "{said:?}");
    let said = with("# check=nonsense\n", &[]);
    assert!(said.code != 0 && said.err.contains("invalid check option \"nonsense\""), "{said:?}");
}
