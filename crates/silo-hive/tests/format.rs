//! The format by example: a delta hive written down byte by byte, each kind of record, and what cannot be written.

mod files;

use silo_hive::{Hive, HiveError, Key, Layering, Semantics, Value, diff, kind, merge};

use files::{put, sign, written_down};

/// 1700000000 seconds after 1970 as a FILETIME.
const TIME: u64 = 0x01da_1747_c66d_0000;

fn key(name: &str, semantics: Semantics, inherit_class: bool) -> Key {
    let mut key = Key::new(name);
    key.written = TIME;
    key.layering = Layering { semantics, inherit_class };
    key
}

/// A new key `Acme` with a value; in `Old` a key and a value that are gone.
fn example() -> Hive {
    let mut root = key("ROOT", Semantics::Merge, false);
    let mut acme = key("Acme", Semantics::SupersedeTree, false);
    acme.insert_value(Value::string("X", "1")).unwrap();
    let mut old = key("Old", Semantics::Merge, true);
    old.insert_value(Value::tombstone("Gone")).unwrap();
    old.insert_subkey(key("DeadKey", Semantics::Tombstone, false)).unwrap();
    root.insert_subkey(acme).unwrap();
    root.insert_subkey(old).unwrap();
    Hive { root, layered: true }
}

#[test]
fn a_delta_hive_byte_by_byte() {
    let bytes = example().to_bytes().unwrap();
    let expected = written_down();
    let differs = (0..expected.len()).find(|i| bytes.get(*i) != expected.get(*i));
    assert_eq!((bytes.len(), differs), (expected.len(), None), "first difference");
    assert_eq!(Hive::from_bytes(expected).unwrap(), example());
}

#[test]
fn a_delta_over_a_hive() {
    let mut base = Hive::default();
    let mut old = Key::new("old");
    old.insert_value(Value::string("gone", "x")).unwrap();
    old.insert_value(Value::dword("Keep", 7)).unwrap();
    old.insert_subkey(Key::new("DEADKEY")).unwrap();
    old.insert_subkey(Key::new("Live")).unwrap();
    base.root.insert_subkey(old).unwrap();
    let merged = merge(base, example());
    assert!(!merged.layered);
    assert_eq!(merged.root.at_path("ACME").unwrap().value("x").unwrap().data.as_ref(), b"1\0\0\0");
    let old = merged.root.subkey("Old").unwrap();
    assert_eq!(old.values(), [Value::dword("Keep", 7)]);
    assert_eq!(old.subkeys().iter().map(|k| k.name.to_string()).collect::<Vec<_>>(), ["Live"]);
    assert_eq!(old.name.to_string(), "Old");
}

#[test]
fn lengths_at_the_bounds() {
    let mut hive = Hive::default();
    for length in [0, 1, 4, 5, 16343, 16344, 16345, 32688, 32689, 300_000] {
        let data: Vec<u8> = (0..length).map(|i| (i * 31 + i / 256) as u8).collect();
        hive.root.insert_value(Value::new(format!("v{length}").as_str(), kind::BINARY, data)).unwrap();
    }
    hive.root.insert_value(Value::new("", 0xffff_0012, vec![1, 2, 3])).unwrap();
    for i in 0..1700 {
        hive.root.insert_subkey(Key::new(format!("key {i}").as_str())).unwrap();
    }
    for name in ["\u{e9}t\u{e9}", "\u{416}\u{436}", "a".repeat(255).as_str()] {
        let mut key = Key::new(name);
        key.class = bytes::Bytes::from_static(b"c\0l\0");
        key.is_link = true;
        hive.root.insert_subkey(key).unwrap();
    }
    let bytes = hive.to_bytes().unwrap();
    assert_eq!(bytes.len() % 4096, 0);
    assert_eq!(Hive::from_bytes(bytes).unwrap(), hive);
}

#[test]
fn names_that_no_hive_can_hold() {
    let mut key = Key::new("k");
    for name in ["", "a\\b", "x".repeat(256).as_str()] {
        assert!(matches!(key.insert_subkey(Key::new(name)), Err(HiveError::Name { .. })), "{name:?}");
    }
    assert!(key.insert_value(Value::dword("x".repeat(16384).as_str(), 1)).is_err());
    key.insert_value(Value::dword("A", 1)).unwrap();
    assert_eq!(key.insert_value(Value::dword("a", 2)).unwrap(), Some(Value::dword("A", 1)));
}

/// Where the list of the root's subkeys is in the file that is written down, and the keys that it names.
const LIST: usize = 0x11d0 + 4;
const KEYS: [u32; 2] = [0x120, 0x178];

