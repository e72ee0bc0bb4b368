//! Files name each other in one direction: within every crate, what a file names (by `crate::`, `super::` or a module of
//! its own) never leads back to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every crate with more than a handful of files.
const CRATES: &[&str] = &[
    "silo",
    "silo-api",
    "silo-engine",
    "silo-guest",
    "silo-hive",
    "silo-image",
    "silo-layer",
    "silo-network",
    "silo-runtime",
    "silo-sandbox",
    "silo-sys",
];

/// Code without comments, and without the tests that stand at its end.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines: Vec<_> = code.lines().map(|l| l.split("//").next().unwrap_or(l)).collect();
    // Who may see a thing is no use of it.
    lines.join("\n").replace("pub(in crate::", "pub(in ")
}

/// `a::{b, c::{d, e}}` as its single paths.
fn single_paths(path: &str) -> Vec<String> {
    let Some((head, group)) = path.split_once('{') else { return vec![path.trim().to_owned()] };
    let group = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    let inner = parts.iter().filter(|p| !p.trim().is_empty()).flat_map(|p| single_paths(p));
    inner.map(|p| format!("{}{p}", head.trim())).collect()
}

/// The paths that code names, each as words from the crate's root; `module`: that of the file.
fn named(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let own: BTreeSet<&str> = code
        .lines()
        .filter_map(|l| l.trim().rsplit_once("mod ")?.1.strip_suffix(';'))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let first = rest[..at].rfind(|c| !is_word(c)).map_or(0, |i| i + 1);
        let begins = !rest[..first].ends_with(':');
        let word = &rest[first..at];
        let names_a_file = begins && (matches!(word, "crate" | "super") || own.contains(word));
        if !names_a_file {
            rest = &rest[at + 2..];
            continue;
        }
        // To the end of the path, or of the group that it ends with.
        let (mut depth, mut end) = (0, at);
        for (i, c) in rest[at..].char_indices() {
            match c {
                '{' if depth > 0 || rest[..at + i].ends_with("::") => depth += 1,
                '}' if depth > 0 => depth -= 1,
                _ if depth > 0 || c == ':' || is_word(c) => {}
                _ => break,
            }
            end = at + i + c.len_utf8();
        }
        for path in single_paths(&rest[first..end]) {
            let mut words: Vec<String> = path.split("::").map(|w| w.trim().to_owned()).collect();
            let mut base = match words[0].as_str() {
                "crate" => Vec::new(),
                _ => module.to_vec(),
            };
            while words.first().is_some_and(|w| w == "super") {
                base.pop();
                words.remove(0);
            }
            base.extend(words.into_iter().filter(|w| w != "crate"));
            found.push(base);
        }
        rest = &rest[end..];
    }
    found
}

/// The file that a path's words lead to.
fn file_of(src: &Path, words: &[String]) -> Option<PathBuf> {
    let mut at = src.to_owned();
    let mut target = None;
    for word in words {
        at.push(word.split(' ').next().unwrap_or(word));
        target = [at.with_extension("rs"), at.join("mod.rs")].into_iter().find(|f| f.exists()).or(target);
    }
    target
}

fn module_of(src: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(src).unwrap_or(file).with_extension("");
    let mut words: Vec<String> = inside.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    if words.last().is_some_and(|w| matches!(w.as_str(), "mod" | "lib" | "main")) {
        words.pop();
    }
    words
}

/// A way from a file along what is named back to it.
fn way_back(edges: &BTreeMap<PathBuf, BTreeSet<PathBuf>>, start: &Path) -> Option<Vec<PathBuf>> {
    let mut open = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = open.pop() {
        for next in edges.get(way.last()?).into_iter().flatten() {
            let longer: Vec<PathBuf> = way.iter().chain([next]).cloned().collect();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                open.push(longer);
            }
        }
    }
    None
}

/// The sources of the programs that run inside, by crate.
fn inside(sources: &[PathBuf]) -> BTreeSet<PathBuf> {
    let below = sources.iter().filter(|file| file.starts_with(crate::root().join("inside")));
    let found: BTreeSet<_> = below
        .filter_map(|file| file.ancestors().find(|folder| folder.ends_with("src")).map(Path::to_owned))
        .collect();
    assert!(found.len() > 4, "only {found:?}");
    found
}

#[test]
fn files_name_each_other_without_circles() {
    let sources = crate::tidy::sources();
    let mut arrows = 0;
    let crates = CRATES.iter().map(|name| crate::root().join("crates").join(name).join("src"));
    for src in crates.chain(inside(&sources)) {
        let mut edges: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for file in sources.iter().filter(|f| f.starts_with(&src)) {
            let code = code(&std::fs::read_to_string(file).unwrap());
            let targets = named(&code, &module_of(&src, file));
            let targets = targets.iter().filter_map(|words| file_of(&src, words)).filter(|t| t != file);
            edges.insert(file.clone(), targets.collect());
        }
        for start in edges.keys() {
            let way = way_back(&edges, start);
            assert!(way.is_none(), "a circle of files: {way:#?}");
        }
        arrows += edges.values().map(BTreeSet::len).sum::<usize>();
    }
    assert!(arrows > 300, "only {arrows} arrows were found");
}

#[test]
fn paths_are_found_in_every_form() {
    let text = "mod own;\nuse crate::{a::B, c::{d::E, f}};\npub(crate) use own::X;\nuse std::io;\n\
        fn g() { super::h::i(); x.y(crate::j::k); own::l() } // crate::not";
    let module = ["room".to_owned(), "file".to_owned()];
    let found: Vec<String> = named(&code(text), &module).iter().map(|w| w.join("::")).collect();
    assert_eq!(
        found,
        ["a::B", "c::d::E", "c::f", "room::file::own::X", "room::h::i", "j::k", "room::file::own::l"]
    );
}
