//! Bins and cells of a file that grows.

use crate::error::HiveError;
use crate::read::LENGTH;

const BIN: usize = 4096;
const BIN_HEADER: usize = 32;
/// Offsets have 31 bits.
const LARGEST: usize = 1 << 31;

/// A file's bytes, the base block's place first.
pub(super) struct Cells {
    file: Vec<u8>,
    /// Where the last bin begins.
    bin: usize,
    /// Where its next cell goes.
    next: usize,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self { file: vec![0; LENGTH], bin: LENGTH, next: LENGTH }
    }

    /// Makes a cell of zeros for `length` bytes; returns its offset.
    pub(super) fn allocate(&mut self, length: usize) -> Result<u32, HiveError> {
        let size = (length + 4).next_multiple_of(8);
        if self.next + size > self.file.len() {
            self.close_bin();
            let bin_size = (BIN_HEADER + size).next_multiple_of(BIN);
            if self.file.len() + bin_size > LARGEST {
                return Err(HiveError::Tree("it has more than 2 GiB"));
            }
            self.bin = self.file.len();
            self.next = self.bin + BIN_HEADER;
            self.file.resize(self.bin + bin_size, 0);
            let offset = (self.bin - LENGTH) as u32;
            self.put(
                self.bin,
                &[&b"hbin"[..], &offset.to_le_bytes(), &(bin_size as u32).to_le_bytes()].concat(),
            );
        }
        let at = self.next;
        self.next += size;
        self.put(at, &(-(size as i32)).to_le_bytes());
        Ok((at - LENGTH) as u32)
    }

    /// A cell with a content.
    pub(super) fn add(&mut self, content: &[u8]) -> Result<u32, HiveError> {
        let offset = self.allocate(content.len())?;
        self.content(offset, content.len()).copy_from_slice(content);
        Ok(offset)
    }

    /// The first `length` bytes of a cell's content.
    pub(super) fn content(&mut self, offset: u32, length: usize) -> &mut [u8] {
        let at = LENGTH + offset as usize + 4;
        &mut self.file[at..at + length]
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What is left of the last bin is one free cell.
    fn close_bin(&mut self) {
        let left = self.file.len() - self.next;
        if left > 0 {
            self.put(self.next, &(left as u32).to_le_bytes());
        }
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, HiveError> {
        self.close_bin();
        Ok(self.file)
    }
}
