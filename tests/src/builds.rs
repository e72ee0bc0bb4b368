//! Contexts of builds, and what a build said.

use std::path::Path;

/// A directory with these files.
pub fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        put(dir.path(), name, content);
    }
    dir
}

/// Writes a file, with the directories that it is in.
pub fn put(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// How many steps came from the cache, and how many ran as containers.
pub fn counts(out: &str) -> (usize, usize) {
    (out.matches("---> Using cache").count(), out.matches("---> Running in").count())
}
