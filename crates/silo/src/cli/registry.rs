//! `silo registry`: what keys and values a Windows container or image has, and which of them it changed.

use std::fmt::Write;
use std::io::{IsTerminal, Read};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use silo_hive::{Hive, Key, Value};

use super::Output;
use super::client::Client;
use super::hive::{data_text, key_json, kind_name, list, print, value_json, visible};

/// Most bytes of a registry.
const LARGEST: u64 = 1 << 30;

#[derive(Subcommand)]
pub(crate) enum RegistryCommand {
    /// Show what differs: of a container to its image, of an image to the one below, or between two (OLD..NEW)
    Diff {
        /// Container, image, or two of them with two dots between
        of: String,
        #[command(flatten)]
        output: Output,
    },
    /// List a key's values and subkeys
    Ls {
        /// Container or image
        of: String,
        /// Path such as `HKLM\\Software`; without it, the roots
        #[arg(default_value = "")]
        key: String,
        /// With everything below
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show one value
    Get {
        /// Container or image
        of: String,
        /// Key, such as `HKLM\\Software\\Acme`
        key: String,
        /// Name; without it, the default value
        #[arg(default_value = "")]
        value: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Roots' names and their hives.
type Registry = Vec<(String, Hive)>;

/// Long names of roots.
const LONG: [(&str, &str); 3] =
    [("HKEY_LOCAL_MACHINE", "HKLM"), ("HKEY_CURRENT_USER", "HKCU"), ("HKEY_USERS", "HKU")];

fn fetch(client: &Client, of: &str, original: bool) -> Result<Registry, String> {
    let mut name = String::new();
    for byte in of.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' | b':' => {
                name.push(char::from(byte));
            }
            // Writing to a String does not fail.
            _ => drop(write!(name, "%{byte:02X}")),
        }
    }
    let original = if original { "&original=1" } else { "" };
    let bytes = client.get_bytes(&format!("/silo/registry?of={name}{original}"), LARGEST)?;
    let broken = |e: std::io::Error| format!("the daemon's answer: {e}");
    let mut registry = Registry::new();
    for entry in tar::Archive::new(&bytes[..]).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let root = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut hive = Vec::new();
        entry.read_to_end(&mut hive).map_err(broken)?;
        registry.push((root.clone(), Hive::from_bytes(hive).map_err(|e| format!("{of}: {root}: {e}"))?));
    }
    Ok(registry)
}

/// The key at a path, and the path as it is.
fn find<'a>(registry: &'a Registry, of: &str, path: &str) -> Result<(&'a Key, String), String> {
    let trimmed = path.trim_matches('\\');
    let (first, rest) = trimmed.split_once('\\').unwrap_or((trimmed, ""));
    let first =
        LONG.iter().find(|(long, _)| long.eq_ignore_ascii_case(first)).map_or(first, |(_, short)| short);
    let whole = format!("{first}\\{rest}");
    let whole = whole.trim_end_matches('\\');
    let missing = || format!("{of}: there is no key {path}");
    let (root, hive) = registry
        .iter()
        .find(|(root, _)| {
            let head = whole.get(..root.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(root))
                && matches!(whole.as_bytes().get(root.len()), None | Some(b'\\'))
        })
        .ok_or_else(missing)?;
    let mut below = whole[root.len()..].trim_start_matches('\\').to_owned();
    // A link that only a running system has.
    const LINK: &str = "CurrentControlSet";
    let links = below.get(..LINK.len()).is_some_and(|head| head.eq_ignore_ascii_case(LINK));
    if links && matches!(below.as_bytes().get(LINK.len()), None | Some(b'\\')) {
        let current = hive.root.at_path("Select").and_then(|key| key.value("Current"));
        let number = current.and_then(|v| v.data.first().copied()).filter(|n| *n > 0).unwrap_or(1);
        below = format!("ControlSet{number:03}{}", &below[LINK.len()..]);
    }
    let key = hive.root.at_path(&below).ok_or_else(missing)?;
    let shown = if below.is_empty() { root.clone() } else { format!("{root}\\{below}") };
    Ok((key, shown))
}

/// One changed key.
struct Change {
    path: String,
    /// `added`, `deleted`, `changed`.
    what: &'static str,
    /// Old and new.
    values: Vec<(Option<Value>, Option<Value>)>,
}

