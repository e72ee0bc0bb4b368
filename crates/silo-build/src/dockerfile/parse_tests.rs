//! What the parser makes of Dockerfiles.

use super::ast::{Command, Dockerfile, Healthcheck, Instruction, MountKind, Sharing, Source};
use super::{parse, parse_steps};

/// The instructions of the only stage of `FROM scratch` and a text.
fn steps(text: &str) -> Vec<Instruction> {
    file(&format!("FROM scratch\n{text}")).stages.remove(0).steps.into_iter().map(|s| s.instruction).collect()
}

fn file(text: &str) -> Dockerfile {
    parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

/// The one instruction of a text.
fn one(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{steps:?}");
    steps.remove(0)
}

fn check(text: &str, expected: Instruction) {
    assert_eq!(one(text), expected, "{text:?}");
}

/// The text after `FROM scratch` is refused with these words.
fn refused(text: &str, expected: &str) {
    refused_file(&format!("FROM scratch\n{text}"), &format!("dockerfile parse error on line 2: {expected}"));
}

fn refused_file(text: &str, expected: &str) {
    let error = parse(text.as_bytes()).map(|f| panic!("{f:?}")).unwrap_err();
    assert_eq!(error.to_string(), expected, "{text:?}");
}

fn shell(text: &str) -> Command {
    Command::Shell(text.to_owned())
}

fn exec(words: &[&str]) -> Command {
    Command::Exec(strings(words))
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn stages_have_images_names_platforms_and_lines() {
    let file = file(
        "# a comment\nARG a=1\narg b\n\nFROM --platform=$BUILDPLATFORM alpine:$a AS Base\nRUN \\\n x\nfrom base\n",
    );
    assert_eq!(file.arguments.len(), 2);
    assert_eq!(file.arguments[1].1.first, 3);
    let [base, last] = file.stages.as_slice() else { panic!("{:?}", file.stages) };
    assert_eq!((base.from.as_str(), base.name.as_deref()), ("alpine:$a", Some("base")));
    assert_eq!((base.platform.as_deref(), base.lines.first), (Some("$BUILDPLATFORM"), 5));
    assert_eq!((base.steps[0].lines.first, base.steps[0].lines.last), (6, 7));
    assert_eq!(base.steps[0].text, "RUN  x");
    assert_eq!((last.from.as_str(), last.name.as_deref(), last.text.as_str()), ("base", None, "from base"));
    let texts: Vec<_> = file.global_steps().into_iter().map(|s| s.text).collect();
    assert_eq!(texts, ["ARG a=1", "ARG b"]);
}

#[test]
fn lines_are_continued_over_comments_and_the_escape_character_is_the_files() {
    check("RUN a \\\n# no \\\n   # no\n  b \\  \n\tc", Instruction::Run(run(shell("a   b \tc"))));
    check("RUN a \\\\", Instruction::Run(run(shell("a \\\\"))));
    check("RUN a\\", Instruction::Run(run(shell("a"))));
    let windows = file("#escape=`\r\nFROM x\r\nRUN a `\r\n  b c:\\\r\nCOPY a C:\\\r\n");
    assert_eq!(windows.escape, '`');
    assert_eq!(windows.stages[0].steps[0].text, "RUN a   b c:\\");
    assert!(matches!(&windows.stages[0].steps[1].instruction, Instruction::Copy(t) if t.target == "C:\\"));
    // Only at the head of the file, before any other comment.
    assert_eq!(file("# x\n# escape=`\nFROM x").escape, '\\');
    assert_eq!(
        file("\u{feff}# Syntax = docker/dockerfile:1\n#check=skip=all\n# ESCAPE = ` \nFROM x").escape,
        '`'
    );
    refused_file(
        "#escape=x\nFROM x",
        "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\",
    );
    refused_file(
        "#escape=`\n#escape=`\n",
        "dockerfile parse error on line 2: only one escape parser directive can be used",
    );
    let empty = file("FROM x\nRUN a \\\n\n  b\n");
    assert_eq!(empty.stages[0].steps[0].text, "RUN a   b");
    assert_eq!(empty.warnings.len(), 2);
    assert_eq!(empty.warnings[0].0, "Empty continuation line found in: RUN a   b");
}

fn run(command: Command) -> super::ast::Run {
    super::ast::Run {
        command,
        heredocs: Vec::new(),
        mounts: Vec::new(),
        mount_flags: Vec::new(),
        network: Default::default(),
        security: None,
    }
}

#[test]
fn commands_are_json_or_text() {
    check("RUN [\"a\", \"b c\\n\"]", Instruction::Run(run(exec(&["a", "b c\n"]))));
    check("RUN [ \"$x\" = 1 ] && y", Instruction::Run(run(shell("[ \"$x\" = 1 ] && y"))));
    check("CMD ['a']", Instruction::Cmd(shell("['a']")));
    check("CMD", Instruction::Cmd(shell("")));
    check("CMD []", Instruction::Cmd(exec(&[])));
    check("entrypoint", Instruction::Entrypoint(exec(&[])));
    check("ENTRYPOINT [\"C:\\\\a.exe\"]", Instruction::Entrypoint(exec(&["C:\\a.exe"])));
    check("ENTRYPOINT [\"C:\\app.exe\"]", Instruction::Entrypoint(shell("[\"C:\\app.exe\"]")));
    refused("CMD [\"a\", 1]", "CMD: when using JSON array syntax, arrays must be comprised of strings only");
    check("SHELL [\"a\", \"-c\"]", Instruction::Shell(strings(&["a", "-c"])));
    refused("SHELL a -c", "SHELL requires the arguments to be in JSON form");
    refused("SHELL []", "SHELL requires at least one argument");
}

#[test]
fn pairs_words_and_plain_arguments() {
    check(
        "ENV a=1 b='x y' c=z\\ z \"d e\"=\"f\"",
        Instruction::Env(pairs(&[("a", "1"), ("b", "'x y'"), ("c", "z\\ z"), ("\"d e\"", "\"f\"")])),
    );
    check("ENV a  b=1 c ", Instruction::Env(pairs(&[("a", "b=1 c")])));
    check("LABEL \"a\"=\"b\" c=", Instruction::Label(pairs(&[("\"a\"", "\"b\""), ("c", "")])));
    refused("ENV a", "ENV must have two arguments");
    refused("ENV", "ENV requires at least one argument");
    refused("ENV a=1 b", "ENV: Syntax error - can't find = in \"b\". Must be of the form: name=value");
    refused("LABEL =1", "LABEL names can not be blank");
    check("EXPOSE 90/udp  80-82\t$p", Instruction::Expose(strings(&["$p", "80-82", "90/udp"])));
    check("VOLUME [\"/a b\", \"/c\"]", Instruction::Volume(strings(&["/a b", "/c"])));
    check("VOLUME /a C:\\b", Instruction::Volume(strings(&["/a", "C:\\b"])));
    refused("VOLUME [\"\"]", "VOLUME specified can not be an empty string");
    check("WORKDIR /a b/", Instruction::Workdir("/a b/".into()));
    check("USER a:b", Instruction::User("a:b".into()));
    check("STOPSIGNAL SIGINT", Instruction::Stopsignal("SIGINT".into()));
    check("MAINTAINER a <b>", Instruction::Maintainer("a <b>".into()));
    refused("USER", "USER requires exactly one argument");
    let Instruction::Arg(list) = one("ARG a b=\"c d\" e=") else { panic!() };
    let list: Vec<_> = list.iter().map(|a| (a.name.as_str(), a.default.as_deref())).collect();
    assert_eq!(list, [("a", None), ("b", Some("\"c d\"")), ("e", Some(""))]);
    refused("ARG =x", "ARG names can not be blank");
}

#[test]
fn files_come_from_paths_and_heredocs_with_flags() {
    let text = "COPY --from=0 --chown=a:b --chmod=755 --link --parents --exclude=x --exclude=*.o a 'b' /c";
    let Instruction::Copy(copy) = one(text) else { panic!() };
    assert_eq!(copy.sources, [Source::Path("a".into()), Source::Path("'b'".into())]);
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("0"), Some("a:b"), Some("755"))
    );
    assert!(copy.link && copy.parents);
    assert_eq!((copy.target.as_str(), copy.exclude), ("/c", strings(&["x", "*.o"])));
    let text =
        "ADD --checksum=sha256:0 --keep-git-dir=true --unpack=false --link=false [\"http://a/b\", \"/c d\"]";
    let Instruction::Add(add) = one(text) else { panic!() };
    assert_eq!(
        (add.checksum.as_deref(), add.unpack, add.keep_git_dir, add.link),
        (Some("sha256:0"), Some(false), true, false)
    );
    assert_eq!((add.sources.len(), add.target.as_str()), (1, "/c d"));
    refused(
        "COPY a",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    );
    refused(
        "ADD",
        "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
    );
    refused("COPY --fro=x a b", "COPY: unknown flag: --fro (did you mean from?)");
    refused("ADD --from=x a b", "ADD: unknown flag: --from");
    refused("COPY --chown a b", "COPY: missing a value on flag: --chown");
    refused("COPY --link=1 a b", "COPY: expecting boolean value for flag --link, not: 1");
    refused("COPY --from=a --from=b a b", "COPY: duplicate flag specified: --from");
    refused("CMD --x a", "CMD: unknown flag: --x");

    let both = steps("COPY <<a <<-\"b\" x /d/\n1 $v\n\ta\na\n\t2\n\tb\nRUN y\n");
    let Instruction::Copy(copy) = &both[0] else { panic!() };
    let [Source::Heredoc(a), Source::Heredoc(b), Source::Path(x)] = copy.sources.as_slice() else {
        panic!("{copy:?}")
    };
    assert_eq!((a.name.as_str(), a.body.as_str(), a.expand), ("a", "1 $v\n\ta\n", true));
    assert_eq!((b.name.as_str(), b.body.as_str(), b.expand), ("b", "2\n", false));
    assert_eq!((x.as_str(), &both[1]), ("x", &Instruction::Run(run(shell("y")))));
    refused("COPY a <<b\nb\n", "COPY cannot accept a heredoc as a destination");
    refused("COPY <<b /x\nc\n", "COPY: unterminated heredoc");
}

