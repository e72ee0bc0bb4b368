//! Random hives, edits of hives, and delta hives of any layering.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use silo_hive::{Hive, Key, Layering, Semantics, Value};

/// Few names, so that trees meet in them; in both cases and from all planes.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-cA-C]{1,2}",
        1 => "[\u{e4}\u{c4}\u{416}\u{436}\u{df}]{1,2}",
        1 => "[ -~&&[^\\\\]]{1,8}",
        1 => Just("\u{1f600}".to_owned()),
        1 => Just("Wow6432Node".to_owned()),
    ]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let data = prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => (16340usize..16350).prop_map(|n| vec![7; n])];
    let name = prop_oneof![4 => name(), 1 => Just(String::new()), 1 => Just("SymbolicLinkValue".to_owned())];
    (name, prop_oneof![0u32..12, any::<u32>()], data)
        .prop_map(|(name, kind, data)| Value::new(name.as_str(), kind, data))
}

/// What a key has of its own.
type Own = (String, u64, u8, bool, u8);

fn own() -> impl Strategy<Value = Own> {
    (name(), 0u64..4, 0u8..6, any::<bool>(), 0u8..3)
}

fn describe(key: &mut Key, (_, written, class, link, security): &Own) {
    key.written = *written;
    key.class = Bytes::from(vec![*class; usize::from(class % 3) * 2]);
    key.is_link = *link;
    if *security > 0 {
        key.security = Bytes::from(vec![*security; 20]);
    }
}

fn build(own: &Own, values: Vec<Value>, subkeys: Vec<Key>) -> Key {
    let mut key = Key::new(own.0.as_str());
    describe(&mut key, own);
    for value in values {
        key.insert_value(value).unwrap();
    }
    for subkey in subkeys {
        key.insert_subkey(subkey).unwrap();
    }
    key
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    let leaf = (own(), vec(value(), 0..4)).prop_map(|(own, values)| build(&own, values, Vec::new()));
    leaf.prop_recursive(4, 24, 5, move |inner| {
        (own(), vec(value(), 0..4), vec(inner, 0..5))
            .prop_map(|(own, values, subkeys)| build(&own, values, subkeys))
    })
}

pub(crate) fn hive() -> impl Strategy<Value = Hive> {
    let root = prop_oneof![3 => Just("ROOT".to_owned()), 1 => name()];
    (key(), root, vec(key(), 0..6)).prop_map(|(mut root, name, subkeys)| {
        root.name = name.as_str().into();
        for subkey in subkeys {
            root.insert_subkey(subkey).unwrap();
        }
        Hive { root, layered: false }
    })
}

/// A change of one key.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Set(Value),
    Unset(u8),
    Add(Key),
    Remove(u8),
    /// The first letter's case, by taking the key out and putting it back.
    Rename(u8),
    Describe(Own),
}

/// Which key: one of the subkeys, of that one of its subkeys …
pub(crate) fn edit() -> impl Strategy<Value = (Vec<u8>, Change)> {
    let change = prop_oneof![
        4 => value().prop_map(Change::Set),
        2 => any::<u8>().prop_map(Change::Unset),
        2 => key().prop_map(Change::Add),
        2 => any::<u8>().prop_map(Change::Remove),
        1 => any::<u8>().prop_map(Change::Rename),
        2 => own().prop_map(Change::Describe),
    ];
    (vec(any::<u8>(), 0..4), change)
}

fn nth(key: &Key, at: u8) -> Option<String> {
    let index = usize::from(at).checked_rem(key.subkeys().len())?;
    Some(key.subkeys()[index].name.to_string())
}

/// Makes a change, if there is something to change.
pub(crate) fn edit_hive(hive: &mut Hive, (path, change): &(Vec<u8>, Change)) {
    let mut key = &mut hive.root;
    for at in path {
        let Some(name) = nth(key, *at) else { break };
        key = key.subkey_mut(&name).unwrap();
    }
    match change {
        Change::Set(value) => drop(key.insert_value(value.clone()).unwrap()),
        Change::Unset(at) => {
            if let Some(index) = usize::from(*at).checked_rem(key.values().len()) {
                let name = key.values()[index].name.to_string();
                key.remove_value(&name);
            }
        }
        Change::Add(subkey) => drop(key.insert_subkey(subkey.clone()).unwrap()),
        Change::Remove(at) => drop(nth(key, *at).and_then(|name| key.remove_subkey(&name))),
        Change::Rename(at) => {
            if let Some(mut subkey) = nth(key, *at).and_then(|name| key.remove_subkey(&name)) {
                subkey.name = subkey.name.to_string().to_ascii_uppercase().as_str().into();
                key.insert_subkey(subkey).unwrap();
            }
        }
        Change::Describe(own) => describe(key, own),
    }
}

/// A delta hive with any layering at any key, also such as Windows never writes.
pub(crate) fn delta() -> impl Strategy<Value = Hive> {
    let layers = vec((0u8..5, any::<bool>(), vec(any::<bool>(), 4)), 24);
    (hive(), layers).prop_map(|(mut hive, layers)| {
        let mut layers = layers.into_iter().cycle();
        layer(&mut hive.root, &mut layers);
        Hive { layered: true, ..hive }
    })
}

fn layer(key: &mut Key, layers: &mut impl Iterator<Item = (u8, bool, Vec<bool>)>) {
    let (semantics, inherit_class, tombstones) = layers.next().unwrap();
    key.layering = Layering {
        semantics: match semantics {
            0 => Semantics::Tombstone,
            1 => Semantics::SupersedeLocal,
            2 => Semantics::SupersedeTree,
            _ => Semantics::Merge,
        },
        inherit_class,
    };
    let values: Vec<String> = key.values().iter().map(|v| v.name.to_string()).collect();
    for (name, _) in values.iter().zip(tombstones).filter(|(_, gone)| *gone) {
        key.insert_value(Value::tombstone(name.as_str())).unwrap();
    }
    let subkeys: Vec<String> = key.subkeys().iter().map(|k| k.name.to_string()).collect();
    for name in subkeys {
        layer(key.subkey_mut(&name).unwrap(), layers);
    }
}
