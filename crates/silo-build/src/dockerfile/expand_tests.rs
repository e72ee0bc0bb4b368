//! What variables, arguments and shells make of instructions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::Instruction;
use super::{
    Globals, Program, Scope, Shell, comment, nop_history, parse, parse_steps, run_history, transfer_history,
};

fn globals(given: &[(&str, &str)]) -> Arc<Globals> {
    let given = given.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect();
    Arc::new(Globals::new(given, BTreeMap::from([("TARGETARCH", "amd64".to_owned())])))
}

fn environment() -> Vec<String> {
    ["a=1", "empty=", "list=80 443/udp", "path=/usr/a.tar.gz", "Name=N"].map(str::to_owned).to_vec()
}

fn scope(escape: char, case_sensitive: bool) -> Scope {
    Scope::new(&globals(&[]), escape, &environment(), case_sensitive)
}

/// A `USER` of `word`, expanded.
fn word(word: &str, scope: &Scope) -> Result<String, String> {
    match Instruction::User(word.to_owned()).expand(scope)? {
        Instruction::User(out) => Ok(out),
        other => panic!("{other:?}"),
    }
}

fn check(text: &str, expected: &str) {
    assert_eq!(word(text, &scope('\\', true)).as_deref(), Ok(expected), "{text:?}");
}

fn refused(text: &str, why: &str) {
    let expected = format!("failed to process \"{}\": {why}", text.replace('"', "\\\""));
    assert_eq!(word(text, &scope('\\', true)), Err(expected), "{text:?}");
}

#[test]
fn variables_have_all_forms() {
    for (text, expected) in [
        ("$a${a}$b${b}-$ac$a.", "11-1."),
        ("${a:-x}${empty:-x}${empty-x}${b-x}${b:-x}", "1xxx"),
        ("${a:+x}${empty:+x}${empty+x}${b+x}", "xx"),
        ("${b:-${a}$a}${b:-'$a'}${b:-\"$a\"}", "11$a1"),
        ("${b:-a b}", "a b"),
        ("${a:?x}${empty?x}", "1"),
        ("${path#*/}-${path##*/}-${path%.*}-${path%%.*}", "usr/a.tar.gz-a.tar.gz-/usr/a.tar-/usr/a"),
        ("${path#x}${path%?}", "/usr/a.tar.gz/usr/a.tar.g"),
        ("${path/a/b}-${path//a/b}-${path//[.]/b}", "/usr/b.tar.gz-/usr/b.tbr.gz-/usr/a.tar.gz"),
        ("${path/a*r/x}${path//\\//-}${b/a/b}", "/usr/x.gz-usr-a.tar.gz"),
        ("'$a' \"$a\" \\$a \"\\$a\\x\" '\\'", "$a 1 $a $a\\x \\"),
        ("a$ $% \\", "a$ $% "),
        ("<<$a <", "<<1 <"),
        ("${a}'}'", "1}"),
        ("$1$@x", "x"),
    ] {
        check(text, expected);
    }
    refused("${a", "syntax error: missing '}'");
    refused("${a:-b", "syntax error: missing '}'");
    refused("${}", "syntax error: bad substitution");
    refused("${a~b}", "unsupported modifier (~) in substitution");
    refused("${a:#b}", "unsupported modifier (:#) in substitution");
    refused("${b:?}", "b: is not allowed to be unset");
    refused("${b?say so}", "b: say so");
    refused("${empty:?}", "empty: is not allowed to be empty");
    refused("'a", "unexpected end of statement while looking for matching single-quote");
    refused("\"a", "unexpected end of statement while looking for matching double-quote");
    let deep = format!("{}{}", "${b:-".repeat(1_000), "}".repeat(1_000));
    assert!(word(&deep, &scope('\\', true)).unwrap_err().ends_with("substitutions nested too deep"));
}

#[test]
fn the_escape_character_may_be_a_backtick_and_names_may_have_no_case() {
    let windows = scope('`', false);
    for (text, expected) in [
        ("C:\\app\\;${A}", "C:\\app\\;1"),
        ("\"C:\\a b\\$name\"", "C:\\a b\\N"),
        ("`$a %PATH% ``", "$a %PATH% `"),
        ("${NAME}${path##*/}", "Na.tar.gz"),
    ] {
        assert_eq!(word(text, &windows).as_deref(), Ok(expected), "{text:?}");
    }
    assert_eq!(scope('\\', true).get("name"), None);
    let mut windows = windows;
    windows.apply(&Instruction::Env(vec![("PATH".to_owned(), "C:\\".to_owned())])).unwrap();
    assert_eq!(windows.get("Path"), Some("C:\\"));
    assert_eq!(windows.environment()[3], "PATH=C:\\");
}

