//! What a text does, key by key: later lines against earlier ones, before any of it reaches a hive.

use std::collections::BTreeMap;

use crate::name::Name;
use crate::overlay::{Named, overlay};
use crate::tree::{Hive, Key, Layering, Semantics, Value};

/// A name's capitals, by which things are found.
type Capitals = Vec<u16>;

fn capitals(name: &Name) -> Capitals {
    name.capitals().collect()
}

/// What happens to a key and below it.
#[derive(Default)]
pub(super) struct Edits {
    name: Name,
    /// First it is taken away, with all below it.
    removed: bool,
    /// It is there afterwards, whether it was before or not.
    made: bool,
    values: BTreeMap<Capitals, Value>,
    subkeys: BTreeMap<Capitals, Edits>,
}

impl Named for Edits {
    fn name(&self) -> &Name {
        &self.name
    }

    fn blank() -> Self {
        Self::default()
    }
}

impl Edits {
    /// Nothing yet.
    pub(super) fn root() -> Self {
        Self { name: "ROOT".into(), made: true, ..Self::default() }
    }

    /// The key at a path, made with those on the way; and whether it is new with all that is in it.
    pub(super) fn make(&mut self, path: &[&str]) -> (&mut Self, bool) {
        let (mut key, mut new) = (self, false);
        for name in path {
            key = key.below(name);
            key.made = true;
            new |= key.removed;
        }
        (key, new)
    }

    pub(super) fn set(&mut self, path: &[&str], value: Value) {
        let (key, new) = self.make(path);
        let name = capitals(&value.name);
        // In a key that is new there is nothing to take away.
        match new && value.is_tombstone {
            true => drop(key.values.remove(&name)),
            false => drop(key.values.insert(name, value)),
        }
    }

    /// Takes a key away; what is on the way to it is not made.
    pub(super) fn remove(&mut self, parents: &[&str], last: &str) {
        let (mut key, mut new) = (self, false);
        for name in parents {
            // Nothing is below what is gone, nor in a new key but what was made.
            if (key.removed && !key.made) || (new && !key.has(name)) {
                return;
            }
            key = key.below(name);
            new |= key.removed;
        }
        if key.removed && !key.made {
            return;
        }
        let gone = Self { removed: true, ..Self::default() };
        match new {
            true => drop(key.subkeys.remove(&capitals(&Name::from(last)))),
            false => {
                let key = key.below(last);
                *key = Self { name: std::mem::take(&mut key.name), ..gone };
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.subkeys.contains_key(&capitals(&Name::from(name)))
    }

    fn below(&mut self, name: &str) -> &mut Self {
        let name = Name::from(name);
        self.subkeys.entry(capitals(&name)).or_insert_with(|| Self { name, ..Self::default() })
    }

    pub(super) fn into_delta(self) -> Hive {
        Hive { root: self.into_key(false), layered: true }
    }

    fn into_key(self, in_new: bool) -> Key {
        let mut key = Key::new(self.name);
        let new = in_new || self.removed;
        key.layering = match (new, self.made) {
            (true, false) => Layering { semantics: Semantics::Tombstone, inherit_class: false },
            (true, true) => Layering { semantics: Semantics::SupersedeTree, inherit_class: false },
            (false, _) => Layering { semantics: Semantics::Merge, inherit_class: true },
        };
        let (values, subkeys) = key.lists_mut();
        *values = self.values.into_values().collect();
        *subkeys = self.subkeys.into_values().map(|edits| edits.into_key(new)).collect();
        key
    }

    pub(super) fn apply(self, key: &mut Key) {
        let security = key.security.clone();
        let (values, subkeys) = key.lists_mut();
        overlay(values, self.values.into_values().collect(), |below: Option<Value>, over: Value| {
            let name = below.map_or(over.name, |below| below.name);
            (!over.is_tombstone).then_some(Value { name, ..over })
        });
        overlay(subkeys, self.subkeys.into_values().collect(), |below: Option<Key>, over: Edits| {
            let (below, name) = (below.filter(|_| !over.removed), over.name.clone());
            let new = below.is_none();
            let mut key = match below {
                Some(key) => key,
                None if over.made => Key::new(name),
                None => return None,
            };
            if new {
                key.security = security.clone();
            }
            over.apply(&mut key);
            Some(key)
        });
    }
}
