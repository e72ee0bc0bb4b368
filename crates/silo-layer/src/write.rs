//! Writes tar entries: a ustar header, with a PAX header before it for whatever does not fit.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, FileType};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::archive::Item;

/// What a header says of a node, beside its names.
struct Node {
    kind: EntryType,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    device: (u32, u32),
}

/// An archive being written.
pub(crate) struct Writer<'a> {
    to: &'a mut dyn Write,
    id_offset: u32,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(to: &'a mut dyn Write, id_offset: u32) -> Self {
        Self { to, id_offset }
    }

    /// Writes the header of a node. `name` has no slash at the end; `hard_link` names an earlier entry.
    pub(crate) fn header(
        &mut self,
        name: &[u8],
        stat: &fs::Stat,
        link: Option<&[u8]>,
        hard_link: Option<&[u8]>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            _ if hard_link.is_some() => EntryType::Link,
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            _ => EntryType::Regular,
        };
        let node = Node {
            kind,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            size: stat.st_size.max(0) as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            device: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        };
        self.node(name, &node, hard_link.or(link).unwrap_or_default(), xattrs)
    }

    /// Writes the header of an entry of another archive under another name; a link leads to `link`.
    pub(crate) fn again(&mut self, item: &Item, name: &[u8], link: &[u8]) -> io::Result<()> {
        let content = item.size > 0 && !item.kind.is_file();
        let node = Node {
            kind: if content { EntryType::Regular } else { item.kind },
            mode: item.mode,
            owner: (item.uid, item.gid),
            size: item.size,
            mtime: item.mtime,
            device: item.device,
        };
        self.node(name, &node, link, &item.xattrs)
    }

    fn node(
        &mut self,
        name: &[u8],
        node: &Node,
        link: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let kind = node.kind;
        let mut name = name.to_vec();
        if kind.is_dir() {
            name.push(b'/');
        }
        let size = if kind.is_file() { node.size } else { 0 };
        let mut header = Header::new_ustar();
        if kind.is_character_special() || kind.is_block_special() {
            header.set_device_major(node.device.0)?;
            header.set_device_minor(node.device.1)?;
        }
        header.set_mode(node.mode & 0o7777);
        let mut pax = Vec::new();
        let mut bounded = |key: &str, value: u64, limit: u64| {
            if value < limit {
                return value;
            }
            record(&mut pax, key.as_bytes(), value.to_string().as_bytes());
            0
        };
        let (uid, gid) = node.owner;
        header.set_uid(bounded("uid", uid.saturating_sub(self.id_offset).into(), 0o10_000_000));
        header.set_gid(bounded("gid", gid.saturating_sub(self.id_offset).into(), 0o10_000_000));
        header.set_size(bounded("size", size, 0o100_000_000_000));
        let (at, nanoseconds) = node.mtime;
        header.set_mtime(at.max(0) as u64);
        if nanoseconds != 0 || at < 0 {
            record(&mut pax, b"mtime", seconds(at, nanoseconds).as_bytes());
        }
        self.names(&mut header, &mut pax, &name, link);
        for (key, value) in xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
        header.set_entry_type(kind);
        self.put(header, &pax)
    }

    /// Writes an empty file, such as a whiteout.
    pub(crate) fn empty(&mut self, name: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        // When it was deleted is told by no archive that is read, so writing it again would tell another time.
        header.set_mtime(0);
        let mut pax = Vec::new();
        self.names(&mut header, &mut pax, name, b"");
        header.set_entry_type(EntryType::Regular);
        self.put(header, &pax)
    }

    fn names(&self, header: &mut Header, pax: &mut Vec<u8>, name: &[u8], link: &[u8]) {
        for (key, value, offset) in [(&b"path"[..], name, 0), (b"linkpath", link, 157)] {
            let short = value.len() <= 100 && value.is_ascii();
            if !short {
                record(pax, key, value);
            }
            // What readers without PAX get to see.
            let cut = &value[..value.len().min(100)];
            header.as_mut_bytes()[offset..offset + cut.len()].copy_from_slice(cut);
        }
    }

    fn put(&mut self, mut header: Header, pax: &[u8]) -> io::Result<()> {
        if !pax.is_empty() {
            let mut before = Header::new_ustar();
            before.set_path("PaxHeaders.0/entry")?;
            before.set_mode(0o644);
            before.set_uid(0);
            before.set_gid(0);
            before.set_mtime(0);
            before.set_entry_type(EntryType::XHeader);
            before.set_size(pax.len() as u64);
            before.set_cksum();
            self.to.write_all(before.as_bytes())?;
            self.to.write_all(pax)?;
            self.pad(pax.len() as u64)?;
        }
        header.set_cksum();
        self.to.write_all(header.as_bytes())
    }

    /// Writes exactly `size` bytes of content: a file that shrank is padded, one that grew is cut.
    pub(crate) fn content(&mut self, file: impl Read, size: u64) -> io::Result<()> {
        let mut limited = file.take(size);
        let mut left = size - io::copy(&mut limited, &mut self.to)?;
        while left > 0 {
            let part = left.min(8192);
            self.to.write_all(&[0; 8192][..part as usize])?;
            left -= part;
        }
        self.pad(size)
    }

    /// Writes bytes that are a whole number of blocks when padded.
    pub(crate) fn blocks(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.to.write_all(&[0; 512][..((512 - size % 512) % 512) as usize])
    }

    /// Writes the end mark.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.to.write_all(&[0; 1024])
    }
}

/// Appends a PAX record.
pub(crate) fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    // The length counts its own digits.
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

/// A time as PAX has it, without zeros at the end.
pub(crate) fn seconds(seconds: i64, nanoseconds: i64) -> String {
    let (sign, whole, part) = match seconds {
        s if s >= 0 => ("", s.unsigned_abs(), nanoseconds),
        s if nanoseconds == 0 => ("-", s.unsigned_abs(), 0),
        s => ("-", s.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The extended attributes of a node opened with `O_PATH` that belong into an archive, sorted.
pub(crate) fn xattrs(node: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = format!("/proc/self/fd/{}", node.as_fd().as_raw_fd());
    let names = match xattr::list_deref(&path) {
        Ok(names) => names,
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut all = Vec::new();
    for name in names {
        let bytes = name.as_bytes();
        let unwanted: [&[u8]; 4] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux", b"system."];
        if unwanted.iter().any(|u| bytes.starts_with(u)) {
            continue;
        }
        // It may have gone meanwhile.
        if let Some(value) = xattr::get_deref(&path, &name)? {
            all.push((bytes.to_vec(), value));
        }
    }
    all.sort();
    Ok(all)
}
