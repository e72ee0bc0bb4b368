//! A key of a delta hive over one of another delta hive, as one that does what both do.

use crate::laid::{alone, laid, lasting};
use crate::overlay::overlay;
use crate::tree::{Key, Layering, Semantics};

const ANEW: Layering = Layering { semantics: Semantics::SupersedeTree, inherit_class: false };

/// Both as one.
pub(crate) fn squashed(below: Option<Key>, mut over: Key) -> Key {
    let Some(below) = below else { return over };
    // The class comes from below both if neither has its own.
    let inherit_class = over.layering.inherit_class && below.layering.inherit_class;
    match (below.layering.semantics, over.layering.semantics) {
        (_, Semantics::Tombstone) => over,
        (Semantics::Tombstone, _) => anew(alone(over)),
        (_, Semantics::SupersedeTree) => {
            if over.layering.inherit_class {
                over.class = below.class;
                over.layering.inherit_class = inherit_class;
            }
            over
        }
        (Semantics::SupersedeTree, _) => {
            let mut key = anew(laid(alone(below), over));
            key.layering.inherit_class = inherit_class;
            key
        }
        _ => both(below, over, inherit_class),
    }
}

/// Both combine with what is below them.
fn both(mut below: Key, mut over: Key, inherit_class: bool) -> Key {
    let upper_is_local = over.layering.semantics == Semantics::SupersedeLocal;
    let is_local = upper_is_local || below.layering.semantics == Semantics::SupersedeLocal;
    let semantics = if is_local { Semantics::SupersedeLocal } else { Semantics::Merge };
    let (upper_values, upper_subkeys) = over.lists_mut();
    let (upper_values, upper_subkeys) = (std::mem::take(upper_values), std::mem::take(upper_subkeys));
    let (values, subkeys) = below.lists_mut();
    if upper_is_local {
        values.clear();
    }
    // A value that is taken away stays so if a lower hive may have it.
    overlay(values, upper_values, |_, over| if is_local { lasting(over) } else { Some(over) });
    overlay(subkeys, upper_subkeys, |below, over| Some(squashed(below, over)));
    if !over.layering.inherit_class {
        below.class = over.class;
    }
    below.layering = Layering { semantics, inherit_class };
    below.written = if upper_is_local { over.written } else { below.written.max(over.written) };
    (below.name, below.security, below.is_link) = (over.name, over.security, over.is_link);
    below
}

/// As a key that stands, with all below it, for lower ones.
fn anew(mut key: Key) -> Key {
    key.layering = ANEW;
    for subkey in key.lists_mut().1 {
        let below = std::mem::replace(subkey, Key::new(""));
        *subkey = anew(below);
    }
    key
}
