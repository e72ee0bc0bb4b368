//! From text to a delta hive.

use bytes::Bytes;

use super::HEADER;
use crate::error::HiveError;
use crate::tree::{Hive, Key, Layering, Semantics, Value, kind};

const MERGE: Layering = Layering { semantics: Semantics::Merge, inherit_class: true };

/// Reads text (UTF-16 with a byte order mark, or UTF-8) whose keys all begin with `prefix`, in any case.
///
/// The result is a delta hive, as the text is one: it sets and takes away. Merged into an empty hive it is a hive of what
/// the text sets.
///
/// # Errors
/// [`HiveError::Text`] with the line.
pub fn from_reg(text: &[u8], prefix: &str) -> Result<Hive, HiveError> {
    let text = decode(text)?;
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err(bad(1, "the first line is not \"Windows Registry Editor Version 5.00\""));
    }
    let mut hive = Hive { layered: true, ..Hive::default() };
    let mut path: Option<Vec<&str>> = None;
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        if let Some(inside) = line.strip_prefix('[') {
            let Some(inside) = inside.strip_suffix(']') else {
                return Err(bad(number, "a key's line does not end with ]"));
            };
            let gone = inside.strip_prefix('-');
            let names = below(gone.unwrap_or(inside), prefix)
                .ok_or_else(|| bad(number, "the key is not below the one that was asked for"))?;
            match gone {
                Some(_) => remove(&mut hive.root, &names, number)?,
                None => drop(at(&mut hive.root, &names, number)?),
            }
            path = gone.is_none().then_some(names);
            continue;
        }
        let Some(path) = &path else { return Err(bad(number, "a value stands before any key")) };
        let mut whole = line.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some((_, more)) => whole.push_str(more),
                None => return Err(bad(number, "the text ends within a value")),
            }
        }
        let value = value(&whole).ok_or_else(|| bad(number, "it is no value"))?;
        let key = at(&mut hive.root, path, number)?;
        // In a key that is new there is nothing to take away.
        if value.is_tombstone && key.layering.semantics == Semantics::SupersedeTree {
            key.remove_value(&value.name.to_string());
        } else {
            key.insert_value(value)?;
        }
    }
    Ok(hive)
}

fn bad(line: usize, problem: &'static str) -> HiveError {
    HiveError::Text { line, problem }
}

fn decode(bytes: &[u8]) -> Result<String, HiveError> {
    let wrong = || bad(1, "it is neither UTF-16 nor UTF-8 text");
    match bytes {
        [0xff, 0xfe, rest @ ..] => {
            let units: Vec<u16> = rest.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
            String::from_utf16(&units).map_err(|_| wrong())
        }
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).map_err(|_| wrong()),
    }
}

/// The names of `path` after `prefix`.
fn below<'a>(path: &'a str, prefix: &str) -> Option<Vec<&'a str>> {
    let mut names = path.split('\\');
    for wanted in prefix.split('\\') {
        names.next().filter(|n| n.eq_ignore_ascii_case(wanted))?;
    }
    Some(names.collect())
}

/// The key at a path, made where it is missing.
fn at<'a>(root: &'a mut Key, names: &[&str], line: usize) -> Result<&'a mut Key, HiveError> {
    let mut key = root;
    for name in names {
        let new = key.layering.semantics == Semantics::SupersedeTree;
        let missing = match key.subkey_mut(name) {
            None => true,
            Some(gone) if gone.layering.semantics == Semantics::Tombstone => {
                gone.layering = Layering { semantics: Semantics::SupersedeTree, inherit_class: false };
                false
            }
            Some(_) => false,
        };
        if missing {
            let mut fresh = Key::new(*name);
            fresh.layering = MERGE;
            if new {
                fresh.layering = Layering { semantics: Semantics::SupersedeTree, inherit_class: false };
            }
            key.insert_subkey(fresh)?;
        }
        key = key.subkey_mut(name).ok_or_else(|| bad(line, "the key's name is empty"))?;
    }
    Ok(key)
}

fn remove(root: &mut Key, names: &[&str], line: usize) -> Result<(), HiveError> {
    let Some((last, parents)) = names.split_last() else {
        return Err(bad(line, "the whole hive cannot be taken away"));
    };
    let parent = at(root, parents, line)?;
    parent.remove_subkey(last);
    if parent.layering.semantics == Semantics::SupersedeTree {
        return Ok(());
    }
    let mut gone = Key::new(*last);
    gone.layering = Layering { semantics: Semantics::Tombstone, inherit_class: false };
    parent.insert_subkey(gone).map(drop)
}

/// `"name"=data`, `@=data`.
fn value(line: &str) -> Option<Value> {
    let (name, rest) = match line.strip_prefix('@') {
        Some(rest) => (String::new(), rest),
        None => unquote(line)?,
    };
    let data = rest.trim_start().strip_prefix('=')?.trim();
    let name = name.as_str();
    if data == "-" {
        return Some(Value::tombstone(name));
    }
    if data.starts_with('"') {
        let (text, rest) = unquote(data)?;
        return rest.trim().is_empty().then(|| Value::string(name, &text));
    }
    let (form, data) = data.split_once(':')?;
    if form.eq_ignore_ascii_case("dword") {
        return Some(Value::dword(name, u32::from_str_radix(data.trim(), 16).ok()?));
    }
    let form = form.to_ascii_lowercase();
    let number = match form.strip_prefix("hex")? {
        "" => kind::BINARY,
        number => u32::from_str_radix(number.strip_prefix('(')?.strip_suffix(')')?, 16).ok()?,
    };
    let bytes = data.split(',').map(str::trim);
    let bytes: Option<Vec<u8>> = match data.trim() {
        "" => Some(Vec::new()),
        _ => bytes.map(|b| u8::from_str_radix(b, 16).ok()).collect(),
    };
    Some(Value::new(name, number, Bytes::from(bytes?)))
}

/// A text in quotes, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.strip_prefix('"')?.char_indices();
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return Some((out, &text[i + 2..])),
            '\\' => out.push(characters.next()?.1),
            _ => out.push(c),
        }
    }
    None
}
