//! The format by example: a delta hive written down byte by byte, and what reading must refuse.

use std::io::Read;

use silo_hive::{Hive, HiveError, Key, Layering, Semantics, Value, kind, merge};

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

/// The same hive, made by hand from the specification and read by yarp, python-registry, regipy and hivex; 8192 bytes.
fn written_down() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("data/Software_Delta.gz")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Makes the checksum right.
fn sign(bytes: &mut [u8]) {
    let words = bytes[..0x1fc].chunks_exact(4);
    let sum = words.fold(0, |s, w| s ^ u32::from_le_bytes(w.try_into().unwrap()));
    bytes[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
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

#[test]
fn what_is_broken_is_named() {
    let check = |change: &dyn Fn(&mut Vec<u8>), wanted: &str| {
        let mut bytes = written_down();
        change(&mut bytes);
        if bytes.len() > 0x200 && wanted != "checksum" {
            sign(&mut bytes);
        }
        let error = Hive::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error:?} should say {wanted:?}");
    };
    check(&|b| b.truncate(100), "shorter than a base block");
    check(&|b| b.truncate(5000), "ends before its last bin");
    check(&|b| b[0] = b'x', "does not begin with \"regf\"");
    check(&|b| b[0x18] = 9, "version");
    check(&|b| b[0x1c] = 6, "log");
    check(&|b| b[4] = 2, "sequence numbers differ");
    check(&|b| b[0x30] = 1, "checksum");
    check(&|b| b[0x1000] = 0, "hbin at offset 0x1000");
    check(&|b| b[0x1008] = 1, "hbin at offset 0x1000");
    check(&|b| b[0x24] = 0x21, "nk at offset 0x1021: there can be no cell");
    check(&|b| b[0x1024] = 0, "nk at offset 0x1020: the signature is missing");
    check(&|b| b[0x1023] = 0, "nk at offset 0x1020: the cell is free");
    // Acme is its own subkey: the list of the root stands in for its missing one.
    check(&|b| b[0x1124 + 0x14] = 2, "subkey list at offset");
    check(
        &|b| b[0x11d0 + 4 + 4..][..4].copy_from_slice(&0x20u32.to_le_bytes()),
        "nk at offset 0x1020: the cell is another record's",
    );
    check(&|b| b[0x11d0 + 6] = 200, "more entries than the cell has room for");
    check(&|b| b[0x11e8 + 4 + 2] = 99, "vk at offset 0x11e8: the name is longer");
    check(&|b| b[0x1078 + 4 + 0x10] = 0xff, "sk at offset 0x1078");
}

#[test]
fn no_bytes_panic() {
    let whole = written_down();
    for at in (0..whole.len()).filter(|at| *at < 0x200 || *at >= 0x1000 && *at < 0x1300) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let sum =
                bytes[..0x1fc].chunks_exact(4).fold(0, |s, w| s ^ u32::from_le_bytes(w.try_into().unwrap()));
            bytes[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
            if let Ok(hive) = Hive::from_bytes(bytes) {
                let _ = merge(Hive::default(), hive);
            }
        }
    }
}
