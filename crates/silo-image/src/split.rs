//! The archive of an unpacked layer without what its files hold: with the files, the archive byte for byte.
//!
//! `snapshots/<…>.split` is a zstd stream of [`MAGIC`] and, in the archive's order, records: a tag, then numbers as LEB128.
//! [`BYTES`]: a length and so many bytes. [`FILE`]: a size, a length and so many bytes of a path; the bytes that come next
//! are all that the file of the snapshot holds. [`MOVED`]: a length and a path; what was there until now gave way to another
//! entry and is `snapshots/<…>.aside/<n>`, the n-th of these records from 0, so a path before this record means that.
//! [`END`] ends it. (tar-split keeps the same of dockerd's layers, as JSON.)

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use silo_sys::beneath;

const MAGIC: &[u8] = b"silo split 1\n";
const BYTES: u8 = 0;
const FILE: u8 = 1;
const MOVED: u8 = 2;
const END: u8 = 3;
/// The cheapest zstd level: loading waits for it.
const LEVEL: i32 = 1;
/// Bytes of one record, and of a path.
const MOST: usize = 64 << 10;

/// Writes the record of an archive while that is unpacked.
pub(crate) struct Splitter {
    to: zstd::Encoder<'static, File>,
    pending: Vec<u8>,
    aside: PathBuf,
    aside_dir: Option<File>,
    moved: u64,
}

impl Splitter {
    /// `to`: an empty file; `aside`: the directory to make for what gives way.
    pub(crate) fn new(to: File, aside: PathBuf) -> io::Result<Self> {
        let mut to = zstd::Encoder::new(to, LEVEL)?;
        to.write_all(MAGIC)?;
        Ok(Self { to, pending: Vec::with_capacity(MOST), aside, aside_dir: None, moved: 0 })
    }

    fn number(&mut self, mut number: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(10);
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            bytes.push(if number > 0 { low | 0x80 } else { low });
            if number == 0 {
                return self.to.write_all(&bytes);
            }
        }
    }

    fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.number(bytes.len() as u64)?;
        self.to.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            let bytes = std::mem::take(&mut self.pending);
            self.to.write_all(&[BYTES])?;
            self.text(&bytes)?;
            self.pending = bytes;
            self.pending.clear();
        }
        Ok(())
    }

    fn path(&mut self, path: &Path) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        if path.len() > MOST {
            return Err(io::Error::other("a path of more than 64 KiB"));
        }
        self.text(path)
    }

    /// Ends the record.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.to.write_all(&[END])?;
        self.to.finish().map(drop)
    }
}

impl silo_layer::Record for Splitter {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(MOST) {
            if self.pending.len() + part.len() > MOST {
                self.flush()?;
            }
            self.pending.extend_from_slice(part);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, size: u64) -> io::Result<()> {
        self.flush()?;
        self.to.write_all(&[FILE])?;
        self.number(size)?;
        self.path(path)
    }

    fn give_way(&mut self, path: &Path) -> io::Result<(File, PathBuf)> {
        if self.aside_dir.is_none() {
            std::fs::create_dir(&self.aside)?;
            self.aside_dir = Some(File::open(&self.aside)?);
        }
        let dir = self.aside_dir.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()?;
        self.flush()?;
        self.to.write_all(&[MOVED])?;
        self.path(path)?;
        let name = self.moved.to_string();
        self.moved += 1;
        Ok((dir, name.into()))
    }
}

enum Next {
    Bytes(usize),
    File(PathBuf, u64),
    Moved(PathBuf),
    End,
}

/// A record as it is read.
struct Records(Box<dyn Read + Send>);

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the record of the layer's archive is damaged: {why}"))
}

