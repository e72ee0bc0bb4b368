//! Where Wine's libraries look for the user's name: in a variable that `set` does not show.
//!
//! Wine's `GetUserName` reads the variable `WINEUSERNAME`. The patched `ntdll` (`wine/hidden-variables.patch`) leaves it
//! under a name that begins with an equals sign, as Windows' own hidden variables do (`=C:`); the libraries, which are the
//! packages', have that name put in place of theirs.

/// Libraries that read it.
pub(super) const READERS: [&str; 2] = ["advapi32.dll", "kernelbase.dll"];
const THEIRS: &str = "WINEUSERNAME";
const OURS: &str = "=USERNAME";

/// Renames the variable in a library; false if it does not name it.
pub(super) fn rename(library: &mut [u8]) -> bool {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut found = false;
    for (theirs, ours, end) in
        [(THEIRS.into(), OURS.into(), &[0][..]), (wide(THEIRS), wide(OURS), &[0, 0][..])]
    {
        let theirs: Vec<u8> = [&theirs[..], end].concat();
        let mut ours: Vec<u8> = ours;
        ours.resize(theirs.len(), 0);
        let mut at = 0;
        while let Some(next) = library[at..].windows(theirs.len()).position(|bytes| bytes == theirs) {
            at += next;
            library[at..at + theirs.len()].copy_from_slice(&ours);
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_change_and_nothing_beside_them() {
        let mut library = b"x\0WINEUSERNAME\0W\0I\0N\0E\0U\0S\0E\0R\0N\0A\0M\0E\0\0\0y".to_vec();
        assert!(rename(&mut library));
        assert_eq!(library, b"x\0=USERNAME\0\0\0\0=\0U\0S\0E\0R\0N\0A\0M\0E\0\0\0\0\0\0\0\0\0y");
        assert!(!rename(&mut library));
        // A longer name is another variable.
        assert!(!rename(&mut b"WINEUSERNAMES\0".to_vec()));
    }
}
