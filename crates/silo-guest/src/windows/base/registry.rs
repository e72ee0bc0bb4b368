//! Wine's registry text: reads it, changes it, writes it the same way each time.
//!
//! Format: `WINE REGISTRY Version 2`, then per key `[Escaped\\Path] seconds`, `#`-lines with attributes, and one
//! value a line (`"name"="text"`, `@=…` for the default, `dword:…`, `hex(n):…` continued with `\`). Text holds
//! `\xNNNN` for characters beyond ASCII. (Wine: `server/registry.c`, `save_branch` and `load_keys`.)

use std::collections::BTreeMap;
use std::fmt::Write;

/// A registry file whose keys all get one time, so that equal contents are equal bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RegistryText {
    header: Vec<String>,
    keys: BTreeMap<KeyPath, Key>,
}

/// A key's path as it sorts in the file: case-insensitively, parents first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct KeyPath(Vec<String>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Key {
    /// As written, with doubled backslashes.
    path: String,
    /// `#class=`, `#link`; without `#time=`.
    attributes: Vec<String>,
    /// Lower-case quoted name (or `@`) → the whole text of the value, continuation lines joined.
    values: BTreeMap<String, String>,
}

impl KeyPath {
    fn of(path: &str) -> KeyPath {
        KeyPath(path.split("\\\\").map(str::to_lowercase).collect())
    }
}

impl RegistryText {
    /// Reads a file that Wine wrote.
    pub(super) fn parse(text: &str) -> RegistryText {
        let mut registry = RegistryText::default();
        let mut current: Option<KeyPath> = None;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut line = line.to_owned();
            while line.ends_with('\\') && !line.starts_with('[') {
                line.pop();
                line.push_str(lines.next().unwrap_or_default().trim_start());
            }
            if let Some(rest) = line.strip_prefix('[') {
                let path = rest.rsplit_once(']').map_or(rest, |(path, _)| path);
                let key = KeyPath::of(path);
                registry.keys.entry(key.clone()).or_default().path = path.to_owned();
                current = Some(key);
                continue;
            }
            match current.as_ref().and_then(|key| registry.keys.get_mut(key)) {
                None if line.starts_with(";;") || line.is_empty() => {}
                None => registry.header.push(line),
                Some(_) if line.is_empty() || line.starts_with("#time=") => {}
                Some(key) if line.starts_with('#') => key.attributes.push(line),
                Some(key) => drop(key.values.insert(value_name(&line).to_lowercase(), line)),
            }
        }
        registry
    }

    /// Sets a value; `path` has single backslashes, `value` is in the file's own notation (`dword:1`, `"text"`).
    pub(super) fn set(&mut self, path: &str, name: &str, value: &str) {
        let name = if name.is_empty() { "@".to_owned() } else { format!("\"{}\"", escape(name)) };
        self.key(path).values.insert(name.to_lowercase(), format!("{name}={value}"));
    }

    /// Sets a string value.
    pub(super) fn set_text(&mut self, path: &str, name: &str, text: &str) {
        self.set(path, name, &format!("\"{}\"", escape(text)));
    }

    /// Sets an expandable string value.
    pub(super) fn set_expandable(&mut self, path: &str, name: &str, text: &str) {
        self.set(path, name, &format!("str(2):\"{}\"", escape(text)));
    }

    /// Removes a value, if it is there.
    pub(super) fn remove_value(&mut self, path: &str, name: &str) {
        let name = if name.is_empty() { "@".to_owned() } else { format!("\"{}\"", escape(name)) };
        self.key(path).values.remove(&name.to_lowercase());
    }

    /// Removes a key and everything below it.
    pub(super) fn remove(&mut self, path: &str) {
        let root = KeyPath::of(&path.replace('\\', "\\\\"));
        self.keys.retain(|key, _| !key.0.starts_with(&root.0));
    }

    /// The names of the keys directly below `path`, as written.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let root = KeyPath::of(&path.replace('\\', "\\\\"));
        let below = self.keys.iter().filter(|(key, _)| key.0.starts_with(&root.0));
        let mut names: Vec<String> = below
            .filter_map(|(_, key)| key.path.split("\\\\").nth(root.0.len()).map(str::to_owned))
            .collect();
        names.dedup_by_key(|name| name.to_lowercase());
        names
    }

    /// A value in the file's own notation.
    pub(super) fn get(&self, path: &str, name: &str) -> Option<&str> {
        let name = if name.is_empty() { "@".to_owned() } else { format!("\"{}\"", escape(name)) };
        let key = self.keys.get(&KeyPath::of(&path.replace('\\', "\\\\")))?;
        key.values.get(&name.to_lowercase())?.get(name.len() + 1..)
    }

    /// The file, every key with the time `seconds` (since 1970).
    pub(super) fn write(&self, seconds: u64) -> String {
        let mut out = String::new();
        for line in &self.header {
            out.push_str(line);
            out.push('\n');
        }
        for key in self.keys.values() {
            // Writing to a String does not fail.
            let _ = writeln!(out, "\n[{}] {seconds}", key.path);
            for line in key.attributes.iter().chain(key.values.values()) {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }

    fn key(&mut self, path: &str) -> &mut Key {
        let path = path.replace('\\', "\\\\");
        let key = self.keys.entry(KeyPath::of(&path)).or_default();
        if key.path.is_empty() {
            key.path = path;
        }
        key
    }
}

/// The `"name"` or `@` before the `=` of a value's line.
fn value_name(line: &str) -> &str {
    if !line.starts_with('"') {
        return line.split('=').next().unwrap_or(line);
    }
    let mut escaped = false;
    for (at, c) in line.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &line[..=at],
            _ => {}
        }
    }
    line
}

/// Text as it stands between quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(c @ (b'\\' | b'"')) => out.extend(['\\', char::from(c)]),
            Ok(c @ 0x20..0x7f) => out.push(char::from(c)),
            // Four digits always, so that a digit that follows is not taken for one of them.
            _ => {
                let _ = write!(out, "\\x{unit:04x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "WINE REGISTRY Version 2\n;; All keys relative to \\\\Machine\n\n#arch=win64\n\n\
        [Software\\\\B] 1700000001\n#time=1dabc\n\"x\\\"=\"=\"1\"\n\"Long\"=hex:01,\\\n  02,03\n\n\
        [Software\\\\A] 1700000000\n@=\"d\"\n";

    #[test]
    fn equal_contents_are_equal_bytes() {
        let text = RegistryText::parse(TEXT).write(7);
        assert_eq!(
            text,
            "WINE REGISTRY Version 2\n#arch=win64\n\n[Software\\\\A] 7\n@=\"d\"\n\n\
             [Software\\\\B] 7\n\"Long\"=hex:01,02,03\n\"x\\\"=\"=\"1\"\n"
        );
        assert_eq!(RegistryText::parse(&text).write(7), text);
    }

    #[test]
    fn values_are_set_whatever_their_case_was() {
        let mut registry = RegistryText::parse(TEXT);
        registry.set("software\\b", "LONG", "dword:00000001");
        registry.set_text("Software\\C", "n", "a\\b\u{e9}");
        assert_eq!(registry.get("Software\\B", "long"), Some("dword:00000001"));
        assert_eq!(registry.get("SOFTWARE\\C", "N"), Some("\"a\\\\b\\x00e9\""));
        assert_eq!(registry.children("Software"), ["A", "B", "C"]);
        registry.remove("Software\\B");
        assert_eq!(registry.children("Software"), ["A", "C"]);
    }
}
