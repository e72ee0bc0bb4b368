//! A file of `C:` by its Windows name.

use std::io;
use std::path::PathBuf;

use rustix::fs::FileType;

use super::names;
use super::roots::FILES;
use crate::merge;

/// Where the file is that `C:` shows at `path` (names with slashes between, in any case). `layers`: trees, uppermost first.
/// No link is followed; what is no regular file is not found.
pub fn find_windows(layers: &[PathBuf], path: &str) -> io::Result<Option<PathBuf>> {
    let Some(root) = merge::lookup(layers, FILES.as_ref())? else { return Ok(None) };
    let mut directories = root.paths;
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let folded = names::fold(part);
        let shown = merge::names(&directories)?;
        let Some(name) = shown.into_iter().find(|n| n.to_str().is_some_and(|n| names::fold(n) == folded))
        else {
            return Ok(None);
        };
        let Some(seen) = merge::lookup(&directories, &name)? else { return Ok(None) };
        match (seen.kind(), parts.peek()) {
            (FileType::Directory, Some(_)) => directories = seen.paths,
            (FileType::RegularFile, None) => return Ok(Some(seen.path().to_owned())),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_uppermost_in_any_case_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let layers = [dir.path().join("upper"), dir.path().join("lower")];
        for (layer, path) in
            [(1, "Files/Users/Ann/a.txt"), (1, "Files/Users/Ann/b.txt"), (0, "Files/Users/Ann/B.TXT")]
        {
            let path = layers[layer].join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", layers[0].join("Files/Users/link")).unwrap();
        let find = |path| find_windows(&layers, path).unwrap();
        assert_eq!(find("USERS/ann/A.txt"), Some(layers[1].join("Files/Users/Ann/a.txt")));
        assert_eq!(find("Users/Ann/B.TXT"), Some(layers[0].join("Files/Users/Ann/B.TXT")));
        for none in ["Users/Ann", "Users/link", "Users/Ann/a.txt/x", "Users/Bob/a.txt", ""] {
            assert_eq!(find(none), None, "{none}");
        }
        assert_eq!(find_windows(&[dir.path().join("none")], "x").unwrap(), None);
    }
}
