//! `silo hive`: registry hive files, without a daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use silo_hive::{Hive, Key, Semantics, Value, kind};

use super::Output;

/// Verbs on hive files.
#[derive(Subcommand)]
pub(crate) enum HiveCommand {
    /// List a key's subkeys and values
    Ls {
        /// The hive
        file: PathBuf,
        /// Path of the key below the root, with backslashes
        #[arg(default_value = "")]
        key: String,
        /// Everything below it too
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Print one value's data
    Get {
        /// The hive
        file: PathBuf,
        /// Path of the key
        key: String,
        /// The value; empty for the default value
        #[arg(default_value = "")]
        value: String,
        #[command(flatten)]
        output: Output,
    },
    /// Write a hive as registry text (.reg)
    Export {
        /// The hive
        file: PathBuf,
        /// What the root is called
        #[arg(long, default_value = r"HKEY_LOCAL_MACHINE")]
        prefix: String,
    },
    /// Make the delta hive of two hives
    Diff {
        /// The lower hive
        old: PathBuf,
        /// The hive that it is to become
        new: PathBuf,
        /// Where the delta hive goes; without it the difference is printed as registry text
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Print the difference as JSON
        #[arg(long, conflicts_with = "output")]
        json: bool,
    },
    /// Lay delta hives, or registry text, over a hive
    Merge {
        /// The base, then what lies over it; .reg files too, one as the base stands for a hive of what it sets
        #[arg(required = true, num_args = 1..)]
        files: Vec<PathBuf>,
        /// Where the merged hive goes
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Read a hive to its end and say what it holds
    Check {
        /// The hive
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))
}

/// Reads a hive; a dirty one with the logs beside it.
fn read(path: &Path) -> Result<Hive, String> {
    let failed = |e: silo_hive::HiveError| format!("{}: {e}", path.display());
    let file = bytes(path)?;
    let logs = ["LOG1", "LOG2", "LOG"].iter().filter_map(|end| {
        let mut log = path.as_os_str().to_owned();
        log.push(format!(".{end}"));
        std::fs::read(log).ok()
    });
    let logs: Vec<Vec<u8>> = logs.collect();
    let file = if logs.is_empty() {
        file
    } else {
        let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
        silo_hive::recover(&file, &logs).map_err(failed)?
    };
    Hive::from_bytes(file).map_err(failed)
}

/// Writes beside the place and then there, so that no half file is ever seen.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: std::io::Error| format!("writing {}: {e}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(path).map(drop).map_err(|e| failed(e.error))
}

pub(super) fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // The reader has seen enough (`| head`).
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| format!("writing to standard output: {e}")),
    }
}

fn find<'a>(hive: &'a Hive, file: &Path, path: &str) -> Result<&'a Key, String> {
    hive.root.at_path(path).ok_or_else(|| format!("{}: there is no key {path}", file.display()))
}

pub(super) fn kind_name(number: u32) -> String {
    let known = [
        (kind::NONE, "REG_NONE"),
        (kind::SZ, "REG_SZ"),
        (kind::EXPAND_SZ, "REG_EXPAND_SZ"),
        (kind::BINARY, "REG_BINARY"),
        (kind::DWORD, "REG_DWORD"),
        (kind::DWORD_BIG_ENDIAN, "REG_DWORD_BIG_ENDIAN"),
        (kind::LINK, "REG_LINK"),
        (kind::MULTI_SZ, "REG_MULTI_SZ"),
        (kind::QWORD, "REG_QWORD"),
    ];
    known.iter().find(|(n, _)| *n == number).map_or_else(|| format!("{number:#x}"), |(_, n)| (*n).to_owned())
}

/// Text for a terminal: what would steer it is spelled out.
pub(super) fn visible(text: &str) -> String {
    let spell = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(spell).collect()
}

/// As `reg query` shows it.
pub(super) fn data_text(value: &Value) -> String {
    let data = &value.data;
    let utf16 = || {
        let units: Vec<u16> = data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        visible(&String::from_utf16_lossy(&units).trim_end_matches('\0').replace('\0', "\\0"))
    };
    match (value.kind, data.len()) {
        (kind::SZ | kind::EXPAND_SZ | kind::MULTI_SZ | kind::LINK, _) => utf16(),
        (kind::DWORD, 4) => format!("{:#x}", u32::from_le_bytes([data[0], data[1], data[2], data[3]])),
        (kind::QWORD, 8) => {
            format!("{:#x}", data.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)))
        }
        _ => data.iter().map(|b| format!("{b:02X}")).collect(),
    }
}

pub(super) fn value_json(value: &Value) -> Json {
    json!({
        "name": value.name.to_string(), "type": kind_name(value.kind), "text": data_text(value),
        "hex": value.data.iter().map(|b| format!("{b:02x}")).collect::<String>(), "tombstone": value.is_tombstone,
    })
}

