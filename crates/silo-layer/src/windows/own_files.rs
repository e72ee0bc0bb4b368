//! Files of a base that no layer above replaces: what layers have of them is kept aside and not shown.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::names;
use super::roots::{FILES, HIDDEN};

/// A base's own files.
#[derive(Debug, Clone, Default)]
pub struct OwnFiles(HashSet<Vec<u16>>);

impl OwnFiles {
    /// Reads a list: a path on `C:` a line, slashes between, in any case.
    pub fn read(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.is_empty()).map(names::fold).collect())
    }

    /// Where a file of a layer above goes: `Files/x` of the base's own is kept as `Hidden/x`.
    pub(super) fn place(&self, path: PathBuf) -> PathBuf {
        let own = path.strip_prefix(FILES).ok().filter(|below| self.has(below));
        own.map(|below| Path::new(HIDDEN).join(below)).unwrap_or(path)
    }

    fn has(&self, below: &Path) -> bool {
        !self.0.is_empty() && below.to_str().is_some_and(|text| self.0.contains(&names::fold(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_found_in_any_case() {
        let own = OwnFiles::read("windows/system32/ntdll.dll\n\n");
        let place = |path: &str| own.place(path.into()).display().to_string();
        assert_eq!(place("Files/Windows/System32/NTDLL.dll"), "Hidden/Windows/System32/NTDLL.dll");
        for other in
            ["Files/Windows/System32/ntdll.dll.bak", "UtilityVM/Files/Windows/System32/ntdll.dll", "Files"]
        {
            assert_eq!(place(other), other);
        }
    }
}
