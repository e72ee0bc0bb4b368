//! What must hold for all trees: reading gives what was written, a merged difference gives the new tree, and deltas can be
//! made one.

mod strategies;

use proptest::collection::vec;
use proptest::prelude::*;
use silo_hive::{Hive, apply_reg, diff, from_reg, merge, to_reg};

use strategies::{delta, edit, edit_hive, hive};

const PREFIX: &str = "HKEY_LOCAL_MACHINE\\Some";

/// As a file gives it back.
fn through_file(hive: &Hive) -> Hive {
    Hive::from_bytes(hive.to_bytes().unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(hive in prop_oneof![hive(), delta()]) {
        let bytes = hive.to_bytes().unwrap();
        let read = Hive::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(&read, &hive);
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn a_difference_makes_the_new_of_the_old(old in hive(), new in hive()) {
        let delta = through_file(&diff(&old, &new));
        prop_assert_eq!(merge(old, delta), new);
    }

    #[test]
    fn nothing_changed_is_nothing_written(hive in hive()) {
        let delta = diff(&hive, &hive);
        prop_assert!(delta.root.subkeys().is_empty() && delta.root.values().is_empty());
        prop_assert_eq!(merge(hive.clone(), delta), hive);
    }

    #[test]
    fn a_chain_of_deltas_is_the_last_state_one_by_one_and_as_one(
        first in hive(),
        steps in vec(vec(edit(), 0..4), 1..12),
    ) {
        let mut states = vec![first.clone()];
        for edits in steps {
            let mut next = states.last().unwrap().clone();
            edits.iter().for_each(|e| edit_hive(&mut next, e));
            states.push(next);
        }
        let deltas: Vec<Hive> = states.windows(2).map(|pair| through_file(&diff(&pair[0], &pair[1]))).collect();
        let mut merged = first.clone();
        for (delta, state) in deltas.iter().zip(&states[1..]) {
            merged = merge(merged, delta.clone());
            prop_assert_eq!(&merged, state);
        }
        let one = deltas.into_iter().reduce(merge).unwrap();
        prop_assert_eq!(merge(first, through_file(&one)), merged);
    }

    #[test]
    fn an_edit_is_a_delta_of_that_edit_alone(old in hive(), edit in edit()) {
        let mut new = old.clone();
        edit_hive(&mut new, &edit);
        let delta = diff(&old, &new);
        // No more than the path to the key, and what was taken away, made or described below it.
        let spare = if let strategies::Change::Add(key) = &edit.1 { key.count() } else { 1 };
        let replaced = old.root.count();
        prop_assert!(delta.root.count() <= edit.0.len() + 1 + spare + replaced);
        prop_assert_eq!(merge(old, delta), new);
    }

    #[test]
    fn deltas_of_any_layering_can_be_made_one(base in hive(), lower in delta(), upper in delta()) {
        let one_by_one = merge(merge(base.clone(), lower.clone()), upper.clone());
        let one = through_file(&merge(lower, upper));
        prop_assert!(one.layered);
        prop_assert_eq!(merge(base, one), one_by_one);
    }

    #[test]
    fn text_says_the_same(old in hive(), new in hive()) {
        // Text has no words for a key that stands for a lower one of a later time or another root.
        let delta = diff(&timeless(&old), &timeless(&new));
        let text = to_reg(&delta, PREFIX).unwrap();
        let read = from_reg(text.as_bytes(), &PREFIX.to_lowercase()).unwrap();
        // Keys and values are all that text has.
        let plain = |hive: &Hive| to_reg(hive, PREFIX).unwrap().to_uppercase();
        prop_assert_eq!(plain(&merge(old.clone(), read)), plain(&new));
        let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let mut applied = old;
        apply_reg(&mut applied, &utf16, PREFIX).unwrap();
        prop_assert_eq!(plain(&applied), plain(&new));
        prop_assert_eq!(through_file(&applied), applied);
    }
}

/// The hive with all times zero and the common name of a root.
fn timeless(hive: &Hive) -> Hive {
    fn walk(key: &mut silo_hive::Key) {
        key.written = 0;
        let names: Vec<String> = key.subkeys().iter().map(|k| k.name.to_string()).collect();
        for name in names {
            walk(key.subkey_mut(&name).unwrap());
        }
    }
    let mut hive = hive.clone();
    hive.root.name = "ROOT".into();
    walk(&mut hive.root);
    hive
}
