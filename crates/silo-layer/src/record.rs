//! What is told of an archive while it is unpacked, so that it can be put together again from the tree.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Is told the whole archive in order: its bytes, but for those that are all of a file in the tree.
pub trait Record {
    /// These bytes come next.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// All bytes of a file come next: `path` is where it really is below the tree's root, no link on the way.
    fn file(&mut self, path: &Path, size: u64) -> io::Result<()>;
    /// What is at `path` is about to give way to another entry: where it is to be kept, a new name on the same file system.
    fn give_way(&mut self, path: &Path) -> io::Result<(File, PathBuf)>;
}
