//! A tar stream passed on to a reader that would take headers of any length into memory: too long a one is an error here.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::archive::{LARGEST_EXTENSION, is_sound, records};

/// Bytes of a header, and what members are padded to.
const BLOCK: usize = 512;
/// Where the header of a sparse member (old GNU format) says that a block with more of its map follows.
const SPARSE_MORE: usize = 482;
/// Where such a block says it.
const SPARSE_MORE_STILL: usize = 504;

/// What the next bytes of the stream are.
enum Next {
    Header,
    /// More of a sparse member's map; then so many bytes of content.
    Map(u64),
    /// Content with its padding, of which nothing is looked at.
    Content(u64),
    /// An extension header: its bytes, with the padding, and how many there are without.
    Extension(u64, usize),
    /// Not a tar's header: the reader will say so.
    Unknown,
}

/// Reads the same bytes as what it is made of, a plain tar; names, links and PAX headers of more than 1 MiB are errors
/// before they are read.
pub struct BoundedHeaders<R> {
    from: R,
    next: Next,
    block: Vec<u8>,
    /// Bytes of extension headers, or of maps, since the last member.
    extensions: u64,
    /// Of the next member, by its PAX header.
    size: Option<u64>,
}

fn too_large(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} has more than {LARGEST_EXTENSION} bytes"))
}

fn padded(size: u64) -> u64 {
    size.saturating_add((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64)
}

impl<R: Read> BoundedHeaders<R> {
    /// Of a stream that stands at an archive's beginning.
    pub fn new(from: R) -> Self {
        Self { from, next: Next::Header, block: Vec::new(), extensions: 0, size: None }
    }

    fn more(&mut self, bytes: u64) -> io::Result<()> {
        self.extensions = self.extensions.saturating_add(bytes);
        match self.extensions > LARGEST_EXTENSION {
            true => Err(too_large("an extension header of the archive")),
            false => Ok(()),
        }
    }

    fn content(&mut self, size: u64) -> Next {
        match padded(size) {
            0 => Next::Header,
            bytes => Next::Content(bytes),
        }
    }

    /// Looks at a header that has passed.
    fn header(&mut self) -> io::Result<Next> {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&self.block);
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(Next::Header);
        }
        let Ok(size) = header.entry_size() else { return Ok(Next::Unknown) };
        if !is_sound(&header) {
            return Ok(Next::Unknown);
        }
        match header.entry_type() {
            EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader => {
                self.more(size)?;
                return Ok(match padded(size) {
                    0 => Next::Header,
                    bytes if header.entry_type() == EntryType::XHeader => {
                        Next::Extension(bytes, size as usize)
                    }
                    bytes => Next::Content(bytes),
                });
            }
            _ => {}
        }
        self.extensions = 0;
        let size = self.size.take().unwrap_or(size);
        Ok(match header.entry_type() {
            EntryType::GNUSparse if self.block[SPARSE_MORE] != 0 => Next::Map(size),
            _ => self.content(size),
        })
    }

    /// Looks at what is whole now.
    fn whole(&mut self) -> io::Result<()> {
        self.next = match std::mem::replace(&mut self.next, Next::Unknown) {
            Next::Header => self.header()?,
            Next::Map(size) => {
                self.more(BLOCK as u64)?;
                match self.block[SPARSE_MORE_STILL] {
                    0 => {
                        self.extensions = 0;
                        self.content(size)
                    }
                    _ => Next::Map(size),
                }
            }
            Next::Extension(_, length) => {
                let of_size = |(key, value): &(&[u8], &[u8])| (*key == b"size").then(|| value.to_vec());
                let all = records(&self.block[..length.min(self.block.len())]);
                let value = all.iter().flatten().rev().find_map(of_size);
                let value = value.and_then(|v| String::from_utf8(v).ok());
                self.size = value.and_then(|v| v.parse().ok()).or(self.size);
                Next::Header
            }
            other => other,
        };
        self.block.clear();
        Ok(())
    }
}

