//! What must hold for all trees: reading gives what was written, a merged difference gives the new tree.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use silo_hive::{Hive, Key, Value, diff, from_reg, merge, to_reg};

/// Few names, so that trees meet in them; in both cases and from all planes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-cA-C]{1,2}",
        "[\u{e4}\u{c4}\u{416}\u{436}\u{df}]{1,2}",
        "[ -~&&[^\\\\]]{1,8}",
        Just("\u{1f600}".to_owned())
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let data = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => (16340usize..16350).prop_map(|n| vec![7; n])];
    (prop_oneof![name(), Just(String::new())], prop_oneof![0u32..12, any::<u32>()], data)
        .prop_map(|(name, kind, data)| Value::new(name.as_str(), kind, data))
}

fn build(
    (name, written, class, link, security): (String, u64, u8, bool, u8),
    values: Vec<Value>,
    subkeys: Vec<Key>,
) -> Key {
    let mut key = Key::new(name.as_str());
    key.written = written;
    key.class = Bytes::from(vec![class; usize::from(class % 3) * 2]);
    key.is_link = link;
    if security > 0 {
        key.security = Bytes::from(vec![security; 20]);
    }
    for value in values {
        key.insert_value(value).unwrap();
    }
    for subkey in subkeys {
        key.insert_subkey(subkey).unwrap();
    }
    key
}

fn key() -> impl Strategy<Value = Key> {
    let own = || (name(), 0u64..4, 0u8..6, any::<bool>(), 0u8..3);
    let leaf = (own(), vec(value(), 0..4)).prop_map(|(own, values)| build(own, values, Vec::new()));
    leaf.prop_recursive(4, 40, 5, move |inner| {
        (own(), vec(value(), 0..4), vec(inner, 0..5))
            .prop_map(|(own, values, subkeys)| build(own, values, subkeys))
    })
}

fn hive() -> impl Strategy<Value = Hive> {
    (key(), vec(key(), 0..12)).prop_map(|(mut root, subkeys)| {
        root.name = "ROOT".into();
        for subkey in subkeys {
            root.insert_subkey(subkey).unwrap();
        }
        Hive { root, layered: false }
    })
}

/// The key with all times zero.
fn timeless(mut key: Key) -> Key {
    key.written = 0;
    let names: Vec<String> = key.subkeys().iter().map(|k| k.name.to_string()).collect();
    for name in names {
        let subkey = key.remove_subkey(&name).unwrap();
        key.insert_subkey(timeless(subkey)).unwrap();
    }
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(hive in hive()) {
        let bytes = hive.to_bytes().unwrap();
        let read = Hive::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(&read, &hive);
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn a_difference_makes_the_new_of_the_old(old in hive(), new in hive()) {
        let delta = Hive::from_bytes(diff(&old, &new).to_bytes().unwrap()).unwrap();
        prop_assert_eq!(merge(old, delta), new);
    }

    #[test]
    fn nothing_changed_is_nothing_written(hive in hive()) {
        let delta = diff(&hive, &hive);
        prop_assert!(delta.root.subkeys().is_empty() && delta.root.values().is_empty());
        prop_assert_eq!(merge(hive.clone(), delta), hive);
    }

    #[test]
    fn text_says_the_same(old in hive(), new in hive()) {
        const PREFIX: &str = "HKEY_LOCAL_MACHINE\\Some";
        // A key that became older stands for the lower one, for which text has no words.
        let [old, new] = [old, new].map(|hive| Hive { root: timeless(hive.root), ..hive });
        let delta = diff(&old, &new);
        let text = to_reg(&delta, PREFIX).unwrap();
        let read = from_reg(text.as_bytes(), &PREFIX.to_lowercase()).unwrap();
        // Keys and values are all that text has.
        let plain = |hive: &Hive| to_reg(hive, PREFIX).unwrap().to_uppercase();
        prop_assert_eq!(plain(&merge(old, read)), plain(&new));
        let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        prop_assert!(from_reg(&utf16, PREFIX).is_ok());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..9000), hive in hive(), at in vec(any::<(u16, u8)>(), 1..9)) {
        let _ = Hive::from_bytes(bytes.clone());
        let mut whole = hive.to_bytes().unwrap();
        for (at, value) in at {
            let at = 4096 + usize::from(at) % (whole.len() - 4096);
            whole[at] = value;
        }
        let _ = Hive::from_bytes(whole);
        bytes.truncate(0);
    }
}