/// Walks two trees side by side.
fn compare(path: &str, old: Option<&Key>, new: Option<&Key>, changes: &mut Vec<Change>) {
    let find_in = |list: &[Value], value: &Value| -> Option<Value> {
        list.iter().find(|other| other.name.order(&value.name).is_eq()).cloned()
    };
    let none: &[Value] = &[];
    let (olds, news) = (old.map_or(none, Key::values), new.map_or(none, Key::values));
    let mut values = Vec::new();
    for value in olds {
        let now = find_in(news, value);
        if now.as_ref().is_none_or(|now| (now.kind, &now.data) != (value.kind, &value.data)) {
            values.push((Some(value.clone()), now));
        }
    }
    values
        .extend(news.iter().filter(|value| find_in(olds, value).is_none()).map(|v| (None, Some(v.clone()))));
    let what = match (old, new) {
        (None, _) => "added",
        (_, None) => "deleted",
        _ => "changed",
    };
    if !values.is_empty() || what != "changed" {
        changes.push(Change { path: path.to_owned(), what, values });
    }
    let none: &[Key] = &[];
    let (olds, news) = (old.map_or(none, Key::subkeys), new.map_or(none, Key::subkeys));
    let (mut i, mut j) = (0, 0);
    while i < olds.len() || j < news.len() {
        let order = match (olds.get(i), news.get(j)) {
            (Some(a), Some(b)) => a.name.order(&b.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        let a = olds.get(i).filter(|_| order.is_le());
        let b = news.get(j).filter(|_| order.is_ge());
        (i, j) = (i + usize::from(a.is_some()), j + usize::from(b.is_some()));
        if let Some(name) = b.or(a).map(|key| &key.name) {
            compare(&format!("{path}\\{name}"), a, b, changes);
        }
    }
}

fn name_of(value: &Value) -> String {
    if value.name.is_empty() { "(Default)".to_owned() } else { visible(&value.name.to_string()) }
}

fn shown(changes: &[Change], colours: bool) -> String {
    let (red, green, off) = if colours { ("\x1b[31m", "\x1b[32m", "\x1b[0m") } else { ("", "", "") };
    let mut text = String::new();
    for change in changes {
        let (colour, sign) = match change.what {
            "added" => (green, "+ "),
            "deleted" => (red, "- "),
            _ => ("", "  "),
        };
        let end = if colour.is_empty() { "" } else { off };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{colour}{sign}{}{end}", visible(&change.path));
        for (old, new) in &change.values {
            for (value, colour, sign) in [(old, red, '-'), (new, green, '+')] {
                if let Some(v) = value {
                    let (name, kind, data) = (name_of(v), kind_name(v.kind), data_text(v));
                    let _ = writeln!(text, "{colour}{sign}     {name}    {kind}    {data}{off}");
                }
            }
        }
    }
    text
}

fn changes_json(changes: &[Change]) -> Json {
    let value = |value: &Option<Value>| value.as_ref().map_or(Json::Null, value_json);
    let all = changes.iter().map(|change| {
        let values = change.values.iter().map(|(old, new)| json!({"old": value(old), "new": value(new)}));
        json!({"key": change.path, "change": change.what, "values": values.collect::<Vec<_>>()})
    });
    Json::Array(all.collect())
}

/// Runs one of the verbs.
pub(crate) fn main(client: &Client, command: RegistryCommand) -> Result<(), String> {
    match command {
        RegistryCommand::Diff { of, output } => {
            let (old, new) = match of.split_once("..") {
                Some((old, new)) => (fetch(client, old, false)?, fetch(client, new, false)?),
                None => (fetch(client, &of, true)?, fetch(client, &of, false)?),
            };
            let mut changes = Vec::new();
            for ((root, old), (_, new)) in old.iter().zip(&new) {
                compare(root, Some(&old.root), Some(&new.root), &mut changes);
            }
            if output.json {
                return print(&format!("{}\n", changes_json(&changes)));
            }
            let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print(&shown(&changes, colours))
        }
        RegistryCommand::Ls { of, key, recursive, output } => {
            let registry = fetch(client, &of, false)?;
            if key.trim_matches('\\').is_empty() {
                let roots: Vec<&str> = registry.iter().map(|(root, _)| root.as_str()).collect();
                return match output.json {
                    true => print(&format!("{}\n", json!(roots))),
                    false => print(&format!("{}\n", roots.join("\n"))),
                };
            }
            let (found, path) = find(&registry, &of, &key)?;
            if output.json {
                return print(&format!("{}\n", key_json(found, recursive)));
            }
            let mut text = String::new();
            list(&mut text, found, &path, recursive, false);
            print(&text)
        }
        RegistryCommand::Get { of, key, value, output } => {
            let registry = fetch(client, &of, false)?;
            let (found, path) = find(&registry, &of, &key)?;
            let found = found.value(&value);
            let found = found.ok_or_else(|| format!("{of}: {path} has no value {value:?}"))?;
            match output.json {
                true => print(&format!("{}\n", value_json(found))),
                false => print(&format!("{}\n", data_text(found))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut software = Hive::default();
        let mut acme = Key::new("Acme");
        acme.insert_value(Value::string("v", "1")).unwrap();
        software.root.insert_subkey(acme).unwrap();
        let mut system = Hive::default();
        system.root.insert_subkey(Key::new("ControlSet001")).unwrap();
        vec![("HKLM\\SOFTWARE".to_owned(), software), ("HKLM\\SYSTEM".to_owned(), system)]
    }

    #[test]
    fn keys_are_found_by_any_name_of_their_root() {
        let registry = registry();
        let path = |path: &str| find(&registry, "x", path).map(|(_, path)| path);
        assert_eq!(path("hklm\\Software\\ACME").unwrap(), "HKLM\\SOFTWARE\\ACME");
        assert_eq!(path("HKEY_LOCAL_MACHINE\\software").unwrap(), "HKLM\\SOFTWARE");
        assert_eq!(path("HKLM\\System\\CurrentControlSet").unwrap(), "HKLM\\SYSTEM\\ControlSet001");
        assert_eq!(path("HKLM\\Soft").unwrap_err(), "x: there is no key HKLM\\Soft");
    }

    #[test]
    fn changes_show_both_sides() {
        let (old, mut new) = (registry(), registry());
        let root = &mut new[0].1.root;
        root.subkey_mut("Acme").unwrap().insert_value(Value::string("v", "2")).unwrap();
        root.insert_subkey(Key::new("New")).unwrap();
        let mut changes = Vec::new();
        compare("S", Some(&old[0].1.root), Some(&new[0].1.root), &mut changes);
        compare("T", Some(&old[1].1.root), Some(&Key::new("x")), &mut changes);
        let text =
            "  S\\Acme\n-     v    REG_SZ    1\n+     v    REG_SZ    2\n+ S\\New\n- T\\ControlSet001\n";
        assert_eq!(shown(&changes, false), text);
        assert!(shown(&changes, true).contains("\x1b[31m-     v    REG_SZ    1\x1b[0m"));
    }
}
