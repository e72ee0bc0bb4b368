//! Windows paths to paths in the container's root, and the spelling that they have there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::contract::GuestError;

/// Below `C:`, the file that Windows programs look into for hosts' names: empty in the base, the engine's in a container.
pub(crate) const HOSTS: &str = "Windows/System32/drivers/etc/hosts";

/// A drive of a container and a path on it, without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowsPath {
    drive: char,
    parts: Vec<String>,
}

/// Names that Windows gives to devices in every directory.
const DEVICES: &[&str] = &["con", "prn", "aux", "nul"];

impl WindowsPath {
    /// Parses `path`, either slash, relative to `base` if it has no root. `C:x` counts as `C:\x`.
    pub(super) fn parse(path: &str, base: Option<&WindowsPath>) -> Result<WindowsPath, GuestError> {
        let invalid = |why: &str| GuestError::Invalid(format!("invalid path '{path}': {why}"));
        let (drive, rest) = split_drive(path);
        let rooted = drive.is_some() || rest.starts_with(['\\', '/']);
        let mut parts = match base {
            Some(base) if !rooted => base.parts.clone(),
            _ => Vec::new(),
        };
        let drive = drive.or(base.map(|base| base.drive)).unwrap_or('c');
        for part in rest.split(['\\', '/']) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                _ => {
                    check_name(part).map_err(|why| invalid(&why))?;
                    parts.push(part.to_owned());
                }
            }
        }
        Ok(WindowsPath { drive, parts })
    }

    /// Drive letter, lower case.
    pub(super) fn drive(&self) -> char {
        self.drive
    }

    /// Whether this is the drive's root.
    pub(super) fn is_root(&self) -> bool {
        self.parts.is_empty()
    }

    /// The path in the container's root, as typed.
    pub(super) fn in_root(&self) -> PathBuf {
        self.parts.iter().fold(drive_root(self.drive), |path, part| path.join(part))
    }

    /// The path in the container's root, each part in the spelling that it has in one of `layers` (directories that
    /// show at the drive's root, uppermost first) as far as it exists there.
    pub(super) fn resolve(&self, layers: &[PathBuf]) -> PathBuf {
        drive_root(self.drive).join(resolve(&self.parts.iter().collect::<PathBuf>(), layers))
    }

    /// Directories between this and its drive's root.
    pub(super) fn depth(&self) -> usize {
        self.parts.len()
    }
}

impl std::fmt::Display for WindowsPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:\\{}", self.drive.to_ascii_uppercase(), self.parts.join("\\"))
    }
}

/// A relative path, each part in the spelling that it has in one of `layers`, uppermost first, as far as it is there.
pub(super) fn resolve(path: &Path, layers: &[PathBuf]) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path {
        let spelled = part.to_str().map(|name| spelling(layers, &found, name));
        found.push(spelled.unwrap_or_else(|| part.to_owned()));
    }
    found
}

/// Whether two spellings are of one name.
pub(super) fn is_spelled(one: &OsStr, other: &OsStr) -> bool {
    let fold = |name: &OsStr| name.to_str().map(silo_layer::fold_windows_name);
    one == other || fold(one).is_some_and(|folded| Some(folded) == fold(other))
}

/// Whether Windows takes the name of a file or directory; the error says why not.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    silo_layer::check_windows_name(name)?;
    match DEVICES.contains(&name.to_ascii_lowercase().as_str()) {
        true => Err(format!("{name:?} is the name of a device")),
        false => Ok(()),
    }
}

/// Where a drive shows in the container's root.
pub(super) fn drive_root(drive: char) -> PathBuf {
    if drive == 'c' { PathBuf::from("/c") } else { Path::new("/mnt").join(drive.to_string()) }
}

/// How `name` is spelled in `directory` of the layers; `name` itself where it does not exist.
fn spelling(layers: &[PathBuf], directory: &Path, name: &str) -> OsString {
    let exact = layers.iter().any(|layer| layer.join(directory).join(name).symlink_metadata().is_ok());
    let other = || {
        layers.iter().find_map(|layer| {
            let entries = std::fs::read_dir(layer.join(directory)).ok()?;
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names.find(|other| is_spelled(other, name.as_ref()))
        })
    };
    if exact { name.into() } else { other().unwrap_or_else(|| name.into()) }
}

/// A drive letter in lower case, and what follows its colon.
pub(super) fn split_drive(path: &str) -> (Option<char>, &str) {
    let mut chars = path.chars();
    match (chars.next(), chars.next()) {
        (Some(letter), Some(':')) if letter.is_ascii_alphabetic() => {
            (Some(letter.to_ascii_lowercase()), &path[2..])
        }
        _ => (None, path),
    }
}

/// Whether `path` names one place whatever the current directory is.
pub(super) fn is_absolute(path: &str) -> bool {
    split_drive(path).0.is_some() || path.starts_with(['\\', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, base: &str, expected: &str) {
        let base = WindowsPath::parse(base, None).unwrap();
        assert_eq!(WindowsPath::parse(path, Some(&base)).unwrap().in_root(), Path::new(expected));
    }

    #[test]
    fn both_slashes_and_any_case_of_drive_are_understood() {
        check(r"C:\a\b", "", "/c/a/b");
        check("c:/a/../b/.", "", "/c/b");
        check(r"\x", r"C:\w", "/c/x");
        check("x", r"C:\w", "/c/w/x");
        check(r"..\..\..\x", r"C:\w", "/c/x");
        check(r"D:\x", "", "/mnt/d/x");
    }

    #[test]
    fn what_windows_does_not_allow_is_refused() {
        for path in ["C:\\a:b", "C:\\a*", "C:\\a\0b", "C:\\x\\NUL"] {
            assert!(WindowsPath::parse(path, None).is_err(), "{path:?}");
        }
    }

    #[test]
    fn existing_parts_keep_their_spelling() {
        let root = std::env::temp_dir().join(format!("silo-paths-{}", std::process::id()));
        std::fs::create_dir_all(root.join("Windows/System32")).unwrap();
        let path = WindowsPath::parse(r"C:\WINDOWS\system32\New", None).unwrap();
        assert_eq!(path.resolve(std::slice::from_ref(&root)), Path::new("/c/Windows/System32/New"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
