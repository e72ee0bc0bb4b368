//! Where a path leads in a chain of unpacked layers, links followed inside of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use crate::merge::{self, Seen};
use crate::windows::names::fold;

/// Links followed on the way before giving up.
const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The path from the root without links, `.` and `..`, as far as it is there in the spelling that it has there.
    pub path: PathBuf,
    /// What is there.
    pub seen: Option<Seen>,
    /// The directories on the way that are there, the root first; not the last name's node.
    pub way: Vec<Seen>,
}

/// Resolves `inside` in the tree that `roots`, uppermost first and at least one, show together; the last name is followed too.
/// `windows`: names are found in any spelling. An error: a file stands where a directory must be (ENOTDIR), or too many
/// links (ELOOP).
pub fn resolve(roots: &[PathBuf], inside: &Path, windows: bool) -> io::Result<Resolved> {
    let Some(top) = roots.first() else {
        return Ok(Resolved { path: PathBuf::new(), seen: None, way: Vec::new() });
    };
    let root = Seen { stat: fs::lstat(top)?, paths: roots.to_vec() };
    let mut way: Vec<(OsString, Seen)> = Vec::new();
    let mut missing: Vec<OsString> = Vec::new();
    let mut todo = VecDeque::from(parts(inside));
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            // Above the root is the root.
            if missing.pop().is_none() {
                way.pop();
            }
            continue;
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        let here = way.last().map_or(&root, |(_, seen)| seen);
        if here.kind() != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let Some((name, seen)) = find(&here.paths, &name, windows)? else {
            missing.push(name);
            continue;
        };
        if seen.kind() != FileType::Symlink {
            way.push((name, seen));
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = std::fs::read_link(seen.path())?;
        if target.is_absolute() {
            way.clear();
        }
        for part in parts(&target).into_iter().rev() {
            todo.push_front(part);
        }
    }
    if !missing.is_empty() && way.last().is_some_and(|(_, seen)| seen.kind() != FileType::Directory) {
        return Err(Errno::NOTDIR.into());
    }
    let path = way.iter().map(|(name, _)| name).chain(&missing).collect();
    let mut seen: Vec<Seen> = std::iter::once(root).chain(way.into_iter().map(|(_, seen)| seen)).collect();
    let last = if missing.is_empty() { seen.pop() } else { None };
    Ok(Resolved { path, seen: last, way: seen })
}

/// A node of a merged directory and how its name is spelled there.
fn find(dirs: &[PathBuf], name: &OsStr, windows: bool) -> io::Result<Option<(OsString, Seen)>> {
    if let Some(seen) = merge::lookup(dirs, name)? {
        return Ok(Some((name.to_owned(), seen)));
    }
    let Some(folded) = name.to_str().filter(|_| windows).map(fold) else {
        return Ok(None);
    };
    let same = |other: &OsString| other.to_str().is_some_and(|n| fold(n) == folded);
    let Some(spelled) = merge::names(dirs)?.into_iter().find(same) else { return Ok(None) };
    Ok(merge::lookup(dirs, &spelled)?.map(|seen| (spelled, seen)))
}

fn parts(path: &Path) -> Vec<OsString> {
    let named = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_spellings_and_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().join("upper"), dir.path().join("lower")];
        std::fs::create_dir_all(roots[0].join("App")).unwrap();
        std::fs::create_dir_all(roots[1].join("App/Data")).unwrap();
        std::fs::write(roots[1].join("App/file"), "").unwrap();
        symlink("/App/../App/Data", roots[0].join("link")).unwrap();
        symlink("../../new/x", roots[1].join("App/dangling")).unwrap();
        symlink("loop", roots[0].join("loop")).unwrap();
        let check = |path: &str, windows: bool, expected: Result<(&str, bool), Errno>| {
            let found = resolve(&roots, Path::new(path), windows)
                .map(|r| (r.path.to_str().unwrap().to_owned(), r.seen.is_some()))
                .map_err(|e| Errno::from_io_error(&e).unwrap());
            assert_eq!(found, expected.map(|(p, s)| (p.to_owned(), s)), "{path}");
        };
        check("/", false, Ok(("", true)));
        check("/link", false, Ok(("App/Data", true)));
        check("/link/new/../../file", false, Ok(("App/file", true)));
        check("/App/dangling/y", false, Ok(("new/x/y", false)));
        check("/App/none/../../../..", false, Ok(("", true)));
        check("/app/DATA/New", true, Ok(("App/Data/New", false)));
        check("/app/DATA", false, Ok(("app/DATA", false)));
        check("/App/file/x", false, Err(Errno::NOTDIR));
        check("/loop", false, Err(Errno::LOOP));
    }
}
