//! `filters` of the Docker API: name → values, any value of a name may match, all names must.

use std::collections::BTreeMap;

/// Parsed filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    /// The values of a filter, empty when it is not given.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
    /// Whether it is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    /// Exact match of any value; true when the filter is not given.
    pub fn exact(&self, name: &str, value: &str) -> bool {
        let wanted = self.get(name);
        wanted.is_empty() || wanted.iter().any(|w| w == value)
    }
    /// `label=key` or `label=key=value`, every one given must match.
    pub fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(name).iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        })
    }
    /// The first name that is not among `known`.
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|k| !known.contains(k))
    }
}
