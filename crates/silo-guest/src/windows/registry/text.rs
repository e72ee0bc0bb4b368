//! Wine's registry files, "version 2", to trees and back.
//!
//! Form: the first line, lines of `;;` remarks, `#arch=win64`; then for each key `[Path\\\\Of\\\\Names] seconds`, its options
//! `#time=` (100 ns since 1601, hexadecimal), `#class=`, `#link`, and its values: `"name"=` or `@=` and `"text"`,
//! `str(2):"text"`, `dword:`, `hex(type):`, the last continued after a backslash. (Wine: `server/registry.c`, `save_subkeys`
//! and `load_keys`.) Everything of a hive has a place but security descriptors.

use std::collections::BTreeMap;
use std::io::Write;

use silo_hive::{Key, Name, Value, kind};

use super::escape;

const HEADER: &str = "WINE REGISTRY Version 2";
/// Keys that a path may have: Windows' own bound.
const DEPTH: usize = 511;
/// Seconds and 100 ns between 1601 and 1970.
const EPOCH: u64 = 11_644_473_600;
const SECOND: u64 = 10_000_000;
/// Columns after which bytes go on in the next line.
const WIDTH: usize = 76;

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TextError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// Reads a file to the tree of the key that it is relative to. Keys that it only implies have the time 0.
pub(in crate::windows) fn read(bytes: &[u8]) -> Result<Key, TextError> {
    let mut root = Node::default();
    let mut lines = bytes.split(|b| *b == b'\n').enumerate();
    let bad = |line: usize, problem| TextError { line: line + 1, problem };
    if lines.next().is_none_or(|(_, line)| line.trim_ascii_end() != HEADER.as_bytes()) {
        return Err(bad(0, "it does not begin with \"WINE REGISTRY Version 2\""));
    }
    let mut current: Option<&mut Node> = None;
    let mut left = MOST;
    while let Some((number, line)) = lines.next() {
        let line = line.trim_ascii();
        let mut spend = |n: usize| {
            left = left.checked_sub(n).ok_or_else(|| bad(number, "it has too many keys and values"))?;
            Ok(())
        };
        match line.first() {
            None | Some(b';') => {}
            Some(b'[') => {
                let (path, seconds) = key_line(&line[1..]).map_err(|p| bad(number, p))?;
                spend(path.len())?;
                let node = root.at(path).map_err(|p| bad(number, p))?;
                node.written = seconds.map_or(0, |s| s.saturating_add(EPOCH).saturating_mul(SECOND));
                current = Some(node);
            }
            Some(b'#') => match current.as_mut() {
                Some(node) => node.option(&line[1..]).map_err(|p| bad(number, p))?,
                None if line == b"#arch=win64" || !line.starts_with(b"#arch") => {}
                None => return Err(bad(number, "it is of another processor")),
            },
            Some(_) => {
                spend(1)?;
                let node = current.as_mut().ok_or_else(|| bad(number, "a value stands before any key"))?;
                let value = value(line, &mut lines).ok_or_else(|| bad(number, "it is no value"))?;
                let name = folded(&value.name);
                if node.values.get(&name).is_some_and(|before| before.name != value.name) {
                    return Err(bad(number, "two values of a key differ in case only"));
                }
                node.values.insert(name, value);
            }
        }
    }
    root.into_key("ROOT".into()).map_err(|p| bad(0, p))
}

/// Most keys (each with those above it) and values of a file: programs of a container can write it.
const MOST: usize = 8_000_000;

/// What orders names.
fn folded(name: &Name) -> Vec<u16> {
    name.units().map(silo_hive::upcase).collect()
}

/// A key being read: in any order of lines.
#[derive(Default)]
struct Node {
    name: Name,
    written: u64,
    class: Vec<u8>,
    is_link: bool,
    values: BTreeMap<Vec<u16>, Value>,
    subkeys: BTreeMap<Vec<u16>, Node>,
}

