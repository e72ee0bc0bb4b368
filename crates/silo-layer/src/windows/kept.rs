//! What Windows has and Linux has not, as extended attributes: `user.silo.win.*` on files and directories,
//! `trusted.silo.win.*` on links and whiteouts, which can have no other (xattr(7)).
//!
//! Written down in `docs/formats/windows-layer.md`.

use std::collections::BTreeMap;
use std::io;

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use super::aside::{Chain, Store};
use super::names;
use crate::LayerError;
use crate::archive::{self, Item};
use crate::write::{record, seconds};

/// PAX records of the entry: times, Windows' attributes, security descriptor, extended attributes.
pub(super) const RECORDS: &str = "records";
/// The alternate streams.
pub(super) const STREAMS: &str = "streams";
/// The name as the archive spells it, if a layer below spells it otherwise.
pub(super) const NAME: &str = "name";
/// The target of a link as Windows has it.
pub(super) const TARGET: &str = "target";
/// The type bits of the archive's mode, octal, if they are not the usual ones.
pub(super) const TYPE_BITS: &str = "type";
/// Hidden and system as Samba and Wine keep them (Samba, `user.DOSATTRIB`, textual form).
pub(super) const DOS_ATTRIBUTES: &str = "user.DOSATTRIB";

pub(super) const FILE_ATTRIBUTES: &[u8] = b"MSWINDOWS.fileattr";
pub(super) const SECURITY: &[u8] = b"MSWINDOWS.rawsd";
pub(super) const CREATION: &[u8] = b"LIBARCHIVE.creationtime";
const EA: &[u8] = b"MSWINDOWS.xattr.";
/// Bytes of all records of an entry: NTFS has 64 KiB each of descriptor and extended attributes, a third more as base64.
const MOST_RECORDS: usize = 256 << 10;

/// PAX records by their keys.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The full name of an attribute of a node of this type.
pub(super) fn attribute(kind: FileType, name: &str) -> String {
    let space = if matches!(kind, FileType::RegularFile | FileType::Directory) { "user" } else { "trusted" };
    format!("{space}.silo.win.{name}")
}

/// The records of an archive entry, checked and with times in their one spelling.
pub(super) fn records_of(item: &Item) -> Result<Records, LayerError> {
    let mut records = Records::new();
    let mut size = 0;
    for (key, value) in &item.records {
        let bad =
            || LayerError::hostile(&item.name, format!("the record {} is malformed", key.escape_ascii()));
        let value = match key.as_slice() {
            FILE_ATTRIBUTES => number(value).ok_or_else(bad)?.to_string().into_bytes(),
            CREATION | b"atime" | b"ctime" => pax_time(archive::time(value).ok_or_else(bad)?),
            _ => value.clone(),
        };
        if (key == SECURITY || key.starts_with(EA)) && !is_base64(&value) {
            return Err(bad());
        }
        size += key.len() + value.len();
        if size > MOST_RECORDS {
            return Err(LayerError::hostile(&item.name, "its records are larger than NTFS could hold"));
        }
        records.insert(key.clone(), value);
    }
    records.insert(b"mtime".to_vec(), pax_time(item.mtime));
    Ok(records)
}

/// Whether a record is written with a file's first name only.
pub(super) fn is_of_the_file_itself(key: &[u8]) -> bool {
    key.starts_with(b"MSWINDOWS.") && key != FILE_ATTRIBUTES
}

/// A decimal number.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn pax_time(time: (i64, i64)) -> Vec<u8> {
    seconds(time.0, time.1).into_bytes()
}

/// Standard base64 with padding (RFC 4648, section 4).
fn is_base64(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let digits = text.iter().take(text.len() - padding);
    text.len().is_multiple_of(4)
        && padding <= 2
        && digits.into_iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// PAX records as bytes.
pub(super) fn encode<'r>(records: impl Iterator<Item = (&'r [u8], &'r [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.for_each(|(key, value)| record(&mut bytes, key, value));
    bytes
}