pub(super) fn key_json(key: &Key, recursive: bool) -> Json {
    let subkeys: Vec<Json> = match recursive {
        true => key.subkeys().iter().map(|k| key_json(k, true)).collect(),
        false => key.subkeys().iter().map(|k| json!(k.name.to_string())).collect(),
    };
    json!({
        "name": key.name.to_string(), "written": key.written, "link": key.is_link,
        "layer": layer(key), "inheritClass": key.layering.inherit_class,
        "values": key.values().iter().map(value_json).collect::<Vec<_>>(), "subkeys": subkeys,
    })
}

fn layer(key: &Key) -> &'static str {
    match key.layering.semantics {
        Semantics::Merge => "merge",
        Semantics::Tombstone => "tombstone",
        Semantics::SupersedeLocal => "supersede-local",
        Semantics::SupersedeTree => "supersede-tree",
    }
}

pub(super) fn list(text: &mut String, key: &Key, path: &str, recursive: bool, layered: bool) {
    let mark = |key: &Key| if layered { format!("  ({})", layer(key)) } else { String::new() };
    for value in key.values() {
        let name =
            if value.name.is_empty() { "(Default)".to_owned() } else { visible(&value.name.to_string()) };
        match value.is_tombstone {
            true => text.push_str(&format!("    {name}    (removed)\n")),
            false => {
                text.push_str(&format!("    {name}    {}    {}\n", kind_name(value.kind), data_text(value)));
            }
        }
    }
    for subkey in key.subkeys() {
        let name = visible(&subkey.name.to_string());
        let path = if path.is_empty() { name } else { format!("{path}\\{name}") };
        text.push_str(&format!("{path}{}\n", mark(subkey)));
        if recursive {
            list(text, subkey, &path, true, layered);
        }
    }
}

fn counts(key: &Key) -> (usize, usize) {
    let below = key.subkeys().iter().map(counts);
    below.fold((1, key.values().len()), |(keys, values), (k, v)| (keys + k, values + v))
}

/// Runs one of the verbs.
pub(crate) fn main(command: HiveCommand) -> Result<(), String> {
    match command {
        HiveCommand::Ls { file, key, recursive, output } => {
            let hive = read(&file)?;
            let found = find(&hive, &file, &key)?;
            if output.json {
                return print(&format!("{}\n", key_json(found, recursive)));
            }
            let mut text = String::new();
            list(&mut text, found, key.trim_matches('\\'), recursive, hive.layered);
            print(&text)
        }
        HiveCommand::Get { file, key, value, output } => {
            let hive = read(&file)?;
            let found = find(&hive, &file, &key)?.value(&value);
            let found = found.ok_or_else(|| format!("{}: {key} has no value {value:?}", file.display()))?;
            match output.json {
                true => print(&format!("{}\n", value_json(found))),
                false => print(&format!("{}\n", data_text(found))),
            }
        }
        HiveCommand::Export { file, prefix } => {
            print(&silo_hive::to_reg(&read(&file)?, &prefix).map_err(|e| format!("{}: {e}", file.display()))?)
        }
        HiveCommand::Diff { old, new, output, json } => {
            let delta = silo_hive::diff(&read(&old)?, &read(&new)?);
            let failed = |e: silo_hive::HiveError| format!("the difference of {}: {e}", new.display());
            match output {
                Some(path) => write(&path, &delta.to_bytes().map_err(failed)?),
                None if json => print(&format!("{}\n", key_json(&delta.root, true))),
                None => print(&silo_hive::to_reg(&delta, "HKEY_LOCAL_MACHINE").map_err(failed)?),
            }
        }
        HiveCommand::Merge { files, output } => {
            let mut merged = Hive::default();
            for (i, path) in files.iter().enumerate() {
                let is_text = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("reg"));
                let over = match is_text {
                    true => silo_hive::from_reg(&bytes(path)?, "HKEY_LOCAL_MACHINE")
                        .map_err(|e| format!("{}: {e}", path.display()))?,
                    false => read(path)?,
                };
                merged = match (i, over.layered) {
                    (0, false) => over,
                    (_, true) => silo_hive::merge(merged, over),
                    (_, false) => return Err(format!("{} is no delta hive", path.display())),
                };
            }
            write(&output, &merged.to_bytes().map_err(|e| format!("writing {}: {e}", output.display()))?)
        }
        HiveCommand::Check { file, output } => {
            let hive = read(&file)?;
            let (keys, values) = counts(&hive.root);
            let kind = if hive.layered { "delta hive" } else { "hive" };
            match output.json {
                true => {
                    print(&format!("{}\n", json!({"keys": keys, "values": values, "layered": hive.layered})))
                }
                false => print(&format!("{}: a {kind} of {keys} keys and {values} values\n", file.display())),
            }
        }
    }
}
