//! Names as NTFS sees them: which are legal, and which are one name in two spellings.

/// Units of UTF-16 that a name may have (NTFS, `$FILE_NAME`).
const LONGEST: usize = 255;
/// Characters that no name on NTFS has, and all below the blank (Microsoft, "Naming Files, Paths, and Namespaces").
const FORBIDDEN: &[char] = &['"', '*', '/', ':', '<', '>', '?', '\\', '|'];
/// Letters whose capitals Unicode found after Windows' table was made.
const LATER: &[u16] = &[0x19b, 0x264, 0x1c8a, 0xa7cd, 0xa7cf, 0xa7d3, 0xa7d5, 0xa7db];

/// Whether NTFS takes the name of a file or directory; the error says why not.
pub fn check(name: &str) -> Result<(), String> {
    if matches!(name, "" | "." | "..") {
        return Err(format!("{name:?} is no name of a file"));
    }
    if let Some(c) = name.chars().find(|c| *c < ' ' || FORBIDDEN.contains(c)) {
        return Err(format!("NTFS has no {c:?} in names"));
    }
    check_length(name)
}

/// Whether NTFS takes the name of an alternate stream: anything but separators and zero.
pub(super) fn check_stream(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a stream without a name".to_owned());
    }
    if let Some(c) = name.chars().find(|c| matches!(c, '\0' | '/' | '\\' | ':')) {
        return Err(format!("NTFS has no {c:?} in names of streams"));
    }
    check_length(name)
}

fn check_length(name: &str) -> Result<(), String> {
    let units = name.encode_utf16().count();
    if units > LONGEST { Err(format!("a name of {units} characters, NTFS has {LONGEST}")) } else { Ok(()) }
}

/// What two spellings of one name have in common: each unit in Windows' upper case.
pub fn fold(name: &str) -> Vec<u16> {
    name.encode_utf16().map(upcase).collect()
}

/// The capital of a UTF-16 unit as Windows' table (`l_intl.nls`) has it: one unit for one, and only a capital that
/// leads back to this letter (not U+00B5, U+0131, U+017F, U+03C2 …).
fn upcase(unit: u16) -> u16 {
    match unit {
        0x61..=0x7a => return unit - 0x20,
        0..0x80 => return unit,
        // Greek with iota below: Unicode's capitals are two letters, Windows' one.
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => return unit + 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => return unit + 9,
        _ if LATER.contains(&unit) => return unit,
        _ => {}
    }
    let Some(small) = char::from_u32(unit.into()) else { return unit };
    let mut capitals = small.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) if capital.to_lowercase().eq([small]) => {
            u16::try_from(u32::from(capital)).unwrap_or(unit)
        }
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_that_of_windows() {
        for (small, capital) in
            [("readme", "README"), ("äéø", "ÄÉØ"), ("жђ", "ЖЂ"), ("ω", "Ω"), ("ÿ", "Ÿ"), ("ᾳ", "ᾼ")]
        {
            assert_eq!(fold(small), fold(capital), "{small}");
        }
        for (one, other) in
            [("ı", "I"), ("µ", "Μ"), ("ſ", "S"), ("ς", "Σ"), ("ß", "ẞ"), ("\u{10428}", "\u{10400}")]
        {
            assert_ne!(fold(one), fold(other), "{one}");
        }
    }

    #[test]
    fn names_that_ntfs_has_not() {
        for good in ["a", "con", "a.", " a", "ä", &"x".repeat(255), "$Recycle.Bin"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a:b", "a?", "a\\b", "a\u{1}", "a\n", "<", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_stream("a?\u{1}").is_ok());
        assert!(check_stream("").is_err() && check_stream("a:$DATA").is_err());
    }
}
