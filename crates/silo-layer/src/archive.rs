//! Reads a tar archive entry by entry, with every size bounded and PAX values of any bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tar::{EntryType, Header};

use crate::LayerError;
use crate::record::Record;

/// Largest extension header (names, attributes) that is taken.
pub(crate) const LARGEST_EXTENSION: u64 = 1 << 20;
/// Bytes that are read and written at once.
const PIECE: usize = 128 << 10;

/// One entry, with all extension headers applied.
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) size: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Extended attributes without which the entry would not be what it is: that they cannot be set is an error.
    pub(crate) kept: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bits of the mode above the permissions; Windows' tools write the type there.
    pub(crate) type_bits: u32,
    /// Other PAX records that a Windows layer may have: `MSWINDOWS.*`, `LIBARCHIVE.*`, `atime`, `ctime`.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the extension headers before an entry said.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The archive; after [`Reader::next`] it reads as the content of that entry.
pub(crate) struct Reader<'a> {
    from: &'a mut dyn Read,
    record: Option<&'a mut dyn Record>,
    left: u64,
    padding: u64,
    last: Vec<u8>,
    piece: Vec<u8>,
    /// The archive may end with its last entry's last byte.
    unpadded: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, record: None, left: 0, padding: 0, last: Vec::new(), piece: Vec::new(), unpadded: false }
    }

    /// Reads what a client sends, which may end without the last entry's padding and without end marks.
    pub(crate) fn lenient(from: &'a mut dyn Read) -> Self {
        Self { unpadded: true, ..Self::new(from) }
    }

    /// Reads with a record of what is read.
    pub(crate) fn recorded(from: &'a mut dyn Read, record: &'a mut dyn Record) -> Self {
        Self { record: Some(record), ..Self::new(from) }
    }

    /// The record, for what becomes of the tree.
    pub(crate) fn record(&mut self) -> Option<&mut (dyn Record + 'a)> {
        self.record.as_deref_mut()
    }

    /// Writes what is left of the entry's content. `at`: where the file, empty until now, really is in the tree.
    pub(crate) fn copy_to(&mut self, file: &mut File, at: Option<&Path>) -> io::Result<()> {
        let told = match (&mut self.record, at) {
            (Some(record), Some(at)) if self.left > 0 => {
                record.file(at, self.left)?;
                true
            }
            _ => false,
        };
        self.piece.resize(PIECE, 0);
        while self.left > 0 {
            let mut filled = 0;
            let wanted = self.left.min(PIECE as u64) as usize;
            while filled < wanted {
                match self.from.read(&mut self.piece[filled..wanted]) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if let (Some(record), false) = (&mut self.record, told) {
                record.bytes(&self.piece[..wanted])?;
            }
            file.write_all(&self.piece[..wanted])?;
            self.left -= wanted as u64;
        }
        Ok(())
    }

    /// Skips what is left of the entry's content, which the file `at` of the tree holds.
    pub(crate) fn pass_over(&mut self, at: &Path) -> io::Result<()> {
        if let Some(record) = &mut self.record {
            record.file(at, self.left)?;
        }
        let skipped = io::copy(&mut (&mut *self.from).take(self.left), &mut io::sink())?;
        if skipped < self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = 0;
        Ok(())
    }

    /// Reads from the archive itself, telling the record.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        if let Some(record) = &mut self.record {
            record.bytes(&buffer[..n])?;
        }
        Ok(n)
    }

    fn damaged(&self, source: io::Error) -> LayerError {
        LayerError::Archive { after: String::from_utf8_lossy(&self.last).into_owned(), source }
    }

    fn bad(&self, why: &str) -> LayerError {
        self.damaged(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Skips what is left of the entry and reads the next; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, LayerError> {
        let mut more = Extended::default();
        let mut extensions = 0;
        loop {
            self.skip().map_err(|e| self.damaged(e))?;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|e| self.damaged(e))?;
            let is_extension = matches!(
                kind,
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            );
            if !is_extension {
                return self.item(&header, size, more).map(Some);
            }
            extensions += 1;
            if size > LARGEST_EXTENSION || extensions > 64 {
                let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
                return Err(self.bad(&format!("the extension header {name:?} is too large")));
            }
            self.begin(size);
            let mut bytes = Vec::with_capacity(size as usize);
            self.read_to_end(&mut bytes).map_err(|e| self.damaged(e))?;
            match kind {
                EntryType::GNULongName => more.name = Some(until_nul(&bytes)),
                EntryType::GNULongLink => more.link = Some(until_nul(&bytes)),
                EntryType::XHeader => {
                    pax(&bytes, &mut more).ok_or_else(|| self.bad("a PAX header is malformed"))?;
                }
                _ => {}
            }
        }
    }

    fn item(&mut self, header: &Header, size: u64, more: Extended) -> Result<Item, LayerError> {
        let kind = header.entry_type();
        let name = more.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let small = |n: u64, what: &str| {
            u32::try_from(n).map_err(|_| LayerError::hostile(&name, format!("{what} is out of range")))
        };
        if kind == EntryType::GNUSparse {
            return Err(LayerError::hostile(&name, "sparse members are not supported"));
        }
        // Links, devices and directories have no content, whatever a confused writer put there.
        let has_content = !(kind.is_hard_link()
            || kind.is_symlink()
            || kind.is_character_special()
            || kind.is_block_special()
            || kind.is_fifo()
            || kind.is_dir());
        let size = if has_content { more.size.unwrap_or(size) } else { 0 };
        let uid = small(more.uid.map_or_else(|| header.uid(), Ok).map_err(|e| self.damaged(e))?, "uid")?;
        let gid = small(more.gid.map_or_else(|| header.gid(), Ok).map_err(|e| self.damaged(e))?, "gid")?;
        let major = header.device_major().ok().flatten().unwrap_or(0);
        let minor = header.device_minor().ok().flatten().unwrap_or(0);
        let mtime = more
            .mtime
            .unwrap_or_else(|| (header.mtime().ok().and_then(|s| i64::try_from(s).ok()).unwrap_or(0), 0));
        let link = more.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        if name.contains(&0) || link.contains(&0) {
            return Err(LayerError::hostile(&name, "a name holds a zero byte"));
        }
        let mode = header.mode().map_err(|e| self.damaged(e))?;
        self.begin(size);
        self.last.clone_from(&name);
        // Old writers mark a directory by a slash only.
        let kind = if kind.is_file() && name.ends_with(b"/") { EntryType::Directory } else { kind };
        Ok(Item {
            name,
            link,
            kind,
            size,
            uid,
            gid,
            mode: mode & 0o7777,
            type_bits: mode & !0o7777,
            mtime,
            device: (major, minor),
            xattrs: more.xattrs,
            kept: Vec::new(),
            records: more.records,
        })
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (512 - size % 512) % 512;
    }

    fn skip(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut rest = self.left.saturating_add(self.padding);
        let padding = self.padding;
        (self.left, self.padding) = (0, 0);
        while rest > 0 {
            let part = rest.min(buffer.len() as u64) as usize;
            match self.take(&mut buffer[..part])? {
                // As Go's reader: `docker build -f -` ends its archive with the last byte of the Dockerfile.
                0 if self.unpadded && rest <= padding => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => rest -= n as u64,
            }
        }
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.take(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.damaged(e)),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if !is_sound(&header) {
            return Err(self.bad("the header's checksum is wrong: not a tar archive?"));
        }
        Ok(Some(header))
    }
}