impl<R: Read> Read for BoundedHeaders<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = match &self.next {
            Next::Header | Next::Map(_) => (BLOCK - self.block.len()) as u64,
            Next::Extension(bytes, _) => bytes - self.block.len() as u64,
            Next::Content(bytes) => *bytes,
            Next::Unknown => u64::MAX,
        };
        let most = wanted.min(buffer.len() as u64) as usize;
        let n = self.from.read(&mut buffer[..most])?;
        match &mut self.next {
            Next::Unknown => {}
            Next::Content(left) => {
                *left -= n as u64;
                if *left == 0 {
                    self.next = Next::Header;
                }
            }
            _ => {
                self.block.extend_from_slice(&buffer[..n]);
                if n as u64 == wanted && n > 0 {
                    self.whole()?;
                }
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, size: u64, name: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn member(kind: u8, content: &[u8], name: &str) -> Vec<u8> {
        let mut all = header(kind, content.len() as u64, name);
        all.extend_from_slice(content);
        all.resize(all.len().next_multiple_of(BLOCK), 0);
        all
    }

    /// What passes in reads of so many bytes.
    fn passed(bytes: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
        let (mut bounded, mut all, mut buffer) = (BoundedHeaders::new(bytes), Vec::new(), vec![0; at_once]);
        loop {
            match bounded.read(&mut buffer)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    }

    #[test]
    fn bytes_pass_as_they_are() {
        let long = "n/".repeat(3000);
        let mut sparse = header(b'S', 700, "sparse");
        sparse[SPARSE_MORE] = 1;
        let mut sum = Header::new_old();
        sum.as_mut_bytes().copy_from_slice(&sparse);
        sum.set_cksum();
        let mut map = vec![0; 2 * BLOCK];
        map[SPARSE_MORE_STILL] = 1;
        // The content looks like a header that would be refused; by the PAX size it is none.
        let trap = header(b'L', 1 << 40, "trap");
        let archive = [
            member(b'L', long.as_bytes(), "././@LongLink"),
            member(b'0', b"content", "short"),
            sum.as_bytes().to_vec(),
            map,
            vec![7; 1024],
            member(b'x', format!("13 size={}\n", 1024).as_bytes(), "pax"),
            header(b'0', 0, "larger"),
            trap.repeat(2),
            vec![0; 1024],
            trap,
        ]
        .concat();
        // After the end there may be anything, but a header there is none of the archive's.
        let end = archive.len() - BLOCK;
        for at_once in [1, 511, 512, 513, 1 << 20] {
            assert_eq!(passed(&archive[..end], at_once).unwrap(), &archive[..end], "{at_once}");
        }
        assert_eq!(passed(&[9; 5000], 700).unwrap(), [9; 5000]);
        assert_eq!(passed(b"", 700).unwrap(), b"");
    }

    #[test]
    fn a_header_without_bound_is_refused_before_it_is_read() {
        for kind in *b"LKxg" {
            let head = header(kind, 1 << 30, "endless");
            let mut bounded = BoundedHeaders::new((&head[..]).chain(io::repeat(b'a')));
            let read = io::copy(&mut bounded.by_ref().take(1 << 24), &mut io::sink());
            assert!(read.unwrap_err().to_string().contains("1048576 bytes"), "{}", char::from(kind));
        }
        // Nor many of them, nor a map.
        let many = member(b'x', &vec![b' '; 300 << 10], "many").repeat(4);
        assert!(passed(&many, 4096).is_err());
        let mut sparse = header(b'S', 1, "sparse");
        sparse[SPARSE_MORE] = 1;
        let mut head = Header::new_old();
        head.as_mut_bytes().copy_from_slice(&sparse);
        head.set_cksum();
        let mut bounded = BoundedHeaders::new(head.as_bytes().chain(io::repeat(1)));
        assert!(io::copy(&mut bounded.by_ref().take(1 << 24), &mut io::sink()).is_err());
    }
}
