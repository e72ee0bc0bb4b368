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
mod names;
mod node;
mod pack;
mod spelling;
mod streams;
mod unpack;
mod upper;

pub use find::find_windows;
pub use fuzz::fuzz_windows;
pub use pack::pack_windows_tree;
pub use unpack::unpack_windows;
pub use upper::{WindowsRoot, WindowsUpper, pack_windows_root, pack_windows_upper};

/// Root of what shows at `C:`.
const FILES: &str = "Files";
/// Root of the registry's hives: whole ones never, differences to the layer below only.
const HIVES: &str = "Hives";
/// Root of the virtual machine of Hyper-V isolation.
const UTILITY_VM: &str = "UtilityVM";
/// Top directories of a Windows layer.
pub const WINDOWS_ROOTS: &[&str] = &[FILES, HIVES, UTILITY_VM];

/// The root of the drive that a path (components) is on, as a number of components.
fn drive(path: &[String]) -> Option<usize> {
    match path {
        [files, ..] if files == FILES => Some(1),
        [vm, files, ..] if vm == UTILITY_VM && files == FILES => Some(2),
        _ => None,
    }
}