#[test]
fn instructions_are_expanded_as_far_as_they_are_no_shells() {
    let file = "ENV x=$a \"y z\"='$a' p=a\\ b\nENV o  q  r\nLABEL $a=\"$a b\"\nEXPOSE $list 90\nRUN echo $a\nCMD $a\nENTRYPOINT [\"$a\"]\nCOPY --chown=$a:$b --from=$a $path '$a' /$a/\nVOLUME [\"/$a\"]\nWORKDIR ${path}\nARG v=$a w\nSTOPSIGNAL $a\nSHELL [\"$a\"]\nONBUILD USER $a\nRUN --mount=type=$t,target=/$a,mode=7$b x\nCOPY <<E <<\"F\" /\n$a \"$a\" \\$a\nE\n$a\nF\n";
    let scope = scope('\\', true);
    let steps = parse_steps(file.replace("$t", "cache").as_bytes()).unwrap();
    let out: Vec<String> = steps.iter().map(|s| show(&s.expand(&scope).unwrap())).collect();
    let expected = [
        "ENV x=1 y z=$a p=a b",
        "ENV o=q  r",
        "LABEL 1=1 b",
        "EXPOSE 80 443/udp 90",
        "Run Shell(\"echo $a\")",
        "CMD [\"/bin/sh\" \"-c\" \"$a\"]",
        "ENTRYPOINT [\"$a\"]",
        "Copy [Path(\"/usr/a.tar.gz\"), Path(\"$a\")] /1/ Some(\"1:\") Some(\"$a\")",
        "VOLUME [/1]",
        "Workdir(\"/usr/a.tar.gz\")",
        "ARG v=1 w",
        "STOPSIGNAL 1",
        "SHELL [$a]",
        "ONBUILD USER $a",
        "Run Shell(\"x\")",
        "Copy [Heredoc(Heredoc { name: \"E\", body: \"1 \\\"1\\\" $a\\n\", expand: true }), Heredoc(Heredoc { name: \"F\", body: \"$a\\n\", expand: false })] / None None",
    ];
    assert_eq!(out, expected);
    let Instruction::Run(run) = steps[14].expand(&scope).unwrap() else { panic!() };
    assert_eq!(run.mounts[0].target.as_deref(), Some("/1"));
    let error = parse_steps(b"RUN a\nUSER ${b?}").unwrap()[1].expand(&scope).unwrap_err().to_string();
    let why = "failed to process \"${b?}\": b: is not allowed to be unset";
    assert_eq!(error, format!("dockerfile parse error on line 2: USER: {why}"));
}

fn show(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Copy(c) => format!("Copy {:?} {} {:?} {:?}", c.sources, c.target, c.chown, c.from),
        Instruction::Run(run) => format!("Run {:?}", run.command),
        other => comment(other, &sh()).unwrap_or_else(|| format!("{other:?}")),
    }
}

fn sh() -> Shell {
    Shell { words: vec!["/bin/sh".to_owned(), "-c".to_owned()], one_line: false }
}

fn cmd() -> Shell {
    Shell { words: ["cmd", "/S", "/C"].map(str::to_owned).to_vec(), one_line: true }
}

#[test]
fn what_comes_of_expansion_is_bounded() {
    let mut scope = scope('\\', true);
    let double = &parse_steps(b"ENV x=$x$x").unwrap()[0];
    scope.apply(&Instruction::Env(vec![("x".to_owned(), "x".repeat(1_000))])).unwrap();
    let error = (0..64)
        .find_map(|_| match double.expand(&scope) {
            Ok(out) => scope.apply(&out).err(),
            Err(e) => Some(e.to_string()),
        })
        .unwrap();
    assert!(error.contains("bytes"), "{error}");
    let many = format!("LABEL {}", (0..100).map(|i| format!("l{i}=$x ")).collect::<String>());
    let error = parse_steps(many.as_bytes()).unwrap()[0].expand(&scope).unwrap_err().to_string();
    assert!(error.contains("more than 16777216 bytes"), "{error}");
    let slow = "${x##*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*x*y}";
    assert!(word(slow, &scope).unwrap_err().ends_with("too long for a substitution"));
}

