//! Registry text by example.

use silo_hive::{Hive, HiveError, Key, Semantics, Value, apply_reg, from_reg, kind, merge, to_reg};

fn text(lines: &str) -> Vec<u8> {
    format!("Windows Registry Editor Version 5.00\n\n{lines}\n").into_bytes()
}

fn hive() -> Hive {
    let mut hive = Hive::default();
    let mut key = Key::new("Some");
    key.security = vec![9; 20].into();
    key.is_link = true;
    key.written = 77;
    key.insert_value(Value::dword("Number", 1)).unwrap();
    key.insert_subkey(Key::new("Below")).unwrap();
    hive.root.insert_subkey(key).unwrap();
    hive
}

#[test]
fn what_text_does_not_say_stays_as_it_is() {
    let mut hive = hive();
    apply_reg(&mut hive, &text("[HKLM\\SOME]\n\"NUMBER\"=dword:00000002\n[HKLM\\some\\New]"), "HKLM")
        .unwrap();
    let key = hive.root.subkey("some").unwrap();
    assert_eq!((key.name.to_string().as_str(), key.written, key.is_link), ("Some", 77, true));
    assert_eq!(key.values(), [Value::dword("Number", 2)]);
    assert_eq!(key.security.as_ref(), [9; 20]);
    let new = key.subkey("New").unwrap();
    assert_eq!((new.security.as_ref(), new.is_link), (&[9; 20][..], false));
}

#[test]
fn taking_away_makes_nothing() {
    let lines = "[-HKLM\\None\\Below]\n[-HKLM\\Some]\n[-HKLM\\Some\\Below]\n[-HKLM\\Some\\a\\b]";
    let mut applied = hive();
    apply_reg(&mut applied, &text(lines), "HKLM").unwrap();
    assert_eq!(applied.root.count(), 1);
    let delta = from_reg(&text(lines), "HKLM").unwrap();
    assert_eq!(delta.root.subkey("some").unwrap().layering.semantics, Semantics::Tombstone);
    assert!(merge(hive(), delta).root.subkey("some").is_none());
}

#[test]
fn later_lines_count() {
    let lines = "[HKLM\\Some]\n\"a\"=\"1\"\n\"A\"=\"2\"\n[-HKLM\\Some]\n[HKLM\\Some\\x\\y]\n\"b\"=-\n[-HKLM\\Some\\x\\y]\n[-HKLM\\Some\\q\\y]";
    let mut applied = hive();
    apply_reg(&mut applied, &text(lines), "HKLM").unwrap();
    let some = applied.root.subkey("Some").unwrap();
    assert_eq!((some.values().len(), some.count()), (0, 2));
    let merged = merge(hive(), from_reg(&text(lines), "HKLM").unwrap());
    assert_eq!(to_reg(&merged, "HKLM"), to_reg(&applied, "HKLM"));
}

#[test]
fn every_form_of_data() {
    let lines = "[HKLM]\n@=\"a\\\\b\\\"\"\n\"d\"=dword:000000ff\n\"h\"=hex:01,02,\\\n  03\n\"m\"=hex(7):\n\"q\"=hex(b):1,0,0,0,0,0,0,0\n; said\n\"u\"=hex(ffff0012):00";
    let hive = from_reg(&text(lines), "hklm").unwrap();
    let value = |name| hive.root.value(name).unwrap().clone();
    assert_eq!(value(""), Value::string("", "a\\b\""));
    assert_eq!(value("D"), Value::dword("d", 255));
    assert_eq!(value("h"), Value::new("h", kind::BINARY, vec![1, 2, 3]));
    assert_eq!(value("m"), Value::new("m", kind::MULTI_SZ, Vec::new()));
    assert_eq!(value("q").kind, kind::QWORD);
    assert_eq!(value("u"), Value::new("u", 0xffff_0012, vec![0]));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let deep = format!("[HKLM{}]", "\\k".repeat(512));
    let long = format!("[HKLM\\{}]", "k".repeat(256));
    for (lines, line, wanted) in [
        ("[HKCU\\a]", 3, "not below"),
        ("[HKLM\\a", 3, "does not end with ]"),
        ("[HKLM\\a\\\\b]", 3, "empty or longer"),
        (long.as_str(), 3, "empty or longer"),
        (deep.as_str(), 3, "deeper than 512"),
        ("[-HKLM]", 3, "the whole hive"),
        ("\"a\"=\"b\"", 3, "before any key"),
        ("[HKLM]\n\"a\"=dword:+1", 4, "no value"),
        ("[HKLM]\n\"a\"=hex:100", 4, "no value"),
        ("[HKLM]\n\"a\"=hex:01,\\", 4, "ends within a value"),
        ("[HKLM]\n\"a", 4, "no value"),
    ] {
        match from_reg(&text(lines), "HKLM") {
            Err(HiveError::Text { line: at, problem }) => {
                assert_eq!(at, line, "{lines}: {problem}");
                assert!(problem.contains(wanted), "{lines}: {problem}");
            }
            other => panic!("{lines}: {other:?}"),
        }
    }
    assert!(from_reg(b"\xff\xfea", "HKLM").is_err());
    assert!(from_reg(b"REGEDIT4\n", "HKLM").is_err());
    // Deep, but not too deep.
    assert!(from_reg(&text(&format!("[HKLM{}]", "\\k".repeat(511))), "HKLM").unwrap().to_bytes().is_ok());
}
