//! One ordered list laid over another, in place: costs no second list, and no walk past what is not touched.

use crate::name::Name;

/// What lists of keys and values hold: something with a name, by which the list is in order.
pub(crate) trait Named: Sized {
    /// The name.
    fn name(&self) -> &Name;
    /// Something that costs nothing, for a place that waits for what comes there.
    fn blank() -> Self;
}

/// Lays `upper` over `lower`, both in the order of their names; `lay` says what is to stand for an upper item and the lower
/// one of its name.
pub(crate) fn overlay<T: Named, U: Named>(
    lower: &mut Vec<T>,
    upper: Vec<U>,
    mut lay: impl FnMut(Option<T>, U) -> Option<T>,
) {
    let (mut at, mut gone, mut new) = (0, Vec::new(), Vec::new());
    for item in upper {
        at = seek(lower, at, item.name());
        if lower.get(at).is_some_and(|l| l.name().order(item.name()).is_eq()) {
            match lay(Some(std::mem::replace(&mut lower[at], T::blank())), item) {
                Some(item) => lower[at] = item,
                None => gone.push(at),
            }
            at += 1;
        } else if let Some(item) = lay(None, item) {
            new.push((at - gone.len(), item));
        }
    }
    remove(lower, &gone);
    insert(lower, new);
}

/// The first place from `from` on whose name is not before `wanted`; near ones are found sooner.
fn seek<T: Named>(list: &[T], from: usize, wanted: &Name) -> usize {
    let before = |item: &T| item.name().order(wanted).is_lt();
    let (mut low, mut step) = (from, 1);
    while list.get(low + step - 1).is_some_and(before) {
        low += step;
        step *= 2;
    }
    let high = list.len().min(low + step);
    low + list[low..high].partition_point(before)
}

fn remove<T>(list: &mut Vec<T>, places: &[usize]) {
    let (mut places, mut at) = (places.iter().peekable(), 0);
    if places.peek().is_some() {
        list.retain(|_| {
            let keep = places.next_if_eq(&&at).is_none();
            at += 1;
            keep
        });
    }
}

/// Puts each item before what now stands at its place; places are in order.
fn insert<T: Named>(list: &mut Vec<T>, items: Vec<(usize, T)>) {
    let mut from = list.len();
    list.reserve_exact(items.len());
    list.resize_with(from + items.len(), T::blank);
    let mut to = list.len();
    for (place, item) in items.into_iter().rev() {
        while from > place {
            from -= 1;
            to -= 1;
            list.swap(from, to);
        }
        to -= 1;
        list[to] = item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Value;

    fn list(names: &str) -> Vec<Value> {
        names.chars().map(|c| Value::dword(c.to_string().as_str(), 0)).collect()
    }

    #[test]
    fn new_ones_stand_in_order_and_gone_ones_do_not() {
        // A capital takes the letter away.
        for (lower, upper, wanted) in [
            ("", "", ""),
            ("", "aBc", "ac"),
            ("b", "ac", "abc"),
            ("bd", "", "bd"),
            ("abc", "ABC", ""),
            ("bdf", "aBcdEfg", "acdfg"),
            ("bdfhjlnprtvxz", "aVyZ", "abdfhjlnprtxy"),
            ("bdfhjlnprtvxz", "BDFHJLNPRTVXZ", ""),
        ] {
            let mut values = list(lower);
            overlay(&mut values, list(upper), |_, over: Value| {
                let small = over.name.units().all(|u| u >= 0x61);
                small.then_some(over)
            });
            assert_eq!(
                values.iter().map(|v| v.name.to_string()).collect::<String>(),
                wanted,
                "{lower} {upper}"
            );
        }
    }
}
