//! Delta hives over symbolic-link keys: what one says of a key that is a link below is said of the link's target.

use crate::error::HiveError;
use crate::merge::merge;
use crate::name::Name;
use crate::tree::{Hive, Key, Layering, Semantics, Value, kind};

/// The value of a link that names its target.
const LINK_TARGET: &str = "SymbolicLinkValue";

/// What a delta hive says of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The names from the hive's root to the link.
    pub path: Vec<Name>,
    /// What is said of it, under the link's name.
    pub key: Key,
    /// The link's target; none if the link has none.
    pub target: Option<String>,
}

impl Key {
    /// The path that a link stands for, as it has it: `\Registry\Machine\...`. None: no link, or one that names nothing.
    pub fn link_target(&self) -> Option<String> {
        let value = self.value(LINK_TARGET).filter(|value| self.is_link && value.kind == kind::LINK)?;
        let units: Vec<u16> = value.data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        let text = String::from_utf16(&units).ok()?;
        Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty())
    }
}

/// Takes out of the tree of a delta hive, `delta`, what it says of keys that are links in `lower`, the tree of the hive
/// below it. It stays where it is if it is meant for the link itself: it is a link too, takes the link away, or takes
/// its target away.
pub fn take_linked(lower: &Key, delta: &mut Key) -> Vec<Linked> {
    let mut taken = Vec::new();
    take(lower, delta, &mut Vec::new(), &mut taken);
    taken
}

fn take(lower: &Key, delta: &mut Key, path: &mut Vec<Name>, taken: &mut Vec<Linked>) {
    // Nothing is below a key that stands for all of its lower one, or takes it away.
    if !matches!(delta.layering.semantics, Semantics::Merge | Semantics::SupersedeLocal) {
        return;
    }
    for mut over in std::mem::take(delta.lists_mut().1) {
        let at = lower.subkeys().binary_search_by(|key| key.name.order(&over.name));
        if let Some(below) = at.ok().and_then(|at| lower.subkeys().get(at)) {
            path.push(over.name.clone());
            if below.is_link && !is_for_link(&over) {
                let target = below.link_target();
                taken.push(Linked { path: path.clone(), key: over, target });
                path.pop();
                continue;
            }
            take(below, &mut over, path, taken);
            path.pop();
        }
        // In the order in which they were.
        delta.lists_mut().1.push(over);
    }
}

/// A link has no other value than its target: whoever speaks of that means the link.
fn is_for_link(over: &Key) -> bool {
    over.is_link || over.layering.semantics == Semantics::Tombstone || over.value(LINK_TARGET).is_some()
}

/// Marks what a difference says of a link that becomes the key `new`, so that [`take_linked`] leaves it there.
pub(crate) fn mark_key(over: &mut Key, new: &Key) {
    let (values, _) = over.lists_mut();
    if let Err(at) = values.binary_search_by(|value| value.name.order_text(LINK_TARGET)) {
        let kept = new.value(LINK_TARGET).cloned();
        values.insert(at, kept.unwrap_or_else(|| Value::tombstone(LINK_TARGET)));
    }
}

/// Makes a delta hive say `key` of the key at `path` (names with backslashes between them), besides what it says already;
/// of two sayings on one thing, `key`'s counts. `lower`: the tree of the hive below.
///
/// # Errors
/// [`HiveError::Name`] for a name that no hive can hold.
pub fn say_at(lower: &Key, delta: &mut Hive, path: &str, key: Key) -> Result<(), HiveError> {
    let names: Vec<&str> = path.split('\\').filter(|name| !name.is_empty()).collect();
    let root = way(Some(lower), Some(&delta.root), &names, key)?;
    *delta = merge(std::mem::take(delta), Hive { root, layered: true });
    Ok(())
}

