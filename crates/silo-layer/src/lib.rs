//! Layer archives to trees and back: unpacking, packing, the differences between layers, copying in and out.

mod archive;
mod copy;
mod decompress;
mod diff;
mod error;
mod extract;
mod merge;
mod pack;
mod place;
mod unpack;
mod usage;
mod whiteout;
mod windows;
mod write;

pub use copy::copy_up;
pub use decompress::{Compression, decompress, detect};
pub use diff::{Change, ChangeKind, changes};
pub use error::LayerError;
pub use extract::{ExtractOptions, extract};
pub use pack::{pack_tree, pack_upper};
pub use unpack::{Limits, Unpacked, unpack};
pub use usage::usage;
pub use windows::{
    WINDOWS_ROOTS, WindowsRoot, WindowsUpper, find_windows, fuzz_windows, pack_windows_root,
    pack_windows_tree, pack_windows_upper, unpack_windows,
};
