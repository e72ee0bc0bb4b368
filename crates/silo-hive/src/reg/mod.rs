//! Registry text of version 5, the `.reg` files of `regedit` ("How to add, modify, or delete registry subkeys and values by
//! using a .reg file", Microsoft): a hive as such text, and such text as a delta hive.

mod edits;
mod read;
mod write;

pub use read::{apply_reg, from_reg};
pub use write::to_reg;