#[test]
fn run_has_heredocs_mounts_and_a_network() {
    let Instruction::Run(script) = one("RUN <<EOF cat > /a && 3<<-'B' tee\na # b\nEOF\n\tc\n\tB") else {
        panic!()
    };
    assert_eq!(script.command, shell("<<EOF cat > /a && 3<<-'B' tee"));
    let bodies: Vec<_> = script.heredocs.iter().map(|h| (h.name.as_str(), h.body.as_str())).collect();
    assert_eq!(bodies, [("EOF", "a # b\n"), ("B", "c\n")]);
    // Neither a shift nor a here-string, nor what is quoted.
    for text in ["RUN echo $((1<<2))", "RUN cat <<<x", "RUN echo '<<x'", "RUN echo \"a <<b c\""] {
        let Instruction::Run(run) = one(&format!("{text}\n")) else { panic!() };
        assert!(run.heredocs.is_empty(), "{run:?}");
    }
    let text = "RUN --network=none --security=insecure --mount=type=cache,target=/c,sharing=locked,uid=5,mode=0700,ro \
                --mount=from=b,src=/s,dst=d,rw --mount=type=tmpfs,target=/t,size=64m \
                --mount=type=secret,id=k,required=true,env=K --mount=type=ssh --mount=type=cache,target=$x make it";
    let Instruction::Run(run) = one(text) else { panic!() };
    assert_eq!((run.command, run.network), (shell("make it"), super::ast::RunNetwork::None));
    assert_eq!((run.security.as_deref(), run.mount_flags.len(), run.mounts.len()), (Some("insecure"), 6, 5));
    let MountKind::Cache { sharing, uid, mode, read_only, id: None, .. } = &run.mounts[0].kind else {
        panic!()
    };
    assert_eq!((*sharing, *uid, *mode, *read_only), (Sharing::Locked, 5, 0o700, true));
    assert_eq!(run.mounts[0].target.as_deref(), Some("/c"));
    let bind = MountKind::Bind { from: Some("b".into()), source: "/s".into(), writable: true };
    assert_eq!((&run.mounts[1].kind, run.mounts[1].target.as_deref()), (&bind, Some("d")));
    assert_eq!(run.mounts[2].kind, MountKind::Tmpfs { size: Some(64 << 20) });
    assert!(
        matches!(&run.mounts[3].kind, MountKind::Secret { id, env: Some(env), required: true, mode: 0o400, .. } if id == "k" && env == "K")
    );
    assert!(matches!(&run.mounts[4].kind, MountKind::Ssh { id, required: false } if id == "default"));
    for (mount, why) in [
        ("type=bnd", "RUN: unsupported mount type \"bnd\" (did you mean bind?)"),
        ("type=bind,taget=/a", "RUN: unexpected key 'taget' in 'taget=/a' (did you mean target?)"),
        ("type=bind,mode=1", "RUN: mode not allowed for \"bind\" type mounts"),
        ("type=bind,uid=x", "RUN: invalid value x for uid"),
        ("type=bind,size=1", "RUN: unexpected key 'size' for mount type 'bind'"),
        ("type=secret", "RUN: invalid secret mount. one of source, target required"),
        ("type=tmpfs,sharing=shared", "RUN: invalid cache sharing set for tmpfs mount"),
        ("target", "RUN: invalid field 'target' must be a key=value pair"),
        ("from=$x,target=/a", "RUN: 'from' doesn't support variable expansion, define alias stage instead"),
    ] {
        refused(&format!("RUN --mount={mount} x"), why);
    }
    refused("RUN --network=x y", "RUN: invalid network mode \"x\"");
    refused("RUN --mont=x y", "RUN: unknown flag: --mont (did you mean mount?)");
}

