//! A key of a delta hive over one of a plain hive, as a plain one.

use crate::overlay::overlay;
use crate::tree::{Key, Layering, Semantics, Value};

/// A key over one of a plain hive; none if it takes it away.
fn lay_over(below: Option<Key>, over: Key) -> Option<Key> {
    match below {
        _ if over.layering.semantics == Semantics::Tombstone => None,
        Some(below) => Some(laid(below, over)),
        None => Some(alone(over)),
    }
}

/// A key that is no tombstone, over one of a plain hive.
pub(crate) fn laid(mut below: Key, mut over: Key) -> Key {
    let semantics = over.layering.semantics;
    if semantics == Semantics::SupersedeTree {
        let class = over.layering.inherit_class.then_some(below.class);
        let mut key = alone(over);
        key.class = class.unwrap_or(key.class);
        return key;
    }
    if !over.layering.inherit_class {
        below.class = std::mem::take(&mut over.class);
    }
    let (upper_values, upper_subkeys) = over.lists_mut();
    let (upper_values, upper_subkeys) = (std::mem::take(upper_values), std::mem::take(upper_subkeys));
    let (values, subkeys) = below.lists_mut();
    if semantics == Semantics::SupersedeLocal {
        values.clear();
    }
    overlay(values, upper_values, |_, over| lasting(over));
    overlay(subkeys, upper_subkeys, lay_over);
    below.written = match semantics {
        Semantics::SupersedeLocal => over.written,
        _ => below.written.max(over.written),
    };
    (below.name, below.security, below.is_link) = (over.name, over.security, over.is_link);
    below
}

/// A key of a delta hive, no tombstone, with nothing below it.
pub(crate) fn alone(mut over: Key) -> Key {
    over.layering = Layering::default();
    let (values, subkeys) = over.lists_mut();
    values.retain(|v| !v.is_tombstone);
    subkeys.retain(|k| k.layering.semantics != Semantics::Tombstone);
    for subkey in subkeys {
        let key = std::mem::replace(subkey, Key::new(""));
        *subkey = alone(key);
    }
    over
}

/// The value, unless it takes one away.
pub(crate) fn lasting(value: Value) -> Option<Value> {
    (!value.is_tombstone).then_some(value)
}