#[test]
fn every_kind_of_list_and_every_version() {
    let check = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = written_down();
        change(&mut bytes);
        sign(&mut bytes);
        assert_eq!(Hive::from_bytes(bytes).unwrap(), example());
    };
    check(&|b| b[LIST..LIST + 2].copy_from_slice(b"lf"));
    check(&|b| {
        b[LIST..LIST + 2].copy_from_slice(b"li");
        put(b, LIST + 4, &KEYS);
    });
    check(&|b| {
        // An index of two lists in what was free: a cell of 24 bytes, then two of 16.
        put(b, 0x12a0, &[-24i32 as u32, u32::from_le_bytes(*b"ri\x02\0"), 0x2b8, 0x2c8, 0, 0]);
        for (i, key) in KEYS.iter().enumerate() {
            let list = [-16i32 as u32, u32::from_le_bytes(*b"li\x01\0"), *key, 0];
            put(b, 0x12b8 + i * 16, &list);
        }
        put(b, 0x12d8, &[0xd60 - 56]);
        put(b, 0x1024 + 0x1c, &[0x2a0]);
    });
    for minor in 3..=6 {
        check(&|b| b[0x18] = minor);
    }
    // In another order than that of the names; with other bytes behind the last bin.
    check(&|b| put(b, LIST + 4, &[KEYS[1], 0x0001_b1b7, KEYS[0], 0x0033_aece]));
    check(&|b| b.extend(vec![0xff; 4096 + 7]));
}

#[test]
fn volatile_keys_are_left_out() {
    let mut bytes = written_down();
    bytes[0x1124 + 2] |= 1;
    // What a running system leaves in the fields for them.
    put(&mut bytes, 0x1024 + 0x18, &[7, 0, 0x8000_0180]);
    put(&mut bytes, 0x1024 + 0x1c, &[0x1d0]);
    let hive = Hive::from_bytes(bytes).unwrap();
    assert_eq!(hive.root.subkeys(), [example().root.subkey("Old").unwrap().clone()]);
}

#[test]
fn without_its_flag_layering_does_not_count() {
    let mut bytes = written_down();
    bytes[0x90] = 0;
    sign(&mut bytes);
    let hive = Hive::from_bytes(bytes).unwrap();
    assert!(!hive.layered);
    assert_eq!(hive.root.subkey("Acme").unwrap().layering, Layering::default());
    assert!(!hive.root.at_path("Old").unwrap().value("gone").unwrap().is_tombstone);
}

#[test]
fn descriptors_are_shared_and_counted() {
    let mut hive = Hive::default();
    for i in 0..10u8 {
        let mut key = Key::new(format!("k{i}").as_str());
        key.security = vec![i % 3; 40].into();
        hive.root.insert_subkey(key).unwrap();
    }
    let bytes = hive.to_bytes().unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let first = word(0x1024 + 0x2c);
    let (mut counts, mut at) = (Vec::new(), first);
    loop {
        let sk = 0x1000 + at as usize + 4;
        assert_eq!(&bytes[sk..sk + 2], b"sk");
        counts.push(word(sk + 12));
        let next = word(sk + 4);
        assert_eq!(word(0x1000 + next as usize + 4 + 8), at, "the next one points back");
        at = next;
        if at == first {
            break;
        }
    }
    assert_eq!(counts, [1, 4, 3, 3]);
}

#[test]
fn trees_that_no_file_can_hold() {
    let check = |change: &dyn Fn(&mut Hive), wanted: &str| {
        let mut hive = Hive::default();
        for name in ["a", "b"] {
            hive.root.insert_subkey(Key::new(name)).unwrap();
        }
        change(&mut hive);
        let error = hive.to_bytes().unwrap_err().to_string();
        assert!(error.contains(wanted), "{error:?} should say {wanted:?}");
    };
    let set = |hive: &mut Hive, change: &dyn Fn(&mut Key)| change(hive.root.subkey_mut("a").unwrap());
    check(&|h| h.root.name = "".into(), "it is empty");
    check(&|h| set(h, &|k| k.name = "a".repeat(256).as_str().into()), "it is too long");
    check(&|h| set(h, &|k| k.name = "c".into()), "\"b\" cannot be written: it is not in its place");
    check(&|h| set(h, &|k| k.name = "B".into()), "it is not in its place");
    check(&|h| set(h, &|k| k.class = vec![0; 65536].into()), "class");
    check(&|h| set(h, &|k| k.security = Vec::new().into()), "security");
    check(&|h| set(h, &|k| k.layering.inherit_class = true), "layering");
    check(&|h| drop(h.root.insert_value(Value::tombstone("v"))), "tombstone");
    let nested = |depth: usize| {
        (1..depth).fold(Key::new("k"), |below, _| {
            let mut key = Key::new("k");
            key.insert_subkey(below).unwrap();
            key
        })
    };
    check(&|h| h.root = nested(513), "deeper than 512");
    let deepest = Hive { root: nested(512), layered: false };
    assert_eq!(Hive::from_bytes(deepest.to_bytes().unwrap()).unwrap(), deepest);
}

#[test]
fn the_name_of_a_root() {
    let [old, new] = ["ROOT", "CMI-CreateHive{1}"].map(|name| Hive { root: Key::new(name), layered: false });
    // A delta that merges, such as Windows' own, leaves the name as it is.
    assert_eq!(merge(new.clone(), example()).root.name, new.root.name);
    assert_eq!(merge(old.clone(), diff(&old, &new)), new);
    assert_eq!(merge(new.clone(), diff(&new, &old)), old);
}

#[test]
fn a_delta_hive_in_a_difference_is_what_it_makes_of_nothing() {
    let plain = merge(Hive::default(), example());
    assert_eq!(diff(&example(), &plain).root.count(), 1);
    assert_eq!(merge(Hive::default(), diff(&Hive::default(), &example())), plain);
}
