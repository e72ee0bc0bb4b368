//! The difference of two hives, as a delta hive.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::links::mark_key;
use crate::merge::merge;
use crate::tree::{Hive, Key, Layering, Semantics, Value};

/// The delta hive that makes `new` of `old`: `merge(old, diff(&old, &new)) == new`.
///
/// Both are plain; a delta hive counts as what it makes of an empty hive. Keys on the way to a change are there as keys that
/// merge; a hive without changes gives a delta of a root alone.
#[must_use]
pub fn diff(old: &Hive, new: &Hive) -> Hive {
    let (old, new) = (plain(old), plain(new));
    let mut root = changed(&old.root, &new.root).unwrap_or_else(|| path_only(&new.root));
    if old.root.name != new.root.name {
        // The name of a root that merges is the lower one's.
        supersede(&mut root, &new.root);
    }
    // The root of Windows' own deltas has no layering (measured); it merges either way.
    if root.layering == INHERITED && old.root.class.is_empty() {
        root.layering = Layering::default();
    }
    Hive { root, layered: true }
}

fn plain(hive: &Hive) -> Cow<'_, Hive> {
    match hive.layered {
        true => Cow::Owned(merge(Hive::default(), hive.clone())),
        false => Cow::Borrowed(hive),
    }
}

const INHERITED: Layering = Layering { semantics: Semantics::Merge, inherit_class: true };

fn path_only(new: &Key) -> Key {
    let mut key = new.bare();
    key.layering = INHERITED;
    key.class = Default::default();
    key
}

/// What of `new` differs from `old`, if anything.
fn changed(old: &Key, new: &Key) -> Option<Key> {
    let subkeys = sides(
        old.subkeys(),
        new.subkeys(),
        |k| &k.name,
        |old, new| match (old, new) {
            (Some(old), Some(new)) => changed(old, new),
            (None, Some(new)) => Some(whole(new)),
            (Some(old), None) => Some(gone(old)),
            (None, None) => None,
        },
    );
    let values = sides(
        old.values(),
        new.values(),
        |v| &v.name,
        |old, new| match (old, new) {
            (Some(old), Some(new)) if old == new => None,
            (_, Some(new)) => Some(new.clone()),
            (Some(old), None) => Some(Value::tombstone(old.name.clone())),
            (None, None) => None,
        },
    );
    let same = old.name == new.name
        && old.written == new.written
        && old.class == new.class
        && old.security == new.security
        && old.is_link == new.is_link;
    if same && values.is_empty() && subkeys.is_empty() {
        return None;
    }
    let mut key = path_only(new);
    if old.class != new.class {
        key.class = new.class.clone();
        key.layering.inherit_class = false;
    }
    let (key_values, key_subkeys) = key.lists_mut();
    (*key_values, *key_subkeys) = (values, subkeys);
    if new.written < old.written {
        // A merged key's time is the newest of its layers'; only a key that stands for the lower one can be older.
        supersede(&mut key, new);
    }
    if old.is_link && !new.is_link {
        mark_key(&mut key, new);
    }
    Some(key)
}

/// Makes a key of the delta stand for the lower one's values, class and time.
fn supersede(key: &mut Key, new: &Key) {
    key.layering = Layering { semantics: Semantics::SupersedeLocal, inherit_class: false };
    key.class = new.class.clone();
    *key.lists_mut().0 = new.values().to_vec();
}

/// A key that is in no lower hive.
fn whole(new: &Key) -> Key {
    let mut key = new.bare();
    key.layering = Layering { semantics: Semantics::SupersedeTree, inherit_class: false };
    let (values, subkeys) = key.lists_mut();
    *values = new.values().to_vec();
    *subkeys = new.subkeys().iter().map(whole).collect();
    key
}

fn gone(old: &Key) -> Key {
    let mut key = old.bare();
    key.class = Default::default();
    key.is_link = false;
    key.layering = Layering { semantics: Semantics::Tombstone, inherit_class: false };
    key
}

/// Walks two ordered lists side by side.
fn sides<'a, T, N: Fn(&T) -> &crate::name::Name>(
    old: &'a [T],
    new: &'a [T],
    name: N,
    mut take: impl FnMut(Option<&'a T>, Option<&'a T>) -> Option<T>,
) -> Vec<T> {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => name(a).order(name(b)),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let a = if order.is_le() { old.get(i) } else { None };
        let b = if order.is_ge() { new.get(j) } else { None };
        i += usize::from(a.is_some());
        j += usize::from(b.is_some());
        out.extend(take(a, b));
    }
    out
}
