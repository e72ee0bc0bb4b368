//! A registry tree by paths, to change what Wine set up.

use silo_hive::{Key, Name, Value, kind};

/// A tree whose keys all get one time, so that equal contents are equal bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Registry {
    root: Key,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { root: Key::new("ROOT") }
    }
}

impl Registry {
    /// To change `root`.
    pub(super) fn new(root: Key) -> Registry {
        Registry { root }
    }

    /// The tree, every key with the time `seconds` (since 1970).
    pub(super) fn into_key(mut self, seconds: u64) -> Key {
        fn stamp(key: &mut Key, time: u64) {
            key.written = time;
            key.subkeys_mut().iter_mut().for_each(|key| stamp(key, time));
        }
        stamp(&mut self.root, (seconds + 11_644_473_600) * 10_000_000);
        self.root
    }

    /// Sets a value, its key made if it is missing. Paths and names here are constants, or come from a registry.
    fn set(&mut self, path: &str, value: Value) {
        let key = path.split('\\').try_fold(&mut self.root, |key, name| key.subkey_or_new(Name::from(name)));
        debug_assert!(key.is_ok(), "{path} can be no key");
        let _ = key.map(|key| key.insert_value(value));
    }

    /// Sets a string value.
    pub(super) fn set_text(&mut self, path: &str, name: &str, text: &str) {
        self.set(path, Value::string(name, text));
    }

    /// Sets an expandable string value.
    pub(super) fn set_expandable(&mut self, path: &str, name: &str, text: &str) {
        self.set(path, Value { kind: kind::EXPAND_SZ, ..Value::string(name, text) });
    }

    /// Sets an empty list of strings.
    pub(super) fn set_empty_list(&mut self, path: &str, name: &str) {
        self.set(path, Value::new(name, kind::MULTI_SZ, vec![0, 0]));
    }

    /// Sets a number.
    pub(super) fn set_number(&mut self, path: &str, name: &str, number: u32) {
        self.set(path, Value::dword(name, number));
    }

    /// Gives the key at `to` the values `names` of the one at `from`.
    pub(super) fn copy_values(&mut self, from: &str, to: &str, names: &[&str]) {
        for name in names {
            if let Some(value) = self.root.at_path(from).and_then(|key| key.value(name)).cloned() {
                self.set(to, value);
            }
        }
    }

    /// Removes a value, if it is there.
    pub(super) fn remove_value(&mut self, path: &str, name: &str) {
        if let Some(key) = self.key_mut(path) {
            key.remove_value(name);
        }
    }

    /// Removes a key and everything below it.
    pub(super) fn remove(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
        if let Some(parent) = self.key_mut(parent) {
            parent.remove_subkey(name);
        }
    }

    /// The names of the keys directly below `path`.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let key = self.root.at_path(path);
        key.into_iter().flat_map(Key::subkeys).map(|key| key.name.to_string()).collect()
    }

    /// A value's data as text, without the zero at its end.
    pub(super) fn text(&self, path: &str, name: &str) -> Option<String> {
        let data = &self.root.at_path(path)?.value(name)?.data;
        let units: Vec<u16> = data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        Some(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned())
    }

    fn key_mut(&mut self, path: &str) -> Option<&mut Key> {
        let mut names = path.split('\\').filter(|name| !name.is_empty());
        names.try_fold(&mut self.root, |key, name| key.subkey_mut(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_whatever_their_case_was() {
        let mut registry = Registry::default();
        registry.set_number("Software\\B", "Long", 1);
        registry.set_text("software\\b", "LONG", "x");
        registry.set_text("Software\\C", "n", "a\\b\u{e9}");
        assert_eq!(registry.text("Software\\B", "long").as_deref(), Some("x"));
        assert_eq!(registry.text("SOFTWARE\\C", "N").as_deref(), Some("a\\b\u{e9}"));
        assert_eq!(registry.children("Software"), ["B", "C"]);
        registry.remove("Software\\B");
        registry.remove_value("Software\\C", "N");
        assert_eq!(registry.children("Software"), ["C"]);
        assert_eq!(registry.text("Software\\C", "n"), None);
        let key = registry.into_key(0);
        assert_eq!(key.at_path("Software\\C").unwrap().written, 116_444_736_000_000_000);
    }
}
