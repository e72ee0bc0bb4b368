//! Wine's registry text: what is written is read again, whatever it is.

use proptest::prelude::*;
use silo_hive::{Key, Name, Value, kind};

use super::{read, write};

const TEXT: &str = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n#arch=win64\n\n\
    [Software\\\\A\\[x\\]] 1700000000\n#time=1da1747c66d0000\n#class=\"c\"\n@=\"d\"\n\"b\\\"\"=hex:01,\\\n  02\n\
    \"e\"=str(2):\"%A%\"\n\"m\"=str(7):\"a\\0b\\0\"\n\"n\"=dword:0000000a\n\"q\"=hex(b):01,00\n\n\
    [System\\\\L] 1700000000\n#link\n\"SymbolicLinkValue\"=hex(6):5c,00\n";

#[test]
fn what_wine_writes_is_read() {
    let root = read(TEXT.as_bytes()).unwrap();
    let key = root.at_path("software\\a[x]").unwrap();
    assert_eq!(key.written, 0x01da_1747_c66d_0000);
    assert_eq!(&key.class[..], b"c\0");
    assert_eq!(&key.value("").unwrap().data[..], b"d\0\0\0");
    assert_eq!(&key.value("b\"").unwrap().data[..], [1, 2]);
    assert_eq!((key.value("e").unwrap().kind, key.value("q").unwrap().kind), (kind::EXPAND_SZ, kind::QWORD));
    assert_eq!(&key.value("m").unwrap().data[..], b"a\0\0\0b\0\0\0\0\0");
    assert_eq!(root.at_path("Software").unwrap().written, 0);
    assert!(root.at_path("System\\L").unwrap().is_link);
}

#[test]
fn what_is_no_registry_file_is_an_error_with_its_line() {
    let long = format!("WINE REGISTRY Version 2\n[{}x] 1\n", "a\\\\".repeat(600));
    for (text, line) in [
        ("REGEDIT4\n", 1),
        ("WINE REGISTRY Version 2\n\"a\"=\"b\"\n", 2),
        ("WINE REGISTRY Version 2\n[a\n", 2),
        ("WINE REGISTRY Version 2\n[a] 1\n\"b\n", 3),
        ("WINE REGISTRY Version 2\n[a] 1\n\"b\"=hex:01,\\", 3),
        ("WINE REGISTRY Version 2\n[a] 1\n\"b\"=hex:gg\n", 3),
        ("WINE REGISTRY Version 2\n#arch=win32\n", 2),
        ("WINE REGISTRY Version 2\n[a\\\\] 1\n", 2),
        ("WINE REGISTRY Version 2\n[a] 1\n\n[A] 1\n", 4),
        ("WINE REGISTRY Version 2\n[a] 1\n\"b\"=\"\"\n\"B\"=\"\"\n", 4),
        (long.as_str(), 2),
    ] {
        assert_eq!(read(text.as_bytes()).unwrap_err().line, line, "{text}");
    }
}

fn name(most: usize) -> impl Strategy<Value = Name> {
    let unit = prop_oneof![
        3 => prop::sample::select("aB1 \"[]=@#;x7\u{e9}\u{416}".encode_utf16().collect::<Vec<_>>()),
        1 => (1u16..0xffff).prop_filter("separates keys", |u| *u != 0x5c),
    ];
    prop::collection::vec(unit, 1..most).prop_map(|units| Name::from_units(&units))
}

fn value() -> impl Strategy<Value = Value> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        prop::collection::vec(any::<u16>(), 0..20).prop_map(|units| units
            .into_iter()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect()),
    ];
    let kinds = prop_oneof![0u32..12, any::<u32>()];
    (prop_oneof![name(6), Just(Name::from(""))], kinds, data)
        .prop_map(|(name, kind, data)| Value::new(name, kind, data))
}

fn tree() -> impl Strategy<Value = Key> {
    let key = |children: Vec<Key>| {
        (
            name(6),
            prop::collection::vec(value(), 0..4),
            any::<bool>(),
            1u64..u64::MAX,
            prop::collection::vec(1u8..255, 0..4),
        )
            .prop_map(move |(name, values, is_link, written, class)| {
                let mut key = Key::new(name);
                (key.is_link, key.written) = (is_link, written);
                key.class = class.iter().flat_map(|b| [*b, 0]).collect::<Vec<u8>>().into();
                for value in values {
                    key.insert_value(value).unwrap();
                }
                for child in &children {
                    key.insert_subkey(child.clone()).unwrap();
                }
                key
            })
    };
    key(Vec::new())
        .prop_recursive(4, 24, 4, move |inner| prop::collection::vec(inner, 0..4).prop_flat_map(key))
}

proptest! {
    #[test]
    fn a_tree_comes_back(tree in tree(), own in prop::collection::vec(value(), 0..3)) {
        let mut root = Key::new("ROOT");
        root.insert_subkey(tree).unwrap();
        root.written = if own.is_empty() { 0 } else { 7 };
        for value in own {
            root.insert_value(value).unwrap();
        }
        let text = write(&root, "REGISTRY");
        prop_assert_eq!(&read(&text).unwrap(), &root);
    }

    #[test]
    fn no_text_is_too_odd(text in ".{0,200}") {
        let _ = read(format!("WINE REGISTRY Version 2\n{text}").as_bytes());
    }
}
