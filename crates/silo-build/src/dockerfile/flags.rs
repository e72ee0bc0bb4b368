//! Flags of an instruction: those it knows, each of one type.

use super::words::meant;

/// A flag that an instruction knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Once, with or without `=true`, `=false`.
    Bool,
    /// Once, with a value.
    Text,
    /// Any number of times, with a value each.
    List,
}

/// The flags of one instruction.
#[derive(Debug)]
pub(super) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks flags against those that are known.
    pub(super) fn parse(words: &[String], known: &[(&'static str, Kind)]) -> Result<Self, String> {
        let mut values: Vec<(&'static str, String)> = Vec::new();
        for word in words {
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(f, v)| (f, Some(v)));
            let name = &flag[2..];
            let Some((name, kind)) = known.iter().find(|(k, _)| *k == name) else {
                return Err(meant(format!("unknown flag: {flag}"), name, known.iter().map(|(k, _)| *k)));
            };
            if *kind != Kind::List && values.iter().any(|(n, _)| n == name) {
                return Err(format!("duplicate flag specified: {flag}"));
            }
            let value = match (kind, value) {
                (Kind::Bool, Some("")) | (Kind::Text | Kind::List, None) => {
                    return Err(format!("missing a value on flag: {flag}"));
                }
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    bool @ ("true" | "false") => bool.to_owned(),
                    _ => return Err(format!("expecting boolean value for flag {flag}, not: {value}")),
                },
                (_, Some(value)) => value.to_owned(),
            };
            values.push((name, value));
        }
        Ok(Self { values })
    }

    /// A flag's value.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        // As dockerd: an empty one is none.
        self.list(name).into_iter().next().filter(|v| !v.is_empty())
    }

    /// Whether it is set, if it is given.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|v| v == "true")
    }

    /// All its values.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.clone()).collect()
    }
}
