//! Names in an open root in whatever spelling they have there: a path that a user typed, and where an archive's entries go.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use silo_layer::fold_windows_name as fold;

use crate::contract::{EntryPlaces, Names};

use super::paths::{check_name, drive_root, split_drive};

/// The names of a root, each directory read once, when a name is not there as it is spelled.
pub(super) struct Spellings<'r> {
    names: &'r dyn Names,
    directories: HashMap<PathBuf, HashMap<Vec<u16>, OsString>>,
}

impl<'r> Spellings<'r> {
    pub(super) fn new(names: &'r dyn Names) -> Self {
        Self { names, directories: HashMap::new() }
    }

    /// `path` with each part spelled as it is there; a part that is not there stays, and is entered. A last `.` stays.
    pub(super) fn find(&mut self, path: &Path) -> PathBuf {
        let mut found = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let spelled = name.to_str().and_then(|text| self.in_directory(&found, text));
            found.push(spelled.unwrap_or_else(|| name.to_owned()));
        }
        // What a path leads to instead of it itself: `Path` does not compare by it.
        if path.as_os_str().as_encoded_bytes().ends_with(b"/.") { found.join(".") } else { found }
    }

    /// How `name` is spelled in `directory`; `None`: as asked for.
    fn in_directory(&mut self, directory: &Path, name: &str) -> Option<OsString> {
        if self.names.has(directory, name)? {
            return None;
        }
        if !self.directories.contains_key(directory) {
            let all = self.names.all(directory).into_iter();
            let names = all.filter_map(|name| Some((fold(name.to_str()?), name)));
            self.directories.insert(directory.to_owned(), names.collect());
        }
        let known = self.directories.get_mut(directory)?;
        Some(known.entry(fold(name)).or_insert_with(|| name.into()).clone())
    }

    /// Where entries go that are extracted into `directory`.
    pub(super) fn entry_places(mut self, directory: &Path) -> EntryPlaces<'r> {
        let directory = directory.components().as_path().to_owned();
        Box::new(move |name| {
            let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8".to_owned())?;
            // A client that splits paths at slashes alone takes `C:\dir\new.txt` for a new name, so that nobody has asked
            // for the directory yet.
            if let Some((parent, _)) = first_part(name).rsplit_once('\\') {
                let at = self.find(&place(&directory, parent)?);
                self.names.has(&at, ".").ok_or_else(|| format!("there is no directory {parent:?}"))?;
            }
            let at = place(&directory, name)?;
            Ok(Some(at).filter(|at| *at != directory && !is_drive(at)).map(|at| self.find(&at)))
        })
    }
}

fn first_part(name: &str) -> &str {
    name.split('/').find(|part| !matches!(*part, "" | ".")).unwrap_or_default()
}

fn is_drive(path: &Path) -> bool {
    path == drive_root('c') || path.parent() == Some(Path::new("/mnt"))
}

/// The path of an entry's name: with a drive it is its own, else one below `directory`.
fn place(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let (base, rest) = match split_drive(name) {
        (Some(drive), rest) if rest.is_empty() || rest.starts_with(['\\', '/']) => (drive_root(drive), rest),
        _ => (directory.to_owned(), name),
    };
    let mut path = base.clone();
    for part in rest.split(['\\', '/']) {
        match part {
            "" | "." => {}
            ".." if path == base => return Err("it leads out".to_owned()),
            ".." => drop(path.pop()),
            _ => {
                check_name(part)?;
                path.push(part);
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("c/App/Ä")).unwrap();
        std::fs::write(root.path().join("c/App/Log.txt"), "").unwrap();
        let file = std::fs::File::open(root.path()).unwrap();
        let fd = file.as_fd();
        let mut names = Spellings::new(&fd);
        let mut check = |path: &str, expected: &str| {
            assert_eq!(names.find(Path::new(path)).as_os_str(), expected, "{path}");
        };
        check("/c/app/LOG.TXT", "/c/App/Log.txt");
        check("/c/APP/ä/.", "/c/App/Ä/.");
        check("/c/app/new/Deep", "/c/App/new/Deep");
        check("/c/app/NEW/x", "/c/App/new/x");
    }

    #[test]
    fn entries_go_where_windows_would_put_them() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("c/Dir")).unwrap();
        let file = std::fs::File::open(root.path()).unwrap();
        let fd = file.as_fd();
        let mut places = Spellings::new(&fd).entry_places(Path::new("/c/."));
        let mut check = |name: &str, expected: Result<&str, &str>| match (places(name.as_bytes()), expected) {
            (Ok(at), Ok(path)) => assert_eq!(at.unwrap_or_default(), Path::new(path), "{name}"),
            (Err(why), Err(words)) => assert!(why.contains(words), "{name}: {why}"),
            (other, _) => panic!("{name}: {other:?}"),
        };
        check(r"C:\dir\new.txt", Ok("/c/Dir/new.txt"));
        check(r"dir\new.txt", Ok("/c/Dir/new.txt"));
        check(r"\dir\folder/sub/f", Ok("/c/Dir/folder/sub/f"));
        check("./DIR/./f", Ok("/c/Dir/f"));
        check(r"D:\x", Err("there is no directory"));
        check(r"C:\missing\x", Err(r#"there is no directory "C:\\missing""#));
        check("missing/x", Ok("/c/missing/x"));
        check("./", Ok(""));
        check("../x", Err("leads out"));
        check("a:b", Err("':'"));
        check("dir/Nul", Err("device"));
    }
}
