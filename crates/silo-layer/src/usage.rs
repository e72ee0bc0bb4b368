//! Counts the bytes and inodes of a tree.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Apparent bytes and inodes at and below `dir`, on its file system only; a file of several names counts once.
///
/// What vanishes meanwhile is not counted.
pub fn usage(dir: &Path) -> io::Result<(u64, u64)> {
    let top = std::fs::symlink_metadata(dir)?;
    let (mut bytes, mut inodes) = (if top.is_dir() { 0 } else { top.len() }, 1);
    let mut seen = HashSet::new();
    let mut todo = if top.is_dir() { vec![dir.to_owned()] } else { Vec::new() };
    while let Some(dir) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if meta.dev() != top.dev() || (!meta.is_dir() && meta.nlink() > 1 && !seen.insert(meta.ino())) {
                continue;
            }
            inodes += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    Ok((bytes, inodes))
}
