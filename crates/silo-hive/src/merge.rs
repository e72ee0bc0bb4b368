//! A hive with a delta hive over it as one.

use crate::laid::laid;
use crate::squash::squashed;
use crate::tree::{Hive, Key, Semantics};

/// Lays a delta hive over a hive; what both say is the delta's.
///
/// Of a plain `base` comes a plain hive. Of a delta hive comes a delta hive that does what both do, one after the other:
/// `merge(merge(base, lower), upper) == merge(base, merge(lower, upper))`. A plain `delta` says nothing of what is below
/// it: it stands for all.
///
/// Costs what the delta holds, and the lists that it lengthens or shortens.
#[must_use]
pub fn merge(base: Hive, delta: Hive) -> Hive {
    if !delta.layered {
        return delta;
    }
    let (below, over) = (as_root(base.root), as_root(delta.root));
    // The root's name is in no path, and in Windows' own deltas always ROOT: only one that stands for the lower counts.
    let name = (over.layering.semantics == Semantics::Merge).then(|| below.name.clone());
    let mut root = match base.layered {
        true => squashed(Some(below), over),
        false => laid(below, over),
    };
    root.name = name.unwrap_or(root.name);
    Hive { root, layered: base.layered }
}

/// A root cannot be taken away; one without anything is what is left.
fn as_root(mut root: Key) -> Key {
    if root.layering.semantics == Semantics::Tombstone {
        root.layering.semantics = Semantics::SupersedeTree;
        let (values, subkeys) = root.lists_mut();
        values.clear();
        subkeys.clear();
    }
    root
}
