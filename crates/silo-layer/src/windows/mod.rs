//! Windows layers: archives of `Files/`, `Hives/` and `UtilityVM/` with Windows' metadata in PAX records, to trees and back.
//!
//! Story: [`unpack_windows`] puts a layer's archive into a tree beside the trees of the layers below it, finding each name
//! in whatever spelling it has there. What Linux cannot show is kept in extended attributes. [`pack_windows_tree`] writes
//! such a tree as the archive that Windows' own tools would write, byte for byte the one it came from if they wrote it;
//! [`pack_windows_upper`] writes a container's changes, an overlay upper directory of `C:`. The format, its sources and
//! the attributes: `docs/formats/windows-layer.md`.

mod aside;
mod describe;
mod find;
mod fuzz;
mod hard_link;
mod header;
mod kept;
mod links;
pub(crate) mod names;
mod node;
mod own_files;
mod pack;
mod roots;
mod spelling;
mod streams;
mod unpack;
mod upper;

pub use find::find_windows;
pub use fuzz::fuzz_windows;
pub use names::{check as check_windows_name, fold as fold_windows_name};
pub use own_files::OwnFiles;
pub use pack::pack_windows_tree;
pub use roots::WINDOWS_ROOTS;
pub use unpack::{unpack_windows, unpack_windows_recorded};
pub use upper::{WindowsRoot, WindowsUpper, pack_windows_root, pack_windows_upper};