/// The keys on the way to `key` as they are, and it.
fn way(lower: Option<&Key>, delta: Option<&Key>, names: &[&str], mut key: Key) -> Result<Key, HiveError> {
    let there = delta.filter(|key| key.layering.semantics != Semantics::Tombstone).or(lower);
    let Some((name, rest)) = names.split_first() else {
        key.name = there.map_or(key.name, |there| there.name.clone());
        return Ok(key);
    };
    let (lower, delta) = (lower.and_then(|key| key.subkey(name)), delta.and_then(|key| key.subkey(name)));
    let mut below = way(lower, delta, rest, key)?;
    if lower.is_none() && delta.is_none() {
        below.name = Name::from(*name);
    }
    let mut on = there.map_or_else(|| below.bare(), Key::bare);
    on.layering = Layering { semantics: Semantics::Merge, inherit_class: true };
    on.class = Default::default();
    on.insert_subkey(below)?;
    Ok(on)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::diff;

    fn link(name: &str, to: &str) -> Key {
        let mut key = Key::new(name);
        key.is_link = true;
        let data: Vec<u8> = to.encode_utf16().flat_map(u16::to_le_bytes).collect();
        key.insert_value(Value::new(LINK_TARGET, kind::LINK, data)).unwrap();
        key
    }

    /// `B`, and `A\Link` to it.
    fn lower() -> Hive {
        let mut hive = Hive::default();
        let mut a = Key::new("A");
        a.insert_subkey(link("Link", "\\B")).unwrap();
        hive.root.insert_subkey(a).unwrap();
        hive.root.insert_subkey(Key::new("B")).unwrap();
        hive
    }

    fn delta(link: Key) -> Hive {
        let mut hive = Hive { layered: true, ..Hive::default() };
        let mut a = Key::new("A");
        a.insert_value(Value::dword("kept", 1)).unwrap();
        a.insert_subkey(link).unwrap();
        hive.root.insert_subkey(a).unwrap();
        hive
    }

    #[test]
    fn a_key_over_a_link_is_said_of_its_target() {
        let lower = lower();
        let mut over = Key::new("LINK");
        over.insert_value(Value::dword("v", 1)).unwrap();
        let mut delta = delta(over);
        let taken = take_linked(&lower.root, &mut delta.root);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].path, ["A".into(), "LINK".into()]);
        assert_eq!(taken[0].target.as_deref(), Some("\\B"));
        for path in ["\\B", "New\\Below"] {
            let mut delta = delta.clone();
            say_at(&lower.root, &mut delta, path, taken[0].key.clone()).unwrap();
            let merged = merge(lower.clone(), delta);
            assert!(merged.root.at_path("A\\Link").unwrap().is_link);
            assert!(merged.root.at_path("A").unwrap().value("kept").is_some());
            let key = merged.root.at_path(path).unwrap();
            assert!(key.value("v").is_some() && path.ends_with(&key.name.to_string()), "{key:?}");
        }
    }

    #[test]
    fn what_is_meant_for_the_link_stays() {
        let mut gone = Key::new("Link");
        gone.layering.semantics = Semantics::Tombstone;
        for over in [gone, link("Link", "\\C")] {
            let mut delta = delta(over);
            let before = delta.clone();
            assert!(take_linked(&lower().root, &mut delta.root).is_empty());
            assert_eq!(delta, before);
        }
    }

    #[test]
    fn a_difference_in_which_a_link_becomes_a_key_stays_one() {
        for (value, older) in [(None, false), (None, true), (Some(()), false), (Some(()), true)] {
            let mut old = lower();
            old.root.subkey_mut("A").unwrap().subkey_mut("Link").unwrap().written = 7;
            let mut new = old.clone();
            let key = new.root.subkey_mut("A").unwrap().subkey_mut("Link").unwrap();
            key.is_link = false;
            key.written = if older { 6 } else { 8 };
            if value.is_none() {
                key.remove_value(LINK_TARGET);
            }
            let mut delta = diff(&old, &new);
            assert!(take_linked(&old.root, &mut delta.root).is_empty(), "{delta:?}");
            assert_eq!(merge(old, delta), new);
        }
    }
}