impl Node {
    fn at(&mut self, path: Vec<Name>) -> Result<&mut Node, &'static str> {
        let mut node = self;
        for name in path {
            node = node
                .subkeys
                .entry(folded(&name))
                .or_insert_with(|| Node { name: name.clone(), ..Node::default() });
            if node.name != name {
                return Err("two keys differ in case only");
            }
        }
        Ok(node)
    }

    fn option(&mut self, option: &[u8]) -> Result<(), &'static str> {
        if let Some(time) = option.strip_prefix(b"time=") {
            let time = std::str::from_utf8(time).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
            self.written = time.ok_or("a key's time is no number")?;
        } else if let Some(class) = option.strip_prefix(b"class=\"") {
            let (units, _) = escape::read(class, b'"').ok_or("a key's class does not end")?;
            self.class = units.iter().flat_map(|u| u.to_le_bytes()).collect();
        } else if option == b"link" {
            self.is_link = true;
        }
        Ok(())
    }

    fn into_key(self, name: Name) -> Result<Key, &'static str> {
        let mut key = Key::new(name);
        (key.written, key.class, key.is_link) = (self.written, self.class.into(), self.is_link);
        for value in self.values.into_values() {
            key.insert_value(value).map_err(|_| "a value's name is too long")?;
        }
        for node in self.subkeys.into_values() {
            let name = node.name.clone();
            key.insert_subkey(node.into_key(name)?).map_err(|_| "a key's name cannot stand in a hive")?;
        }
        Ok(key)
    }
}

/// `Path\\Of\\Names] seconds`; no name: the key that all others are below.
fn key_line(line: &[u8]) -> Result<(Vec<Name>, Option<u64>), &'static str> {
    let mut path = Vec::new();
    let mut rest = line;
    loop {
        // Two backslashes part names: up to them, or to the bracket.
        let end = separator(rest).ok_or("a key's line does not end with ]")?;
        let mut name = rest[..end].to_vec();
        name.push(b']');
        let (units, _) = escape::read(&name, b']').ok_or("a key's name ends within a letter")?;
        if units.len() > 255 || (units.is_empty() && (rest[end] != b']' || !path.is_empty())) {
            return Err("a key's name is empty or longer than 255");
        }
        if !units.is_empty() {
            path.push(Name::from_units(&units));
        }
        if path.len() > DEPTH {
            return Err("keys are nested deeper than 511");
        }
        if rest[end] == b']' {
            rest = &rest[end + 1..];
            break;
        }
        rest = &rest[end + 2..];
    }
    let seconds = std::str::from_utf8(rest.trim_ascii()).ok().and_then(|text| text.parse().ok());
    Ok((path, seconds))
}

/// Where a name ends: at `\\` or `]`.
fn separator(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b']', _) | (b'\\', Some(b'\\')) => return Some(at),
            (b'\\', _) => at += 2,
            _ => at += 1,
        }
    }
}

/// A value; its lines after the first are taken from `lines`.
fn value<'a>(line: &'a [u8], lines: &mut impl Iterator<Item = (usize, &'a [u8])>) -> Option<Value> {
    let (name, rest) = match line.strip_prefix(b"\"") {
        Some(rest) => escape::read(rest, b'"')?,
        None => (Vec::new(), line.strip_prefix(b"@")?),
    };
    let data = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let name = Name::from_units(&name);
    let text = |kind: u32, text: &[u8]| -> Option<Value> {
        let (units, _) = escape::read(text, b'"')?;
        let bytes: Vec<u8> = units.into_iter().chain([0]).flat_map(u16::to_le_bytes).collect();
        Some(Value::new(name.clone(), kind, bytes))
    };
    if let Some(rest) = data.strip_prefix(b"\"").or_else(|| data.strip_prefix(b"str:\"")) {
        return text(kind::SZ, rest);
    }
    if let Some(rest) = data.strip_prefix(b"str(") {
        let (number, rest) = numbered(rest)?;
        return text(number, rest.strip_prefix(b"\"")?);
    }
    if let Some(rest) = data.strip_prefix(b"dword:") {
        let number = u32::from_str_radix(std::str::from_utf8(rest).ok()?.trim(), 16).ok()?;
        return Some(Value::new(name, kind::DWORD, number.to_le_bytes().to_vec()));
    }
    let data = data.strip_prefix(b"hex")?;
    let (number, mut data) = match data.strip_prefix(b"(") {
        Some(rest) => numbered(rest)?,
        None => (kind::BINARY, data.strip_prefix(b":")?),
    };
    let mut bytes = Vec::new();
    loop {
        let more = data.strip_suffix(b"\\");
        for byte in more.unwrap_or(data).split(|b| *b == b',') {
            let byte = byte.trim_ascii();
            if !byte.is_empty() {
                bytes.push(u8::from_str_radix(std::str::from_utf8(byte).ok()?, 16).ok()?);
            }
        }
        if more.is_none() {
            return Some(Value::new(name, number, bytes));
        }
        data = lines.next()?.1.trim_ascii();
    }
}

