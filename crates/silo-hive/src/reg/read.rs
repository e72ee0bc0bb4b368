//! From text to a delta hive, or into a hive.

use bytes::Bytes;

use super::edits::Edits;
use super::write::HEADER;
use crate::error::HiveError;
use crate::name::{KEY_NAME, Name, VALUE_NAME};
use crate::tree::{Hive, Value, kind};

/// Keys that a path may have below the root: Windows' own bound.
const DEPTH: usize = 511;

/// Reads text (UTF-16 with a byte order mark, or UTF-8) whose keys all begin with `prefix`, in any case.
///
/// The result is a delta hive, as the text is one: it sets and takes away. Merged into an empty hive it is a hive of what
/// the text sets. What text does not say of a key, its security descriptor and that it is a link, is there as of a plain new
/// key; [`apply_reg`] leaves it as it is.
///
/// # Errors
/// [`HiveError::Text`] with the line.
pub fn from_reg(text: &[u8], prefix: &str) -> Result<Hive, HiveError> {
    Ok(edits(text, prefix)?.into_delta())
}

/// Does to a plain hive what a text says, as `regedit` does: keys that are there keep their names' case, classes, times and
/// descriptors; a new key has its parent's descriptor.
///
/// # Errors
/// As [`from_reg`]; the hive is then as it was.
pub fn apply_reg(hive: &mut Hive, text: &[u8], prefix: &str) -> Result<(), HiveError> {
    edits(text, prefix)?.apply(&mut hive.root);
    Ok(())
}

fn edits(text: &[u8], prefix: &str) -> Result<Edits, HiveError> {
    let text = decode(text)?;
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err(bad(1, "the first line is not \"Windows Registry Editor Version 5.00\""));
    }
    let mut root = Edits::root();
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
            check(&names).map_err(|problem| bad(number, problem))?;
            match (gone, names.split_last()) {
                (None, _) => drop(root.make(&names)),
                (Some(_), Some((last, parents))) => root.remove(parents, last),
                (Some(_), None) => return Err(bad(number, "the whole hive cannot be taken away")),
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
        if value.name.len() > VALUE_NAME {
            return Err(bad(number, "the value's name is too long"));
        }
        root.set(path, value);
    }
    Ok(root)
}

/// What is wrong with a path, if anything.
fn check(names: &[&str]) -> Result<(), &'static str> {
    if names.len() > DEPTH {
        return Err("keys are nested deeper than 512");
    }
    match names.iter().any(|name| !(1..=KEY_NAME).contains(&Name::from(*name).len())) {
        true => Err("a key's name is empty or longer than 255"),
        false => Ok(()),
    }
}

fn bad(line: usize, problem: &'static str) -> HiveError {
    HiveError::Text { line, problem }
}

fn decode(bytes: &[u8]) -> Result<String, HiveError> {
    let wrong = || bad(1, "it is neither UTF-16 nor UTF-8 text");
    match bytes {
        [0xff, 0xfe, rest @ ..] => {
            if !rest.len().is_multiple_of(2) {
                return Err(wrong());
            }
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
        return Some(Value::dword(name, hex(data.trim())?));
    }
    let form = form.to_ascii_lowercase();
    let number = match form.strip_prefix("hex")? {
        "" => kind::BINARY,
        number => hex(number.strip_prefix('(')?.strip_suffix(')')?)?,
    };
    let bytes = data.split(',').map(str::trim);
    let bytes: Option<Vec<u8>> = match data.trim() {
        "" => Some(Vec::new()),
        _ => bytes.map(|b| hex(b)?.try_into().ok()).collect(),
    };
    Some(Value::new(name, number, Bytes::from(bytes?)))
}

/// A number of digits only; a sign is none.
fn hex(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with(['+', '-']))
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
