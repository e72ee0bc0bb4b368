//! A hive with the hives over it as one.

use crate::tree::{Hive, Key, Layering, Semantics, Value};

/// Lays a delta hive over a hive; what both say is the delta's.
///
/// The result of a plain `base` is plain. Costs what the delta holds, not what the base holds.
#[must_use]
pub fn merge(base: Hive, delta: Hive) -> Hive {
    if !delta.layered {
        // Without layering it says nothing of what is below it: it stands for all.
        return delta;
    }
    let name = base.root.name.clone();
    // A root cannot be taken away; an empty one is what is left.
    let mut root = lay_over(Some(base.root), delta.root).unwrap_or_else(|| Key::new(name.clone()));
    root.name = name;
    Hive { root, layered: base.layered }
}

fn lay_over(below: Option<Key>, over: Key) -> Option<Key> {
    let Some(below) = below else { return alone(over) };
    match over.layering.semantics {
        Semantics::Tombstone => None,
        Semantics::SupersedeTree => {
            let class = over.layering.inherit_class.then(|| below.class.clone());
            alone(over).map(|mut key| {
                key.class = class.unwrap_or(key.class);
                key
            })
        }
        Semantics::SupersedeLocal => Some(merged(below, over, true)),
        Semantics::Merge => Some(merged(below, over, false)),
    }
}

/// A key of a delta hive with nothing below it.
fn alone(mut over: Key) -> Option<Key> {
    if over.layering.semantics == Semantics::Tombstone {
        return None;
    }
    over.layering = Layering::default();
    let (values, subkeys) = over.lists_mut();
    values.retain(|v| !v.is_tombstone);
    *subkeys = std::mem::take(subkeys).into_iter().filter_map(alone).collect();
    Some(over)
}

fn merged(mut below: Key, mut over: Key, supersede: bool) -> Key {
    if !over.layering.inherit_class {
        below.class = std::mem::take(&mut over.class);
    }
    below.written = if supersede { over.written } else { below.written.max(over.written) };
    below.name = over.name.clone();
    below.security = over.security.clone();
    below.is_link = over.is_link;
    let (upper_values, upper_subkeys) = over.lists_mut();
    let (values, subkeys) = below.lists_mut();
    if supersede {
        values.clear();
    }
    lay_values(values, std::mem::take(upper_values));
    // Few upper ones go in one by one, many by one pass over both.
    if upper_subkeys.len() * 16 < subkeys.len() {
        for upper in std::mem::take(upper_subkeys) {
            match subkeys.binary_search_by(|k| k.name.order(&upper.name)) {
                Ok(at) => {
                    let lower = std::mem::replace(&mut subkeys[at], Key::new(""));
                    match lay_over(Some(lower), upper) {
                        Some(key) => subkeys[at] = key,
                        None => drop(subkeys.remove(at)),
                    }
                }
                Err(at) => subkeys.splice(at..at, alone(upper)).for_each(drop),
            }
        }
        return below;
    }
    let mut result = Vec::with_capacity(subkeys.len() + upper_subkeys.len());
    let mut lower = std::mem::take(subkeys).into_iter().peekable();
    for upper in std::mem::take(upper_subkeys) {
        result.extend(std::iter::from_fn(|| lower.next_if(|k| k.name.order(&upper.name).is_lt())));
        let same = lower.next_if(|k| k.name.order(&upper.name).is_eq());
        result.extend(lay_over(same, upper));
    }
    result.extend(lower);
    *subkeys = result;
    below
}

fn lay_values(values: &mut Vec<Value>, upper: Vec<Value>) {
    if upper.len() * 16 < values.len() {
        for value in upper {
            match values.binary_search_by(|v| v.name.order(&value.name)) {
                Ok(at) if value.is_tombstone => drop(values.remove(at)),
                Ok(at) => values[at] = value,
                Err(_) if value.is_tombstone => {}
                Err(at) => values.insert(at, value),
            }
        }
        return;
    }
    let mut result = Vec::with_capacity(values.len() + upper.len());
    let mut lower = std::mem::take(values).into_iter().peekable();
    for value in upper {
        result.extend(std::iter::from_fn(|| lower.next_if(|v| v.name.order(&value.name).is_lt())));
        let _same = lower.next_if(|v| v.name.order(&value.name).is_eq());
        if !value.is_tombstone {
            result.push(value);
        }
    }
    result.extend(lower);
    *values = result;
}