impl Records {
    fn open(split: &Path) -> io::Result<Self> {
        let from = zstd::Decoder::new(File::open(split)?)?;
        let mut records = Self(Box::new(BufReader::with_capacity(MOST, from)));
        let mut magic = [0; MAGIC.len()];
        records.0.read_exact(&mut magic)?;
        if magic != MAGIC { Err(damaged("its first line is unknown")) } else { Ok(records) }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged("a number is too large"))
    }

    fn length(&mut self) -> io::Result<usize> {
        let length = self.number()?;
        let length = usize::try_from(length).ok().filter(|l| *l <= MOST);
        length.ok_or_else(|| damaged("a length is too large"))
    }

    fn path(&mut self) -> io::Result<PathBuf> {
        let mut bytes = vec![0; self.length()?];
        self.0.read_exact(&mut bytes)?;
        Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
    }

    fn next(&mut self) -> io::Result<Next> {
        match self.byte()? {
            BYTES => Ok(Next::Bytes(self.length()?)),
            FILE => {
                let size = self.number()?;
                Ok(Next::File(self.path()?, size))
            }
            MOVED => Ok(Next::Moved(self.path()?)),
            END => Ok(Next::End),
            _ => Err(damaged("a tag is unknown")),
        }
    }

    fn skip(&mut self, bytes: usize) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(bytes as u64), &mut io::sink())?;
        if skipped < bytes as u64 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// What gave way: for each path, the numbers of its records, in order.
type Moves = HashMap<PathBuf, Vec<u64>>;

fn moves(split: &Path) -> io::Result<Moves> {
    let (mut records, mut moves, mut number) = (Records::open(split)?, Moves::new(), 0);
    loop {
        match records.next()? {
            Next::Bytes(length) => records.skip(length)?,
            Next::File(..) => {}
            Next::Moved(path) => {
                moves.entry(path).or_default().push(number);
                number += 1;
            }
            Next::End => return Ok(moves),
        }
    }
}

enum Now {
    Between,
    /// So many bytes of the record.
    Bytes(usize),
    /// So many bytes of a file.
    File(File, PathBuf, u64),
    End,
}

/// The archive, put together again.
pub(crate) struct Joined {
    records: Records,
    tree: OwnedFd,
    aside: Option<OwnedFd>,
    moves: Moves,
    /// Records of what gave way that were met.
    moved: u64,
    now: Now,
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Joined {
    pub(crate) fn open(split: &Path, tree: &Path, aside: &Path) -> io::Result<Self> {
        let (aside, moves) = match open_dir(aside) {
            Ok(dir) => (Some(dir), moves(split)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (None, Moves::new()),
            Err(e) => return Err(e),
        };
        let (records, tree) = (Records::open(split)?, open_dir(tree)?);
        Ok(Self { records, tree, aside, moves, moved: 0, now: Now::Between })
    }

    /// A file by the path that it had when it was written.
    fn file(&self, path: &Path, size: u64) -> io::Result<File> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        // What first gave way after that, of the path itself or a directory above it, took the file along.
        let taken = path.ancestors().filter_map(|above| {
            let all = self.moves.get(above)?;
            let number = all.get(all.partition_point(|n| *n < self.moved))?;
            Some((*number, path.strip_prefix(above).ok()?))
        });
        let moved = taken.min_by_key(|(number, _)| *number);
        // What is no file is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match (moved, &self.aside) {
            (Some((number, rest)), Some(aside)) => {
                let number = PathBuf::from(number.to_string());
                let path = if rest.as_os_str().is_empty() { number } else { number.join(rest) };
                beneath::open_no_links(aside, &path, flags, Mode::empty())
            }
            _ => beneath::open_no_links(&self.tree, path, flags, Mode::empty()),
        };
        let file = file.map_err(named)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 != size {
            let why = format!("{} is not the file of {size} bytes that was unpacked", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(file.into())
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.now {
                Now::End => return Ok(0),
                Now::Bytes(left) => {
                    let part = buffer.len().min(*left);
                    let n = self.records.0.read(&mut buffer[..part])?;
                    if n == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    *left -= n;
                    if *left == 0 {
                        self.now = Now::Between;
                    }
                    return Ok(n);
                }
                Now::File(file, path, left) => {
                    let part = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let n = file.read(&mut buffer[..part])?;
                    if n == 0 {
                        let why = format!("{} became shorter", path.display());
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                    }
                    *left -= n as u64;
                    if *left == 0 {
                        self.now = Now::Between;
                    }
                    return Ok(n);
                }
                Now::Between => {
                    self.now = match self.records.next()? {
                        Next::Bytes(0) => Now::Between,
                        Next::Bytes(length) => Now::Bytes(length),
                        Next::File(path, size) => Now::File(self.file(&path, size)?, path, size),
                        Next::Moved(_) => {
                            self.moved += 1;
                            Now::Between
                        }
                        Next::End => Now::End,
                    }
                }
            }
        }
    }
}