/// `number):` and what follows.
fn numbered(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().position(|b| *b == b')')?;
    let number = u32::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
    Some((number, bytes[end + 1..].strip_prefix(b":")?))
}

/// The file of a tree. `shown` is the path of its root as the remark in the file has it, such as `REGISTRY\\\\Machine`.
pub(in crate::windows) fn write(root: &Key, shown: &str) -> Vec<u8> {
    let mut out = format!("{HEADER}\n;; All keys relative to {shown}\n\n#arch=win64\n").into_bytes();
    let mut path = Vec::new();
    if !root.values().is_empty() || !root.class.is_empty() {
        head(&mut out, root, b"");
    }
    for subkey in root.subkeys() {
        key(&mut out, subkey, &mut path);
    }
    out
}

fn key(out: &mut Vec<u8>, of: &Key, path: &mut Vec<u8>) {
    let length = path.len();
    if length > 0 {
        path.extend_from_slice(b"\\\\");
    }
    escape::write(path, of.name.units(), b"[]");
    head(out, of, path);
    for subkey in of.subkeys() {
        key(out, subkey, path);
    }
    path.truncate(length);
}

/// A key's line, its options and its values.
fn head(out: &mut Vec<u8>, of: &Key, path: &[u8]) {
    out.extend_from_slice(b"\n[");
    out.extend_from_slice(path);
    // Writing to memory does not fail.
    let _ = writeln!(out, "] {}\n#time={:x}", (of.written / SECOND).saturating_sub(EPOCH), of.written);
    if !of.class.is_empty() {
        out.extend_from_slice(b"#class=\"");
        escape::write(out, units(&of.class), b"\"");
        out.extend_from_slice(b"\"\n");
    }
    if of.is_link {
        out.extend_from_slice(b"#link\n");
    }
    for one in of.values() {
        write_value(out, one);
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]))
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    let start = out.len();
    if value.name.is_empty() {
        out.push(b'@');
    } else {
        out.push(b'"');
        escape::write(out, value.name.units(), b"\"");
        out.push(b'"');
    }
    let data = &value.data;
    let is_text = matches!(value.kind, kind::SZ | kind::EXPAND_SZ | kind::MULTI_SZ)
        && data.len() >= 2
        && data.len().is_multiple_of(2)
        && data.ends_with(&[0, 0]);
    // Writing to memory does not fail.
    let _ = match value.kind {
        kind::SZ if is_text => write!(out, "=\""),
        form if is_text => write!(out, "=str({form}):\""),
        kind::DWORD if data.len() == 4 => {
            let _ = writeln!(out, "=dword:{:08x}", u32::from_le_bytes([data[0], data[1], data[2], data[3]]));
            return;
        }
        kind::BINARY => write!(out, "=hex:"),
        other => write!(out, "=hex({other:x}):"),
    };
    if is_text {
        escape::write(out, units(&data[..data.len() - 2]), b"\"");
        out.extend_from_slice(b"\"\n");
        return;
    }
    let mut column = out.len() - start;
    for (i, byte) in data.iter().enumerate() {
        let comma = if i + 1 < data.len() { "," } else { "" };
        let _ = write!(out, "{byte:02x}{comma}");
        column += 3;
        if column > WIDTH && !comma.is_empty() {
            out.extend_from_slice(b"\\\n  ");
            column = 2;
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