/// The list of a node's streams: records `stream=name/value`, since a stream's name may hold `=` but no `/`.
pub(super) fn encode_streams(streams: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in streams {
        record(&mut bytes, b"stream", &[name.as_bytes(), b"/", value].concat());
    }
    bytes
}

/// The attributes that keep `values`, with bytes of any length put aside if they must.
pub(super) fn keep(
    store: &Store,
    kind: FileType,
    values: &[(&str, &[u8])],
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    values
        .iter()
        .map(|(name, bytes)| Ok((attribute(kind, name).into_bytes(), store.keep_bytes(bytes)?)))
        .collect()
}

/// What a node of a tree keeps.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// `None` if the node does not come from an archive.
    pub(super) records: Option<Records>,
    /// Streams, each with the value that stands for its content.
    pub(super) streams: Vec<(String, Vec<u8>)>,
    pub(super) target: Option<String>,
    pub(super) type_bits: Option<u32>,
    pub(super) dos_attributes: Option<u32>,
}

impl Kept {
    /// Reads the attributes of the node at `path`, a link of `/proc/self/fd`.
    pub(super) fn read(path: &str, kind: FileType, chain: &Chain) -> io::Result<Self> {
        let get = |name: &str| -> io::Result<Option<Vec<u8>>> {
            value(path, &attribute(kind, name))?.map(|value| chain.bytes(&value)).transpose()
        };
        let damaged = |name: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is malformed", attribute(kind, name)))
        };
        let text = |name: &str, bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| damaged(name));
        let records = match get(RECORDS)? {
            None => None,
            Some(bytes) => {
                let all = archive::records(&bytes).ok_or_else(|| damaged(RECORDS))?;
                Some(all.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect())
            }
        };
        let mut streams = Vec::new();
        let bytes = get(STREAMS)?.unwrap_or_default();
        for (_, stream) in archive::records(&bytes).ok_or_else(|| damaged(STREAMS))? {
            let slash = stream.iter().position(|b| *b == b'/').ok_or_else(|| damaged(STREAMS))?;
            let name = text(STREAMS, stream[..slash].to_vec())?;
            names::check_stream(&name).map_err(|_| damaged(STREAMS))?;
            streams.push((name, stream[slash + 1..].to_vec()));
        }
        let type_bits = get(TYPE_BITS)?.map(|bytes| {
            let text = std::str::from_utf8(&bytes).ok();
            text.and_then(|t| u32::from_str_radix(t, 8).ok()).ok_or_else(|| damaged(TYPE_BITS))
        });
        let dos = if kind == FileType::Symlink { None } else { value(path, DOS_ATTRIBUTES)? };
        Ok(Self {
            records,
            streams,
            target: get(TARGET)?.map(|bytes| text(TARGET, bytes)).transpose()?,
            type_bits: type_bits.transpose()?,
            dos_attributes: dos.and_then(|text| dos_attributes(&text)),
        })
    }
}

/// `0x2`, possibly with a zero byte at the end; other forms of Samba's are not Wine's either.
fn dos_attributes(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// How a name in a tree is spelled in archives.
pub(super) fn spelled(path: &str, kind: FileType, name: &str) -> io::Result<String> {
    let kept = value(path, &attribute(kind, NAME))?.and_then(|v| {
        let name = v.strip_prefix(b"=")?.to_vec();
        String::from_utf8(name).ok()
    });
    // A file renamed since then keeps its attributes, but not that name.
    let same = |other: &String| names::fold(other) == names::fold(name);
    Ok(kept.filter(same).unwrap_or_else(|| name.to_owned()))
}

/// The value of an extended attribute; links are not followed.
fn value(path: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        let read = if path.starts_with("/proc/self/fd/") && !path["/proc/self/fd/".len()..].contains('/') {
            fs::getxattr(path, name, &mut buffer[..])
        } else {
            fs::lgetxattr(path, name, &mut buffer[..])
        };
        match read {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(Some(buffer));
            }
            // 64 KiB is the most that Linux has (XATTR_SIZE_MAX).
            Err(Errno::RANGE) if buffer.len() < 65_536 => buffer = vec![0; 65_536],
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}
