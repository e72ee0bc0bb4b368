//! The hive that log files bring up to date.

use crate::error::HiveError;
use crate::read::LENGTH;

/// The little-endian number at `at`; 0 beyond the end.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
}

/// A primary file that is being brought up to date.
pub(super) struct Target {
    pub(super) file: Vec<u8>,
    /// Length of its bins, by the newest log entry.
    bins_size: usize,
    /// Most bytes that it may come to: what it has and what its logs hold.
    bound: usize,
}

impl Target {
    pub(super) fn new(file: Vec<u8>, logs: &[&[u8]]) -> Self {
        let bound = file.len() + logs.iter().map(|l| l.len()).sum::<usize>();
        Self { bins_size: file.len() - LENGTH, file, bound: bound.min(1 << 31) }
    }

    /// Makes the bins as long as a log says. What is cut off stays until the end, as in a file that Windows works on: a log
    /// whose entries cut and lengthen in turn costs no more than one that lengthens once.
    pub(super) fn resize(&mut self, bins_size: u32) -> Result<(), HiveError> {
        let length = LENGTH + bins_size as usize;
        if !bins_size.is_multiple_of(4096) || bins_size == 0 || length > self.bound {
            return Err(HiveError::Dirty("a log tells of more than it holds"));
        }
        self.file.resize(length.max(self.file.len()), 0);
        self.bins_size = bins_size as usize;
        Ok(())
    }

    /// Writes into the bins; false if it lies outside.
    pub(super) fn put(&mut self, offset: u32, bytes: &[u8]) -> bool {
        let at = offset as usize;
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.bins_size);
        if fits {
            self.file[LENGTH + at..LENGTH + at + bytes.len()].copy_from_slice(bytes);
        }
        fits
    }

    /// The file to the end of its bins, with their length.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        self.file.truncate(LENGTH + self.bins_size);
        (self.file, self.bins_size as u32)
    }
}
