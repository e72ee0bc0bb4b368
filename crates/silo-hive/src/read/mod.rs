//! From a file's bytes to a tree.

mod base_block;
mod cells;
mod keys;
mod lists;
mod values;

use bytes::Bytes;

use crate::error::HiveError;
use crate::tree::Hive;

use base_block::BaseBlock;
pub(crate) use base_block::{LENGTH, checksum};
use cells::Cells;
use keys::Keys;

impl Hive {
    /// Reads a hive file of version 1.3 to 1.6. Names and data of the tree are slices of `bytes`.
    ///
    /// Volatile keys and what lies behind the hive's own length are left out.
    ///
    /// # Errors
    /// [`HiveError::NotAHive`] for other bytes, [`HiveError::Dirty`] when changes to it are in its logs only,
    /// [`HiveError::Broken`] with the place where the format is broken.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Hive, HiveError> {
        let bytes = bytes.into();
        let base = BaseBlock::read(&bytes)?;
        let cells = Cells::new(bytes, base.bins_size)?;
        let root = Keys::new(cells, &base).root(base.root)?;
        Ok(Hive { root, layered: base.layered })
    }
}
