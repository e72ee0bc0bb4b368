//! Targets of links: what Windows writes, and what leads to the same place on Linux.

/// Where a link leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To a path below the root of the link's own drive.
    Inside(Vec<String>),
    /// To another drive, volume or machine: nothing that a tree could show.
    Elsewhere,
}

/// What a link at `directory` (below the root of `C:`) leads to; the error says why no honest link leads there.
///
/// Targets are those of reparse points: `C:\x`, `\x`, `..\x`, and in the namespace of the object manager `\??\C:\x` and
/// `\??\Volume{…}\` (MS-FSCC, 2.1.2.4 and 2.1.2.5).
pub(super) fn parse(target: &str, directory: &[String]) -> Result<Target, String> {
    let target = target.replace('/', "\\");
    if target.is_empty() {
        return Err("a link to nothing".to_owned());
    }
    let rest = [r"\??\", r"\\?\"].iter().find_map(|prefix| target.strip_prefix(prefix));
    let (rest, must_have_drive) = (rest.unwrap_or(&target), rest.is_some());
    let mut parts: Vec<String> = match rest.as_bytes() {
        [b'c' | b'C', b':', b'\\', ..] | [b'c' | b'C', b':'] => Vec::new(),
        [letter, b':', ..] if letter.is_ascii_alphabetic() => return Ok(Target::Elsewhere),
        _ if must_have_drive => return Ok(Target::Elsewhere),
        [b'\\', b'\\', ..] => return Ok(Target::Elsewhere),
        [b'\\', ..] => Vec::new(),
        _ => directory.to_vec(),
    };
    let rest = if rest.as_bytes().get(1) == Some(&b':') { &rest[2..] } else { rest };
    for part in rest.split('\\') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return Err(format!("the link's target {target:?} leads out")),
            ".." => {}
            _ => {
                super::names::check(part).map_err(|why| format!("the link's target {target:?}: {why}"))?;
                parts.push(part.to_owned());
            }
        }
    }
    Ok(Target::Inside(parts))
}

/// A relative path from `directory` to `target`, both below one root.
pub(super) fn relative(directory: &[String], target: &[String]) -> String {
    let common = directory.iter().zip(target).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", directory.len() - common);
    let path: Vec<&str> = up.chain(target[common..].iter().map(String::as_str)).collect();
    if path.is_empty() { ".".to_owned() } else { path.join("/") }
}

/// The Windows target of a link that was made on Linux, in `directory`: relative, with backslashes.
pub(super) fn to_windows(target: &str, directory: &[String]) -> Result<(String, Vec<String>), String> {
    if target.starts_with('/') {
        return Err(format!("its target {target:?} is absolute, which means nothing on Windows"));
    }
    let windows = target.replace('/', "\\");
    match parse(&windows, directory)? {
        Target::Inside(parts) if !target.contains('\\') => Ok((windows, parts)),
        _ => Err(format!("its target {target:?} is no path of Windows")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Vec<String> {
        path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect()
    }

    fn check(target: &str, expected: Option<&str>) {
        let found = parse(target, &parts("Users/x")).unwrap();
        let expected = expected.map_or(Target::Elsewhere, |path| Target::Inside(parts(path)));
        assert_eq!(found, expected, "{target}");
    }

    #[test]
    fn every_form_of_target() {
        check(r"\??\C:\ProgramData", Some("ProgramData"));
        check(r"\??\c:\", Some(""));
        check(r"C:", Some(""));
        check(r"\\?\C:\a\b\", Some("a/b"));
        check(r"\a", Some("a"));
        check(r"..\Public\.\f", Some("Users/Public/f"));
        check("f", Some("Users/x/f"));
        check("../y", Some("Users/y"));
        check(r"D:\x", None);
        check(r"\??\D:\x", None);
        check(r"\??\Volume{0a}\", None);
        check(r"\\server\share", None);
        check(r"\??\UNC\server\share", None);
        for bad in ["", r"..\..\..\etc", r"C:\..\x", r"a?b", r"C:\a\..\..\b", "ab:c"] {
            assert!(parse(bad, &parts("Users/x")).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_paths_stay_below() {
        assert_eq!(relative(&parts("a/b"), &parts("a/c/d")), "../c/d");
        assert_eq!(relative(&parts(""), &parts("a")), "a");
        assert_eq!(relative(&parts("a/b"), &parts("")), "../..");
        assert_eq!(relative(&parts(""), &parts("")), ".");
        let (target, to) = to_windows("../y/z", &parts("a/x")).unwrap();
        assert_eq!((target.as_str(), to), (r"..\y\z", parts("a/y/z")));
        assert!(to_windows("/etc", &[]).is_err() && to_windows("../x", &[]).is_err());
    }
}
