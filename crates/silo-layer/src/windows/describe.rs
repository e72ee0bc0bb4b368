//! What an archive says of a node of a tree: kept records where they still hold, defaults where there are none.

use rustix::fs::{self, FileType};

use super::kept::{self, CREATION, FILE_ATTRIBUTES, Kept, Records, SECURITY};
use super::links;
use super::node::usual_type_bits;
use super::roots::drive;
use crate::archive;

const READ_ONLY: u32 = 0x1;
const HIDDEN_OR_SYSTEM: u32 = 0x6;
const DIRECTORY: u32 = 0x10;
const ARCHIVE: u32 = 0x20;
const REPARSE_POINT: u32 = 0x400;

/// `O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;LC;;;BU)(A;CI;DC;;;BU)`
/// (`buildkit:util/winlayers/differ.go`)
const DIRECTORY_SECURITY: &[u8] = b"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgCoAAcAAAAAAxgA/wEfAAECAAAAAAAFIAAAACACAAAAAxQA/wEfAAEBAAAAAAAFEgAAAAAAGAD/AR8AAQIAAAAAAAUgAAAAIAIAAAALFAAAAAAQAQEAAAAAAAMAAAAAAAMYAKkAEgABAgAAAAAABSAAAAAhAgAAAAIYAAQAAAABAgAAAAAABSAAAAAhAgAAAAIYAAIAAAABAgAAAAAABSAAAAAhAgAA";
/// `O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)` (the same)
const FILE_SECURITY: &[u8] = b"AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA==";

/// Where ext4 ends: times beyond are cut (`linux:fs/ext4/super.c`, `s_time_min`, `s_time_max`).
const EARLIEST: i64 = -(1 << 31);
const LATEST: i64 = (1 << 34) - (1 << 31) - 1;

/// All that the headers of a node need.
pub(super) struct Described {
    pub(super) type_flag: u8,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    pub(super) link: String,
    pub(super) records: Records,
}

/// Describes the node at `path` of a tree; `link` is its target on Linux. `is_directory` knows what is on the drive whose
/// root has so many components. The error says what Windows cannot have.
pub(super) fn describe(
    stat: &fs::Stat,
    kept: &Kept,
    path: &[String],
    link: &str,
    is_directory: impl Fn(usize, &[String]) -> bool,
) -> Result<Described, String> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let root = drive(path);
    // The root of a drive has no descriptor in an archive either.
    let in_drive = root.is_some_and(|root| path.len() > root);
    let (records, mtime) = match &kept.records {
        Some(records) => still(stat, records),
        None => new(stat, kind, in_drive),
    };
    let mut described = Described { type_flag: b'0', mode: 0, size: 0, mtime, link: String::new(), records };
    let mut leads_to_directory = false;
    match kind {
        FileType::Directory => described.type_flag = b'5',
        FileType::Symlink => {
            described.type_flag = b'2';
            if let Some(target) = &kept.target {
                described.link.clone_from(target);
            } else {
                let root = root.ok_or("a link outside Files")?;
                let directory = path.get(root..path.len().saturating_sub(1)).unwrap_or_default();
                let (target, to) = links::to_windows(link, directory)?;
                described.link = target;
                leads_to_directory = is_directory(root, &to);
            }
        }
        _ => described.size = stat.st_size.max(0) as u64,
    }
    let default = match kind {
        FileType::Directory => DIRECTORY,
        FileType::Symlink if leads_to_directory => DIRECTORY | REPARSE_POINT,
        FileType::Symlink => ARCHIVE | REPARSE_POINT,
        _ => ARCHIVE,
    };
    let attributes = attributes(stat, kind, kept, described.records.get(FILE_ATTRIBUTES), default);
    if let Some(attributes) = attributes {
        described.records.insert(FILE_ATTRIBUTES.to_vec(), attributes.to_string().into_bytes());
    }
    described.mode = kept.type_bits.unwrap_or_else(|| usual_type_bits(kind, attributes));
    Ok(described)
}

/// Kept records; of a node changed since then creation time, attributes and security remain.
fn still(stat: &fs::Stat, records: &Records) -> (Records, (i64, i64)) {
    let now = (stat.st_mtime, stat.st_mtime_nsec as i64);
    let mut records = records.clone();
    let then = records.remove(b"mtime".as_slice()).and_then(|text| archive::time(&text)).unwrap_or(now);
    let cut = (now.0 == EARLIEST && then.0 < EARLIEST) || (now.0 == LATEST && then.0 > LATEST);
    if now == then || cut {
        return (records, then);
    }
    let mtime = rounded(stat);
    for key in [b"atime", b"ctime"] {
        records.insert(key.to_vec(), kept::pax_time(mtime));
    }
    (records, mtime)
}

/// A new node's records.
fn new(stat: &fs::Stat, kind: FileType, in_drive: bool) -> (Records, (i64, i64)) {
    let mtime = rounded(stat);
    let mut records = times(mtime);
    if in_drive {
        let security = if kind == FileType::Directory { DIRECTORY_SECURITY } else { FILE_SECURITY };
        records.insert(SECURITY.to_vec(), security.to_vec());
    }
    (records, mtime)
}

/// A node that is on no disk; with a descriptor if it is below a drive's root.
pub(super) fn made(is_directory: bool, size: u64, time: (i64, i64), in_drive: bool) -> Described {
    let (type_flag, mode, attributes, security) = match is_directory {
        true => (b'5', 0o040_000, DIRECTORY, DIRECTORY_SECURITY),
        false => (b'0', 0o100_000, ARCHIVE, FILE_SECURITY),
    };
    let mut records = times(time);
    records.insert(FILE_ATTRIBUTES.to_vec(), attributes.to_string().into_bytes());
    if in_drive {
        records.insert(SECURITY.to_vec(), security.to_vec());
    }
    Described { type_flag, mode, size, mtime: time, link: String::new(), records }
}

/// The records of a node all of whose times are the same.
pub(super) fn times(time: (i64, i64)) -> Records {
    [&b"atime"[..], b"ctime", CREATION].into_iter().map(|key| (key.to_vec(), kept::pax_time(time))).collect()
}

/// Windows counts in 100 nanoseconds.
fn rounded(stat: &fs::Stat) -> (i64, i64) {
    let nanoseconds = stat.st_mtime_nsec as i64;
    (stat.st_mtime, nanoseconds - nanoseconds % 100)
}

/// Windows' attributes: as kept, but read-only, hidden and system as they are now; `None` to say nothing.
fn attributes(
    stat: &fs::Stat,
    kind: FileType,
    kept: &Kept,
    text: Option<&Vec<u8>>,
    default: u32,
) -> Option<u32> {
    let was = text.and_then(|text| kept::number(text));
    let mut now = was.unwrap_or(default);
    if kind == FileType::RegularFile {
        now &= !READ_ONLY;
        now |= if stat.st_mode & 0o222 == 0 { READ_ONLY } else { 0 };
    }
    if kind != FileType::Symlink {
        now = now & !HIDDEN_OR_SYSTEM | kept.dos_attributes.unwrap_or(0) & HIDDEN_OR_SYSTEM;
    }
    (was.is_some() || kept.records.is_none() || now != default).then_some(now)
}