#[test]
fn health_checks_have_options() {
    let text = "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0 --start-interval=2s --retries=3 CMD curl -f x";
    check(
        text,
        Instruction::Healthcheck(Healthcheck::Check {
            command: shell("curl -f x"),
            interval: 90_000_000_000,
            timeout: 500_000_000,
            start_period: 0,
            start_interval: 2_000_000_000,
            retries: 3,
        }),
    );
    check("healthcheck none", Instruction::Healthcheck(Healthcheck::None));
    refused("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
    refused("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
    refused("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
    refused("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)");
    refused("HEALTHCHECK --interval=10 CMD x", "HEALTHCHECK: time: invalid duration \"10\"");
    refused("HEALTHCHECK --interval=1us CMD x", "HEALTHCHECK: Interval \"interval\" cannot be less than 1ms");
    refused("HEALTHCHECK --retries=-1 CMD x", "HEALTHCHECK: --retries cannot be negative (-1)");
}

#[test]
fn triggers_are_checked_when_they_are_declared() {
    check("ONBUILD COPY --from=a b c", Instruction::Onbuild("COPY --from=a b c".into()));
    check("ONBUILD RUN <<E\na\nE", Instruction::Onbuild("RUN <<E\na\nE".into()));
    let steps = parse_steps(b"RUN <<E\na\nE").unwrap();
    assert!(matches!(&steps[0].instruction, Instruction::Run(run) if run.heredocs[0].body == "a\n"));
    refused("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    refused("onbuild from a", "FROM isn't allowed as an ONBUILD trigger");
    refused("ONBUILD FOO a", "ONBUILD: unknown instruction: FOO (did you mean FROM?)");
    refused("ONBUILD", "ONBUILD requires at least one argument");
}

#[test]
fn errors_say_where_and_what_in_dockerds_words() {
    refused("CPOY a b", "unknown instruction: CPOY (did you mean COPY?)");
    refused("cpoy a b", "unknown instruction: cpoy (did you mean copy?)");
    refused("FROM a b", "FROM requires either one or three arguments");
    refused(
        "FROM a AS 1b",
        "FROM: invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
    );
    refused_file("# x\n\nRUN a", "dockerfile parse error on line 3: RUN: no build stage in current context");
    refused_file("# x\n", "dockerfile parse error on line 1: file with no instructions");
    refused_file("", "file with no instructions");
    refused_file("ARG a", "dockerfile parse error on line 1: dockerfile contains no stages to build");
    refused_file(
        "FROM x\nRUN a \\\n b\n\nFOO \\\n x",
        "dockerfile parse error on line 5: unknown instruction: FOO (did you mean FROM?)",
    );
    let long = format!("FROM x\nRUN {}", "a".repeat(70_000));
    refused_file(
        &long,
        "dockerfile parse error on line 2: dockerfile line greater than max allowed size of 65535",
    );
    let many = "RUN a\n".repeat(10_001);
    let error = parse(format!("FROM x\n{many}").as_bytes()).unwrap_err().to_string();
    assert!(error.ends_with("RUN: more than 10000 instructions"), "{error}");
    assert!(parse(b"FROM x\nRUN \xff").unwrap_err().to_string().ends_with("line 2: line is not UTF-8"));
    assert!(parse(b"# \xe9t\xe9\nFROM x").is_ok());
}
