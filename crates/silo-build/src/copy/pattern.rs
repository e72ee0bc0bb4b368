//! Wildcards in sources: Go's `filepath.Match`, name by name, over a tree.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use silo_image::layer;

use super::request::CopyError;
use super::tree::Tree;

/// Directories below each other that `**` looks into.
const DEEPEST: usize = 200;

/// Whether a source is a pattern. `windows`: `\` separates and protects nothing.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a name matches; `None`: the pattern is malformed.
pub(super) fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut in_name) = (0, 0);
    // The last `*`, and what of the name it takes.
    let mut star: Option<(usize, usize)> = None;
    let mut matched = true;
    loop {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, in_name));
            at += 1;
            continue;
        }
        if at == pattern.len() && in_name == name.len() {
            return Some(matched);
        }
        let (hit, next) = match one(&pattern, at, name.get(in_name).copied())? {
            Some(found) => found,
            None => (false, at),
        };
        if hit && in_name < name.len() {
            (at, in_name) = (next, in_name + 1);
            continue;
        }
        match &mut star {
            Some((from, taken)) if *taken < name.len() => {
                *taken += 1;
                (at, in_name) = (*from + 1, *taken);
            }
            // The rest is read for its form alone.
            _ => {
                matched = false;
                while at < pattern.len() {
                    at = if pattern[at] == '*' {
                        at + 1
                    } else {
                        one(&pattern, at, None)?.map_or(at + 1, |(_, n)| n)
                    };
                }
                return Some(matched);
            }
        }
    }
}

/// Whether the element of the pattern at `at` takes a character, and where the next begins; `Some(None)` at the end.
fn one(pattern: &[char], at: usize, c: Option<char>) -> Option<Option<(bool, usize)>> {
    let Some(first) = pattern.get(at) else { return Some(None) };
    let literal = |at: usize| -> Option<(char, usize)> {
        match pattern.get(at)? {
            '\\' => Some((*pattern.get(at + 1)?, at + 2)),
            other => Some((*other, at + 1)),
        }
    };
    match first {
        '?' => Some(Some((c.is_some(), at + 1))),
        '[' => {
            let mut at = at + 1;
            let negated = pattern.get(at) == Some(&'^');
            at += usize::from(negated);
            let (mut hit, mut ranges) = (false, 0);
            loop {
                if pattern.get(at) == Some(&']') && ranges > 0 {
                    return Some(Some((c.is_some() && hit != negated, at + 1)));
                }
                if matches!(pattern.get(at), None | Some('-' | ']')) {
                    return None;
                }
                let (low, next) = literal(at)?;
                let (mut high, mut next) = (low, next);
                if pattern.get(next) == Some(&'-') {
                    if matches!(pattern.get(next + 1), None | Some('-' | ']')) {
                        return None;
                    }
                    (high, next) = literal(next + 1)?;
                }
                hit |= c.is_some_and(|c| low <= c && c <= high);
                ranges += 1;
                at = next;
            }
        }
        _ => {
            let (wanted, next) = literal(at)?;
            Some(Some((c == Some(wanted), next)))
        }
    }
}

/// The paths (names as they are spelled in the tree) that match, sorted. `deep`: `**` stands for any number of directories.
pub(super) fn expand(tree: &Tree, pattern: &str, deep: bool) -> Result<Vec<PathBuf>, CopyError> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let mut found = Vec::new();
    below(tree, Path::new(""), &parts, deep, 0, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

fn below(
    tree: &Tree,
    directory: &Path,
    parts: &[&str],
    deep: bool,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), CopyError> {
    let Some((part, rest)) = parts.split_first() else {
        found.push(directory.to_owned());
        return Ok(());
    };
    // A loop of links ends here too.
    if depth > DEEPEST {
        return Ok(());
    }
    let failed = |e| CopyError::io(format!("reading {}", directory.display()))(e);
    let is_any = deep && *part == "**";
    if is_any {
        below(tree, directory, rest, deep, depth, found)?;
    } else if !is_pattern(part) {
        let path = directory.join(part);
        return match tree.resolve(&path) {
            Ok(resolved) if resolved.seen.is_none() => Ok(()),
            Ok(_) => below(tree, &path, rest, deep, depth + 1, found),
            Err(e) if matches!(e.raw_os_error(), Some(code) if is_absence(code)) => Ok(()),
            Err(e) => Err(failed(e)),
        };
    }
    let seen = match tree.resolve(directory) {
        Ok(resolved) => resolved.seen,
        Err(e) if e.raw_os_error().is_some_and(is_absence) => None,
        Err(e) => return Err(failed(e)),
    };
    let Some(seen) = seen.filter(|seen| seen.kind() == FileType::Directory) else { return Ok(()) };
    let folded = |name: &str| if tree.windows { name.to_lowercase() } else { name.to_owned() };
    let wanted = folded(part);
    for name in layer::merged_names(&seen.paths).map_err(failed)? {
        let path = directory.join(&name);
        if is_any {
            let inner = layer::lookup_merged(&seen.paths, &name).map_err(failed)?;
            if inner.is_some_and(|inner| inner.kind() == FileType::Directory) {
                below(tree, &path, parts, deep, depth + 1, found)?;
            } else if rest.is_empty() {
                found.push(path);
            }
            continue;
        }
        // As dockerd: what is no pattern matches nothing.
        let hit = matches(&wanted, &folded(&name.to_string_lossy())).unwrap_or(false);
        if hit {
            below(tree, &path, rest, deep, depth + 1, found)?;
        }
    }
    Ok(())
}

fn is_absence(code: i32) -> bool {
    let codes = [rustix::io::Errno::NOTDIR, rustix::io::Errno::NOENT, rustix::io::Errno::LOOP];
    codes.iter().any(|e| e.raw_os_error() == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        // Of Go's own table (path/filepath/match_test.go), those without separators.
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "abc", Some(true)),
            ("a*b*c*d*e*", "axbxcxdxe", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("[a-ζ]*", "α", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-x]", "-", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("a[", "x", None),
            ("*x", "xxx", Some(true)),
            ("*", ".hidden", Some(true)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
            ("a", "", Some(false)),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_expand_over_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.txt", "a/y.md", "b/x.txt", "b/c/d/x.txt", ".h"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let tree = Tree::context(dir.path());
        let check = |pattern: &str, deep: bool, expected: &[&str]| {
            let found = expand(&tree, pattern, deep).unwrap();
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{pattern}");
        };
        check("*", false, &[".h", "a", "b"]);
        check("*/x.txt", false, &["a/x.txt", "b/x.txt"]);
        check("./a/*.txt", false, &["a/x.txt"]);
        check("**/x.txt", true, &["a/x.txt", "b/c/d/x.txt", "b/x.txt"]);
        check("b/**", true, &["b", "b/c", "b/c/d", "b/c/d/x.txt", "b/x.txt"]);
        check("a/none/*", false, &[]);
        check("a/x.txt/*", false, &[]);
    }
}
