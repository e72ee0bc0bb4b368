//! The files of a base that no layer above replaces: Wine's own system files. A Windows kernel's `ntdll.dll` cannot run on
//! Wine, whatever layer brings it.
//!
//! The list is made of the base itself and goes with it, in its Linux side; whoever unpacks a layer over the base reads it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::pe;

/// Where the list is in a base: one path on `C:` a line, lower case, slashes between, sorted.
pub(super) const PLACE: &str = "Host/usr/share/silo/own-files";
/// Exceptions.
const REDISTRIBUTABLES: &str = include_str!("redistributables.txt");
/// Bytes of a file that are looked at: the mark of Wine's build lies in the first hundred.
const HEAD: u64 = 128;

/// Whether programs bring a library of this name (lower case) themselves.
fn is_redistributable(name: &str) -> bool {
    let patterns = REDISTRIBUTABLES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    patterns.filter_map(|pattern| pattern.split_once('*')).any(|(head, tail)| {
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    })
}

/// The list for `files`, the base's `Files`: what Wine's build made, tables that Wine's Linux side reads, and `inside`, our
/// own programs (paths in `files`).
pub(super) fn list(files: &Path, inside: &[&str]) -> io::Result<String> {
    let mut own: BTreeSet<String> = inside.iter().map(|path| path.to_ascii_lowercase()).collect();
    let mut queue = vec![files.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                queue.push(path);
                continue;
            }
            let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
            if !kind.is_file() || is_redistributable(&name) {
                continue;
            }
            let mut head = Vec::new();
            fs::File::open(&path)?.take(HEAD).read_to_end(&mut head)?;
            if pe::is_builtin(&head) || name.ends_with(".nls") {
                let below = path.strip_prefix(files).unwrap_or(&path);
                own.insert(below.to_string_lossy().to_ascii_lowercase());
            }
        }
    }
    Ok(own.into_iter().map(|path| path + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_wines_without_what_programs_bring() {
        let files = tempfile::tempdir().unwrap();
        let system = files.path().join("Windows/System32");
        fs::create_dir_all(&system).unwrap();
        let builtin = [&[b'M'; 0x40][..], b"Wine builtin DLL"].concat();
        for (name, bytes) in [
            ("ntdll.dll", &builtin[..]),
            ("MSVCP140.dll", &builtin),
            ("msvcrt.dll", &builtin),
            ("vcruntime140_1.dll", &builtin),
            ("zlib1.dll", b"MZ"),
            ("l_intl.nls", b""),
        ] {
            fs::write(system.join(name), bytes).unwrap();
        }
        let list = list(files.path(), &["Windows/System32/sc.exe"]).unwrap();
        let names: Vec<&str> = list.lines().filter_map(|l| l.strip_prefix("windows/system32/")).collect();
        assert_eq!(names, ["l_intl.nls", "msvcrt.dll", "ntdll.dll", "sc.exe"]);
        assert_eq!(list.lines().count(), names.len());
    }
}
