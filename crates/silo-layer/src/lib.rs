//! Layer archives to trees and back: unpacking, packing, the differences between layers, copying in and out.

mod archive;
mod copy;
mod decompress;
mod diff;
mod error;
mod extract;
mod headers;
mod look;
mod merge;
mod pack;
mod packed;
mod place;
mod record;
mod rename;
mod resolve;
mod squash;
mod strip;
mod unpack;
mod usage;
mod whiteout;
mod windows;
mod write;

pub use archive::is_tar_header;
pub use copy::{copy_up, shown_at};
pub use decompress::{Compression, Plain, decompress, detect};
pub use diff::{Change, ChangeKind, changes};
pub use error::LayerError;
pub use extract::{ExtractOptions, Places, extract};
pub use headers::BoundedHeaders;
pub use look::{Found, look};
pub use merge::{Seen, lookup as lookup_merged, names as merged_names};
pub use pack::{pack_tree, pack_upper, pack_uppers};
pub use packed::record_packed;
pub use record::Record;
pub use rename::rename_entries;
pub use resolve::{Resolved, resolve};
pub use squash::squash;
pub use strip::strip_mount_points;
pub use unpack::{Limits, Unpacked, unpack, unpack_recorded};
pub use usage::usage;
pub use windows::{
    OwnFiles, WINDOWS_ROOTS, WindowsRoot, WindowsUpper, check_windows_name, find_windows, fold_windows_name,
    fuzz_windows, pack_windows_root, pack_windows_tree, pack_windows_upper, unpack_windows,
    unpack_windows_recorded,
};
