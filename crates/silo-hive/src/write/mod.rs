//! From a tree to a file's bytes.
//!
//! The file holds the cells in the order of a walk: of each key the records of its subkeys (each with its descriptor, if it
//! is the first to have it, and its class), their list, its values, their list; then of each subkey the same. Nothing depends
//! on anything but the tree: the same tree is the same bytes.

mod cells;
mod keys;

use crate::error::HiveError;
use crate::read::{LENGTH, checksum};
use crate::tree::Hive;

use cells::Cells;

/// Plain hives; what Windows XP and later write.
const PLAIN: u32 = 5;
/// Delta hives (measured on Windows' own).
const DELTA: u32 = 6;

impl Hive {
    /// Writes the hive as a file: version 1.5, a delta hive as 1.6 with the flag for layered keys.
    ///
    /// # Errors
    /// [`HiveError::Tree`] for more than 2 GiB, keys nested deeper than 512, a key without a security descriptor, and in a
    /// plain hive for what only delta hives have; [`HiveError::Name`] for a name that no hive can hold, or one that was
    /// changed so that it is not in its place.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HiveError> {
        let mut cells = Cells::new();
        let root = keys::write(&mut cells, &self.root, self.layered)?;
        let mut file = cells.finish()?;
        let bins_size = (file.len() - LENGTH) as u32;
        let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, u32::from_le_bytes(*b"regf"));
        put(0x04, 1);
        put(0x08, 1);
        put(0x14, 1);
        put(0x18, if self.layered { DELTA } else { PLAIN });
        put(0x20, 1);
        put(0x24, root);
        put(0x28, bins_size);
        put(0x2c, 1);
        put(0x90, if self.layered { 2 } else { 0 });
        let sum = checksum(&file);
        file[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
        Ok(file)
    }
}
