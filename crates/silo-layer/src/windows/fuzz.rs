//! The laws of the format as one function over any bytes: what the fuzz target and the property tests call.

use std::path::Path;

use super::own_files::OwnFiles;
use super::pack::pack_windows_tree;
use super::unpack::unpack_windows;
use crate::{LayerError, Limits};

/// Unpacks `bytes` as a layer over `lower` if they are one, and checks what must hold then: the tree can be packed, the
/// packed archive unpacks, and packs to the very same bytes. Returns these, or why `bytes` are no layer.
///
/// Writes below the empty directory `scratch` only, 1 MiB and 1000 entries at most; `lower` is a layer's tree there or
/// elsewhere.
///
/// # Panics
/// If a law does not hold.
pub fn fuzz_windows(bytes: &[u8], lower: Option<&Path>, scratch: &Path) -> Result<Vec<u8>, LayerError> {
    let limits = Limits { bytes: 1 << 20, entries: 1000 };
    let lower: Vec<_> = lower.into_iter().map(Path::to_owned).collect();
    let (one, two) = (scratch.join("one"), scratch.join("two"));
    for directory in [&one, &two] {
        std::fs::create_dir(directory).map_err(|e| LayerError::io("making", directory, e))?;
    }
    unpack_windows(&mut &bytes[..], &one, &lower, &["Host"], &OwnFiles::default(), &limits)?;
    let packed = |tree: &Path| {
        let mut bytes = Vec::new();
        pack_windows_tree(tree, &lower, &["Host"], &mut bytes).map(|()| bytes)
    };
    let first = packed(&one).expect("what was unpacked can be packed");
    // Names deleted by an opaque directory have become entries of their own.
    let more = Limits { bytes: 2 << 20, entries: 100_000 };
    unpack_windows(&mut &first[..], &two, &lower, &["Host"], &OwnFiles::default(), &more)
        .expect("what was packed can be unpacked");
    let second = packed(&two).expect("what was unpacked again can be packed");
    if let Some(at) = first.iter().zip(&second).position(|(a, b)| a != b) {
        let around = |bytes: &[u8]| {
            let piece = bytes.get(at.saturating_sub(700)..(at + 200).min(bytes.len())).unwrap_or_default();
            piece.escape_ascii().to_string().replace("\\x00", "")
        };
        panic!("packing is not the reverse of unpacking: {} became {}", around(&first), around(&second));
    }
    assert!(first.len() == second.len(), "packing is not the reverse of unpacking: {first:?}, {second:?}");
    Ok(first)
}
