//! Tar headers as Windows' tools write them: those of Go's `archive/tar`, byte for byte.
//!
//! Entries are of PAX format, whiteouts of the oldest that will do (`hcsshim:pkg/ociwclayer/export.go`, `go-winio:backuptar/tar.go`,
//! `go:src/archive/tar/writer.go`).

use super::kept::{Records, pax_time};
use crate::write;

const BLOCK: usize = 512;
const NAME: std::ops::Range<usize> = 0..100;
const LINK: std::ops::Range<usize> = 157..257;
const PREFIX: std::ops::Range<usize> = 345..500;

/// What an entry's header says.
pub(super) struct Entry<'e> {
    pub(super) name: &'e str,
    pub(super) link: &'e str,
    /// `0` file, `1` hard link, `2` link, `5` directory.
    pub(super) type_flag: u8,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    /// All records but `path`, `linkpath`, `size` and `mtime`.
    pub(super) records: &'e Records,
}

/// The header, and the PAX header before it: its own header and its content.
pub(super) struct Header {
    pub(super) pax: Option<([u8; BLOCK], Vec<u8>)>,
    pub(super) block: [u8; BLOCK],
}

impl Entry<'_> {
    pub(super) fn header(&self) -> Header {
        let mut records = self.records.clone();
        records.remove(b"mtime".as_slice());
        let mut more = |key: &str, value: &[u8]| drop(records.insert(key.into(), value.to_vec()));
        if self.name.len() > NAME.len() || !self.name.is_ascii() {
            more("path", self.name.as_bytes());
        }
        if self.link.len() > LINK.len() || !self.link.is_ascii() {
            more("linkpath", self.link.as_bytes());
        }
        if !fits(self.size, 11) {
            more("size", self.size.to_string().as_bytes());
        }
        let seconds = u64::try_from(self.mtime.0).ok().filter(|s| fits(*s, 11));
        if seconds.is_none() || self.mtime.1 != 0 {
            more("mtime", &pax_time(self.mtime));
        }
        let mut block = blank(self.type_flag);
        text(&mut block[NAME], &ascii(self.name));
        text(&mut block[LINK], &ascii(self.link));
        octal(&mut block[100..108], self.mode.into());
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], seconds.unwrap_or(0));
        let devices = [329..337, 337..345];
        devices.into_iter().for_each(|field| octal(&mut block[field], 0));
        seal(&mut block);
        let pax = (!records.is_empty()).then(|| pax(self.name, &records));
        Header { pax, block }
    }
}

/// The header of a whiteout: nothing but a name.
pub(super) fn whiteout(name: &str) -> Header {
    let records = Records::new();
    let mut entry =
        Entry { name, link: "", type_flag: b'0', mode: 0, size: 0, mtime: (0, 0), records: &records };
    let Some((prefix, rest)) = split(name) else { return entry.header() };
    entry.name = rest;
    let mut header = entry.header();
    text(&mut header.block[PREFIX], prefix.as_bytes());
    seal(&mut header.block);
    header
}

/// Splits a name that is too long for the field of the name alone, as POSIX' ustar has it.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME.len() || !name.is_ascii() {
        return None;
    }
    let at = name[..name.len().min(PREFIX.len() + 1)].rfind('/').filter(|at| *at > 0)?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    (!rest.is_empty() && rest.len() <= NAME.len()).then_some((prefix, rest))
}

fn pax(name: &str, records: &Records) -> ([u8; BLOCK], Vec<u8>) {
    let content = super::kept::encode(records.iter().map(|(k, v)| (k.as_slice(), v.as_slice())));
    let mut block = blank(b'x');
    let place = match name.rsplit_once('/') {
        Some((directory, file)) => format!("{directory}/PaxHeaders.0/{file}"),
        None => format!("PaxHeaders.0/{name}"),
    };
    text(&mut block[NAME], &ascii(&place));
    octal(&mut block[100..108], 0);
    octal(&mut block[124..136], content.len() as u64);
    octal(&mut block[136..148], 0);
    seal(&mut block);
    (block, content)
}

/// A header without owner.
fn blank(type_flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    block[156] = type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

fn seal(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
}

/// Digits to the width of the field, and a zero.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if fits(value, digits) { value } else { 0 };
    text(field, format!("{value:0digits$o}").as_bytes());
}

fn fits(value: u64, digits: usize) -> bool {
    value < 1 << (3 * digits)
}

/// What of a name is ASCII: the field is for readers that know no PAX.
fn ascii(name: &str) -> Vec<u8> {
    name.bytes().filter(u8::is_ascii).collect()
}

fn text(field: &mut [u8], value: &[u8]) {
    let mut cut = &value[..value.len().min(field.len())];
    // A slash at the end would make it a directory to old readers.
    while value.len() > field.len() && cut.ends_with(b"/") {
        cut = &cut[..cut.len() - 1];
    }
    field.fill(0);
    field[..cut.len()].copy_from_slice(cut);
}

impl Header {
    /// Writes the headers; content follows.
    pub(super) fn write(&self, to: &mut write::Writer<'_>) -> std::io::Result<()> {
        if let Some((block, content)) = &self.pax {
            to.blocks(block)?;
            to.blocks(content)?;
        }
        to.blocks(&self.block)
    }
}
