//! The top directories of a Windows layer, and the drives below them.

/// Root of what shows at `C:`.
pub(super) const FILES: &str = "Files";
/// Root of the registry's hives: whole ones never, differences to the layer below only.
pub(super) const HIVES: &str = "Hives";
/// Root of the virtual machine of Hyper-V isolation.
pub(super) const UTILITY_VM: &str = "UtilityVM";
/// Beside them in a tree only: what is in `Files` of the archive and not shown.
pub(super) const HIDDEN: &str = "Hidden";
/// Top directories of a Windows layer.
pub const WINDOWS_ROOTS: &[&str] = &[FILES, HIVES, UTILITY_VM];

/// The root of the drive that a path (components) is on, as a number of components.
pub(super) fn drive(path: &[String]) -> Option<usize> {
    match path {
        [files, ..] if files == FILES => Some(1),
        [vm, files, ..] if vm == UTILITY_VM && files == FILES => Some(2),
        _ => None,
    }
}
