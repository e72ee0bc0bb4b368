//! The laws of Wine's registry text as one function over any bytes: what the fuzz target and the test of its seeds call.

use super::text;

/// Reads `bytes` as a registry file of Wine's; if they are one, what is written of it reads the same.
///
/// # Panics
/// If that does not hold.
pub fn fuzz_wine_registry_text(bytes: &[u8]) {
    let Ok(mut tree) = text::read(bytes) else { return };
    if tree.values().is_empty() && tree.class.is_empty() {
        // Such a root has no line of its own.
        (tree.written, tree.is_link) = (0, false);
    }
    let written = text::write(&tree, "REGISTRY");
    assert_eq!(text::read(&written).as_ref(), Ok(&tree), "{}", written.escape_ascii());
}
