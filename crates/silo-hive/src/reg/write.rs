//! From a tree to text.

use std::fmt::Write;

use crate::error::HiveError;
use crate::name::Name;
use crate::tree::{Hive, Key, Semantics, Value, kind};

/// First line of the text.
pub(super) const HEADER: &str = "Windows Registry Editor Version 5.00";

/// Most bytes of a text: each key stands there with its whole path, which may make much of a small hive.
const LONGEST: usize = 1 << 30;
/// Columns after which bytes go on in the next line.
const WIDTH: usize = 76;

/// The hive as text (UTF-8, lines ended by CR LF), its root called `prefix`, such as `HKEY_LOCAL_MACHINE\Software`.
///
/// What a delta hive takes away is there as `[-key]` and `"value"=-`. Times, classes, links' marks and security
/// descriptors have no place in such text, nor has the difference between [`Semantics::Merge`] and
/// [`Semantics::SupersedeLocal`].
///
/// # Errors
/// [`HiveError::Name`] for a name with half of a surrogate pair or a line's end; [`HiveError::Tree`] for more than 1 GiB.
pub fn to_reg(hive: &Hive, prefix: &str) -> Result<String, HiveError> {
    let mut text = format!("{HEADER}\r\n");
    key(&mut text, &hive.root, prefix, false)?;
    Ok(text)
}

fn key(text: &mut String, key: &Key, path: &str, in_new: bool) -> Result<(), HiveError> {
    if text.len() > LONGEST {
        return Err(HiveError::Tree("as text it has more than 1 GiB"));
    }
    let semantics = key.layering.semantics;
    if semantics == Semantics::Tombstone {
        let _ = write!(text, "\r\n[-{path}]\r\n");
        return Ok(());
    }
    // What stands for all below it begins anew; so does everything in it.
    let anew = semantics == Semantics::SupersedeTree;
    if anew && !in_new {
        let _ = write!(text, "\r\n[-{path}]\r\n");
    }
    let _ = write!(text, "\r\n[{path}]\r\n");
    for v in key.values() {
        value(text, v)?;
    }
    for subkey in key.subkeys() {
        self::key(text, subkey, &format!("{path}\\{}", spelled(&subkey.name)?), in_new || anew)?;
    }
    Ok(())
}

fn spelled(name: &Name) -> Result<String, HiveError> {
    let units: Vec<u16> = name.units().collect();
    String::from_utf16(&units).ok().filter(|n| !n.contains(['\r', '\n'])).ok_or_else(|| HiveError::Name {
        name: name.to_string(),
        problem: "text cannot hold it: half of a surrogate pair, or a line's end",
    })
}

fn value(text: &mut String, value: &Value) -> Result<(), HiveError> {
    let start = text.len();
    match value.name.is_empty() {
        true => text.push('@'),
        false => quoted(text, &spelled(&value.name)?),
    }
    text.push('=');
    match (value.kind, string(value)) {
        _ if value.is_tombstone => text.push('-'),
        (kind::SZ, Some(string)) => quoted(text, &string),
        (kind::DWORD, _) if value.data.len() == 4 => {
            let d = &value.data;
            let _ = write!(text, "dword:{:08x}", u32::from_le_bytes([d[0], d[1], d[2], d[3]]));
        }
        (kind, _) => {
            text.push_str("hex");
            if kind != kind::BINARY {
                let _ = write!(text, "({kind:x})");
            }
            text.push(':');
            let mut column = text.len() - start;
            for (i, byte) in value.data.iter().enumerate() {
                let comma = if i + 1 < value.data.len() { "," } else { "" };
                let _ = write!(text, "{byte:02x}{comma}");
                column += 3;
                if column > WIDTH && !comma.is_empty() {
                    text.push_str("\\\r\n  ");
                    column = 2;
                }
            }
        }
    }
    text.push_str("\r\n");
    Ok(())
}

/// The text of a `REG_SZ` that quotes can hold: ended by one zero, none inside, no control characters.
fn string(value: &Value) -> Option<String> {
    if !value.data.len().is_multiple_of(2) {
        return None;
    }
    let units: Vec<u16> = value.data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let (zero, rest) = units.split_last()?;
    let text = String::from_utf16(rest).ok()?;
    (*zero == 0 && !text.contains(|c: char| c < ' ')).then_some(text)
}

fn quoted(text: &mut String, content: &str) {
    text.push('"');
    for c in content.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}
