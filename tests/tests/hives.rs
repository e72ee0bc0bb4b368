//! `silo hive` on files, and third parties' opinion of the hives that it writes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn silo() -> PathBuf {
    silo_tests::silo()
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn hive(arguments: &[&str]) -> (bool, String) {
    run(Command::new(silo()).arg("hive").args(arguments))
}

/// Registry text with all that a hive can hold: long lists, big data, every type, names of all kinds.
fn text() -> String {
    let mut text = String::from("Windows Registry Editor Version 5.00\r\n");
    let key = |text: &mut String, name: &str| write!(text, "\r\n[HKEY_LOCAL_MACHINE\\{name}]\r\n").unwrap();
    key(&mut text, "Software\\Acme");
    text.push_str("@=\"the default\"\r\n\"Number\"=dword:0000002a\r\n\"Empty\"=hex:\r\n\"Quo\\\"te\\\\\"=\"a\\\\b\"\r\n");
    for (kind, bytes) in [
        ("(0)", "01"),
        ("(2)", "25,00,00,00"),
        ("(7)", "61,00,00,00,00,00"),
        ("(b)", "1,2,3,4,5,6,7,8"),
        ("(ffff0012)", "9,8,7,6,5"),
    ] {
        write!(text, "\"kind{kind}\"=hex{kind}:{bytes}\r\n").unwrap();
    }
    for length in [5usize, 16343, 16344, 16345, 40000] {
        write!(text, "\"of {length}\"=hex:{}\r\n", vec!["a7"; length].join(",")).unwrap();
    }
    for i in 0..1200 {
        key(&mut text, &format!("Software\\Many\\key {i}"));
    }
    for i in 0..600 {
        key(&mut text, "Software\\Values");
        write!(text, "\"value {i}\"=\"{}\"\r\n", i * i).unwrap();
    }
    for name in ["\u{c4}rger", "\u{416}\u{436}", "stra\u{df}e", "with space"] {
        key(&mut text, &format!("Software\\Names\\{name}"));
        write!(text, "\"{name}\"=\"{name}\"\r\n").unwrap();
    }
    text
}

/// A virtual environment with the Python readers, made once.
fn python() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/hive-readers");
    let python = dir.join("bin/python");
    if !dir.join("ready").exists() {
        let script = "rm -rf \"$1\"; python3 -m venv \"$1\"; \"$1/bin/pip\" -q install regipy==6.5.0 python-registry==1.3.1; touch \"$1/ready\"";
        let (ok, said) = run(Command::new("bash").args(["-euc", script, "readers"]).arg(&dir));
        assert!(ok, "{said}");
    }
    python
}

#[test]
fn third_parties_read_every_key_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("a.reg"), text()).unwrap();
    let (ok, said) = hive(&["merge", &at("a.reg"), "-o", &at("hive")]);
    assert!(ok, "{said}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("third-parties/hives.py");
    let (ok, said) = run(Command::new(python()).arg(script).arg(silo()).arg(at("hive")));
    assert!(ok && said.matches("1210 keys, 618 values").count() == 3, "{said}");
}

#[test]
fn differences_are_made_and_laid_over() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let header = "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\A]\r\n";
    std::fs::write(
        at("old.reg"),
        format!("{header}\"gone\"=\"x\"\r\n\"stays\"=\"y\"\r\n[HKEY_LOCAL_MACHINE\\A\\Dead]\r\n"),
    )
    .unwrap();
    std::fs::write(at("new.reg"), format!("{header}\"STAYS\"=\"y\"\r\n\"new\"=dword:7\r\n")).unwrap();
    let ok = |arguments: &[&str]| {
        let (ok, said) = hive(arguments);
        assert!(ok, "{arguments:?}: {said}");
        said
    };
    ok(&["merge", &at("old.reg"), "-o", &at("old")]);
    ok(&["merge", &at("new.reg"), "-o", &at("new")]);
    ok(&["diff", &at("old"), &at("new"), "-o", &at("delta")]);
    assert_eq!(
        ok(&["check", &at("delta")]),
        format!("{}: a delta hive of 3 keys and 3 values\n", at("delta"))
    );
    let text = ok(&["diff", &at("old"), &at("new")]);
    for line in ["[-HKEY_LOCAL_MACHINE\\A\\Dead]", "\"gone\"=-", "\"new\"=dword:00000007", "\"STAYS\"=\"y\""]
    {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    let json = ok(&["diff", "--json", &at("old"), &at("new")]);
    for part in [r#""layer":"tombstone""#, r#""name":"Dead""#, r#""tombstone":true"#, r#""text":"0x7""#] {
        assert!(json.starts_with('{') && json.contains(part), "{part} is not in {json}");
    }
    assert!(!hive(&["diff", "--json", &at("old"), &at("new"), "-o", &at("x")]).0);
    ok(&["merge", &at("old"), &at("delta"), "-o", &at("merged")]);
    assert_eq!(std::fs::read(at("merged")).unwrap(), std::fs::read(at("new")).unwrap());
    assert_eq!(ok(&["get", &at("merged"), "a", "New"]), "0x7\n");
    assert_eq!(ok(&["ls", &at("merged")]), "A\n");
    assert!(ok(&["export", &at("merged"), "--prefix", "HKEY_USERS\\x"]).contains("[HKEY_USERS\\x\\A]"));
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("none"), "no hive").unwrap();
    std::fs::write(
        at("bad.reg"),
        "Windows Registry Editor Version 5.00\n[HKEY_LOCAL_MACHINE\\A]\n\"a\"=what\n",
    )
    .unwrap();
    let fails = |arguments: &[&str], words: &str| {
        let (ok, said) = hive(arguments);
        assert!(!ok && said.contains(words), "{arguments:?} should say {words:?}: {said}");
    };
    fails(&["check", &at("none")], "none: not a registry hive: it is shorter than a base block");
    fails(&["check", &at("missing")], "missing: No such file");
    fails(&["merge", &at("bad.reg"), "-o", &at("out")], "bad.reg: line 3: it is no value");
    std::fs::write(at("a.reg"), "Windows Registry Editor Version 5.00\n[HKEY_LOCAL_MACHINE\\A]\n").unwrap();
    assert!(hive(&["merge", &at("a.reg"), "-o", &at("a")]).0);
    fails(&["merge", &at("a"), &at("a"), "-o", &at("out")], "is no delta hive");
    fails(&["get", &at("a"), "A", "b"], "A has no value \"b\"");
    fails(&["ls", &at("a"), "B"], "there is no key B");
    assert!(!Path::new(&at("out")).exists());
}