/// Whether the first 512 bytes of a file are a tar's header: their checksum says so.
pub fn is_tar_header(block: &[u8; 512]) -> bool {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    is_sound(&header)
}

pub(crate) fn is_sound(header: &Header) -> bool {
    let bytes = header.as_bytes().iter().enumerate();
    let sum = bytes.map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    header.cksum().ok() == Some(sum)
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.left.min(buffer.len() as u64) as usize;
        if part == 0 {
            return Ok(0);
        }
        let n = self.take(&mut buffer[..part])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Records are `length key=value\n`; the value may hold any byte.
pub(crate) fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(10).position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|b| *b == b'=')?;
        all.push((&record[..equals], &record[equals + 1..]));
    }
    Some(all)
}

fn pax(bytes: &[u8], to: &mut Extended) -> Option<()> {
    for (key, value) in records(bytes)? {
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            // An empty value takes an earlier one back.
            b"path" => to.name = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => to.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => to.size = Some(number()?),
            b"uid" => to.uid = Some(number()?),
            b"gid" => to.gid = Some(number()?),
            b"mtime" => to.mtime = Some(time(value)?),
            b"atime" | b"ctime" => to.records.push((key.to_vec(), value.to_vec())),
            _ if key.starts_with(b"MSWINDOWS.") || key.starts_with(b"LIBARCHIVE.") => {
                to.records.push((key.to_vec(), value.to_vec()));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    to.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Some(())
}

/// Seconds and nanoseconds of a PAX time.
pub(crate) fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok().filter(|n| *n >= 0)?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}
