//! Several layers as one: what they show together, and what they hide of the layers below them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use crate::copy::{Links, attributes, copy_alone};
use crate::merge::Seen;
use crate::whiteout;

/// Deeper trees are refused.
const DEEPEST: usize = 900;

/// Fills the empty directory `to` with what unpacked Linux layers (uppermost first) are together, whiteouts as overlayfs has them.
pub fn squash(layers: &[PathBuf], to: &Path) -> io::Result<()> {
    directory(layers, to, 0, &mut Links::new())
}

fn directory(dirs: &[PathBuf], to: &Path, depth: usize, links: &mut Links) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut names = BTreeSet::<OsString>::new();
    for dir in dirs {
        for entry in std::fs::read_dir(dir)? {
            names.insert(entry?.file_name());
        }
    }
    for name in names {
        node(dirs, &name, &to.join(&name), depth, links)?;
    }
    Ok(())
}

fn node(dirs: &[PathBuf], name: &OsString, to: &Path, depth: usize, links: &mut Links) -> io::Result<()> {
    let mut seen: Option<Seen> = None;
    // Nothing below these layers shows through.
    let mut is_hiding = false;
    for dir in dirs {
        let path = dir.join(name);
        let stat = match fs::lstat(&path) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            match seen {
                // Whiteouts too are copied as they are.
                None => return copy_alone(&Seen { stat, paths: vec![path] }, to, links),
                Some(_) => is_hiding = true,
            }
            break;
        }
        is_hiding = whiteout::is_opaque(&path);
        seen.get_or_insert_with(|| Seen { stat, paths: Vec::new() }).paths.push(path);
        if is_hiding {
            break;
        }
    }
    let Some(seen) = seen else { return Ok(()) };
    std::fs::create_dir(to)?;
    directory(&seen.paths, to, depth + 1, links)?;
    attributes(&seen, to)?;
    if is_hiding {
        whiteout::set_opaque(to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_stays_hidden_and_the_uppermost_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower, to) = (dir.path().join("upper"), dir.path().join("lower"), dir.path().join("to"));
        for path in ["both", "hidden"] {
            std::fs::create_dir_all(upper.join(path)).unwrap();
            std::fs::create_dir_all(lower.join(path)).unwrap();
        }
        std::fs::create_dir(&to).unwrap();
        std::fs::write(upper.join("both/a"), "new").unwrap();
        std::fs::write(lower.join("both/a"), "old").unwrap();
        std::fs::write(lower.join("both/b"), "b").unwrap();
        std::fs::write(lower.join("hidden/c"), "c").unwrap();
        whiteout::set_opaque(&upper.join("hidden")).unwrap();
        std::fs::write(lower.join("gone"), "x").unwrap();
        let open = std::fs::File::open(&upper).unwrap();
        whiteout::make(&open, "gone".as_ref()).unwrap();
        squash(&[upper, lower], &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("both/a")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(to.join("both/b")).unwrap(), "b");
        assert!(!to.join("hidden/c").exists() && whiteout::is_opaque(&to.join("hidden")));
        assert!(whiteout::is_whiteout(&fs::lstat(to.join("gone")).unwrap()));
        assert!(!whiteout::is_opaque(&to.join("both")));
    }
}
