//! The program's environment: names without case, nothing of the host's.

/// `NAME=value` entries with one entry a name: the last one counts, at the place and in the spelling of the first, as
/// Windows does it.
pub(super) fn merge<'a>(entries: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    for entry in entries {
        let Some((name, value)) = split(entry) else { continue };
        match merged.iter_mut().find(|other| split(other).is_some_and(|(n, _)| n.eq_ignore_ascii_case(name)))
        {
            Some(other) => {
                let spelling = split(other).map_or(name, |(n, _)| n).to_owned();
                *other = format!("{spelling}={value}");
            }
            None => merged.push(entry.clone()),
        }
    }
    merged
}

/// A variable's value.
#[cfg(test)]
fn get<'a>(entries: &'a [String], name: &str) -> Option<&'a str> {
    entries
        .iter()
        .filter_map(|e| split(e))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Name and value; a name may begin with `=` (a drive's directory), and is never empty.
fn split(entry: &str) -> Option<(&str, &str)> {
    let start = entry.chars().next()?.len_utf8();
    let equals = start + entry.get(start..)?.find('=')?;
    Some((&entry[..equals], &entry[equals + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_whatever_their_case() {
        let entries = ["Path=a".to_owned(), "X=1".to_owned(), "PATH=b".to_owned(), "junk".to_owned()];
        let merged = merge(&entries);
        assert_eq!(merged, ["Path=b", "X=1"]);
        assert_eq!(get(&merged, "pAtH"), Some("b"));
    }

    #[test]
    fn values_may_hold_equals_signs() {
        assert_eq!(split("A=b=c"), Some(("A", "b=c")));
        assert_eq!(split("=C:=C:\\x"), Some(("=C:", "C:\\x")));
        assert_eq!(split("=x"), None);
    }
}