#[test]
fn arguments_are_in_effect_from_their_declaration_on() {
    let mut given = globals(&[("v", "given"), ("u", "unused"), ("http_proxy", "P"), ("a", "hidden")]);
    let before = &parse(b"ARG v=1\nARG g=${v}2\nARG arch=$TARGETARCH\nFROM x").unwrap().global_steps();
    for step in before {
        Arc::get_mut(&mut given).unwrap().declare(step, '\\').unwrap();
    }
    let from: Vec<_> = ["g", "arch", "http_proxy", "u", "TARGETARCH"].map(|n| given.get(n)).to_vec();
    assert_eq!(from, [Some("given2"), Some("amd64"), Some("P"), None, Some("amd64")]);

    let mut scope = Scope::new(&given, '\\', &environment(), true);
    assert_eq!((scope.get("v"), scope.get("g"), scope.get("http_proxy")), (None, None, Some("P")));
    assert_eq!(scope.recorded_arguments(), Some(vec![]));
    let run = ["/bin/sh".to_owned(), "-c".to_owned(), "x".to_owned()];
    assert_eq!(run_history(&run, scope.recorded_arguments().as_deref()), "|0 /bin/sh -c x");
    for step in parse_steps(b"ARG v=own\nARG g\nARG d=$v-d e\nARG a\nARG TARGETARCH\nENV d=env").unwrap() {
        let expanded = step.expand(&scope).unwrap();
        scope.apply(&expanded).unwrap();
    }
    let values: Vec<_> = ["v", "g", "d", "e", "a", "TARGETARCH"].map(|n| scope.get(n)).to_vec();
    assert_eq!(values, [Some("given"), Some("given2"), Some("env"), None, Some("1"), Some("amd64")]);
    let recorded = scope.recorded_arguments().unwrap();
    assert_eq!(recorded, ["TARGETARCH=amd64", "g=given2", "v=given"]);
    assert_eq!(run_history(&run, Some(&recorded)), "|3 TARGETARCH=amd64 g=given2 v=given /bin/sh -c x");
    assert_eq!(scope.arguments().get("http_proxy").map(String::as_str), Some("P"));
    assert_eq!(scope.based_on_this().get("v"), Some("given"));
    assert_eq!(
        run_history(&run, Scope::new(&globals(&[]), '\\', &[], true).recorded_arguments().as_deref()),
        "/bin/sh -c x"
    );
}

/// The program of a `RUN`.
fn program(text: &str, shell: &Shell) -> Program {
    let step = parse_steps(text.as_bytes()).unwrap().remove(0);
    let Instruction::Run(run) = step.instruction else { panic!("{step:?}") };
    run.program(shell)
}

#[test]
fn commands_are_started_by_the_shell() {
    for (text, shell, expected, escaped) in [
        ("RUN echo \"a b\"", sh(), vec!["/bin/sh", "-c", "echo \"a b\""], false),
        ("RUN [\"a\", \"b\"]", sh(), vec!["a", "b"], false),
        ("RUN mkdir \"c:/a b\"", cmd(), vec!["cmd /S /C mkdir \"c:/a b\""], true),
        ("RUN [\"a\", \"b\"]", cmd(), vec!["a", "b"], false),
        ("RUN <<E\na\nb\nE", sh(), vec!["/bin/sh", "-c", "a\nb\n"], false),
        ("RUN cat <<E >x\na\nE", sh(), vec!["/bin/sh", "-c", "cat <<E >x\na\nE"], false),
    ] {
        let Program::Command(arguments) = program(text, &shell) else { panic!("{text}") };
        assert_eq!(
            (arguments.words, arguments.escaped),
            (expected.iter().map(|w| (*w).to_owned()).collect(), escaped),
            "{text}"
        );
    }
    let script = program("RUN <<E\n#!/usr/bin/python3\nx\nE", &sh());
    let body = "#!/usr/bin/python3\nx\n".to_owned();
    assert_eq!(script, Program::Script { name: "E".to_owned(), body, shell: Vec::new() });
    let Program::Script { name, body, shell } = program("RUN <<../E\na\nb\n../E", &cmd()) else { panic!() };
    assert_eq!((name.as_str(), body.as_str(), shell), (".._E.cmd", "@echo off\r\na\r\nb\r\n", cmd().words));
    assert_eq!(program("RUN <<E\na\nb\nE", &cmd()).recorded().join(" "), "cmd /S /C @echo off\r\na\r\nb\r\n");
}

#[test]
fn history_is_in_the_classic_builders_words() {
    for (text, expected) in [
        ("CMD [\"a\", \"b c\"]", "/bin/sh -c #(nop)  CMD [\"a\" \"b c\"]"),
        ("CMD a", "/bin/sh -c #(nop)  CMD [\"/bin/sh\" \"-c\" \"a\"]"),
        ("ENTRYPOINT []", "/bin/sh -c #(nop)  ENTRYPOINT []"),
        ("ENV a=b c=d", "/bin/sh -c #(nop)  ENV a=b c=d"),
        ("EXPOSE 80", "/bin/sh -c #(nop)  EXPOSE 80"),
        ("VOLUME /a /b", "/bin/sh -c #(nop)  VOLUME [/a /b]"),
        ("SHELL [\"a\", \"b\"]", "/bin/sh -c #(nop)  SHELL [a b]"),
        ("ARG a=b c", "/bin/sh -c #(nop)  ARG a=b c"),
        (
            "HEALTHCHECK --interval=1m30s --timeout=1500ms --retries=3 CMD x",
            "/bin/sh -c #(nop)  HEALTHCHECK &{[\"CMD-SHELL\" \"x\"] \"1m30s\" \"1.5s\" \"0s\" \"0s\" '\\x03'}",
        ),
    ] {
        let step = parse_steps(text.as_bytes()).unwrap().remove(0);
        assert_eq!(nop_history(&sh(), &comment(&step.instruction, &sh()).unwrap()), expected);
    }
    let copy = transfer_history(&sh(), "COPY", Some("a:b"), "file:1", "/x");
    assert_eq!(copy, "/bin/sh -c #(nop) COPY --chown=a:b file:1 in /x ");
}
