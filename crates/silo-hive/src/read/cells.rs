//! Bins and cells ("Hive bin", "Cell"): from an offset to the bytes of a record, each byte once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::base_block::LENGTH;
use crate::error::HiveError;
use crate::name::Name;

/// Stands for "none".
pub(super) const NIL: u32 = u32::MAX;
const BIN_HEADER: usize = 32;

/// All bins of a hive.
pub(super) struct Cells {
    bins: Bytes,
    /// The same, for names.
    holder: Arc<Bytes>,
    /// A bit for each eight bytes: they are of a cell that has been read.
    taken: Vec<u64>,
}

impl Cells {
    pub(super) fn new(file: Bytes, bins_size: usize) -> Result<Self, HiveError> {
        if file.len() - LENGTH < bins_size {
            return Err(HiveError::NotAHive("it ends before its last bin"));
        }
        let bins = file.slice(LENGTH..LENGTH + bins_size);
        let mut at = 0;
        while at < bins.len() {
            let broken =
                |problem| HiveError::Broken { record: "hbin", offset: (LENGTH + at) as u64, problem };
            if &bins[at..at + 4] != b"hbin" {
                return Err(broken("the signature is missing"));
            }
            let size = u32_at(&bins, at + 8).unwrap_or(0) as usize;
            if size == 0 || !size.is_multiple_of(4096) || size > bins.len() - at {
                return Err(broken("the size is no multiple of 4096 that fits"));
            }
            at += size;
        }
        let taken = vec![0; bins.len().div_ceil(8 * 64)];
        Ok(Self { holder: Arc::new(bins.clone()), bins, taken })
    }

    /// The content of a cell. Each byte of a file is one record's only: what is read is never more than what there is.
    pub(super) fn take(&mut self, record: &'static str, offset: u32) -> Result<Bytes, HiveError> {
        let at = offset as usize;
        if !at.is_multiple_of(8) || at < BIN_HEADER || at + 4 > self.bins.len() {
            return Err(broken(record, offset, "there can be no cell"));
        }
        let size = u32_at(&self.bins, at).unwrap_or(0).cast_signed();
        if size >= 0 {
            return Err(broken(record, offset, "the cell is free"));
        }
        let size = size.unsigned_abs() as usize;
        if size < 8 || size > self.bins.len() - at {
            return Err(broken(record, offset, "the cell's size does not fit"));
        }
        if !self.claim(at / 8..(at + size).div_ceil(8)) {
            return Err(broken(record, offset, "the cell is another record's"));
        }
        Ok(self.bins.slice(at + 4..at + size))
    }

    /// A name within a cell: `length` bytes from `at` on in the content of the cell at an offset.
    pub(super) fn name(&self, offset: u32, at: u32, length: u16, wide: bool) -> Name {
        Name::stored(&self.holder, offset.saturating_add(4 + at), length, wide)
    }

    /// Marks units of eight bytes as some record's; false if one is.
    fn claim(&mut self, units: Range<usize>) -> bool {
        let mut at = units.start;
        while at < units.end {
            let count = (64 - at % 64).min(units.end - at);
            let bits = u64::MAX >> (64 - count) << (at % 64);
            let word = &mut self.taken[at / 64];
            if *word & bits != 0 {
                return false;
            }
            *word |= bits;
            at += count;
        }
        true
    }

    /// How many things of a size the file has room for: no list names more.
    pub(super) fn room(&self, size: usize) -> usize {
        self.bins.len() / size
    }
}

/// An error at a cell.
pub(super) fn broken(record: &'static str, offset: u32, problem: &'static str) -> HiveError {
    HiveError::Broken { record, offset: LENGTH as u64 + u64::from(offset), problem }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
