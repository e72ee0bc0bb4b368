//! `.dockerignore`, and `--exclude` of `COPY`: which paths of a tree are left out (moby, `patternmatcher`).

/// Longest file in bytes.
const MAX_FILE: usize = 1 << 20;

/// Patterns in order; of those that match a path or a directory above it the last one decides.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// `!`: what matches is wanted again.
    wanted: bool,
    states: Vec<State>,
}

/// What a pattern expects next; a state is its index.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Letter(char),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**` at the end.
    All,
    /// `**/`: nothing, or what [`State::Directories`] matches.
    MaybeDirectories,
    /// Anything up to a slash.
    Directories,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads a `.dockerignore`.
    ///
    /// # Errors
    /// The pattern that is none, with its line; a file of more than 1 MiB.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_FILE {
            return Err(format!(".dockerignore is larger than {MAX_FILE} bytes"));
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = std::str::from_utf8(text).map_err(|e| format!(".dockerignore is not UTF-8: {e}"))?;
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, l)| !l.starts_with('#')) {
            let pattern = Pattern::parse(line);
            patterns.extend(pattern.map_err(|e| format!(".dockerignore line {}: {e}: {line:?}", index + 1))?);
        }
        Ok(Self { patterns })
    }

    /// Patterns that are no file's lines (`--exclude`).
    ///
    /// # Errors
    /// The pattern that is none.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, String> {
        let patterns = patterns.into_iter().map(|p| Pattern::parse(p).map_err(|e| format!("{e}: {p:?}")));
        Ok(Self { patterns: patterns.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect() })
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path, relative to the root and with slashes, is left out.
    pub fn is_ignored(&self, path: &str) -> bool {
        let mut ignored = false;
        for pattern in self.patterns.iter().filter(|_| !matches!(path, "" | ".")) {
            if pattern.wanted == ignored && pattern.matches(path) {
                ignored = !pattern.wanted;
            }
        }
        ignored
    }

    /// Whether something below a directory may be wanted, also if the directory itself is left out.
    pub fn may_want_below(&self, directory: &str) -> bool {
        !self.is_ignored(directory) || self.patterns.iter().any(|p| p.wanted && p.may_match_below(directory))
    }
}

impl Pattern {
    /// `None`: a line that says nothing.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        let (wanted, path) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
        if path.is_empty() {
            return if wanted { Err("illegal exclusion pattern: \"!\"".to_owned()) } else { Ok(None) };
        }
        let path = clean(path);
        let path = if path.len() > 1 { path.strip_prefix('/').unwrap_or(&path) } else { &path };
        Ok(Some(Self { wanted, states: states(path)? }))
    }

    /// States that are next at the start.
    fn start(&self) -> Vec<bool> {
        let mut at = vec![false; self.states.len() + 1];
        at[0] = true;
        self.skip(&mut at);
        at
    }

    /// Adds what may be next without a letter.
    fn skip(&self, at: &mut [bool]) {
        for (i, state) in self.states.iter().enumerate() {
            if at[i] {
                match state {
                    State::Star | State::All => at[i + 1] = true,
                    // What follows is `Directories`, and then the rest.
                    State::MaybeDirectories => (at[i + 1], at[i + 2]) = (true, true),
                    _ => {}
                }
            }
        }
    }

    fn step(&self, at: &[bool], c: char) -> Vec<bool> {
        let mut next = vec![false; at.len()];
        for (i, state) in self.states.iter().enumerate().filter(|(i, _)| at[*i]) {
            match state {
                State::Letter(l) => next[i + 1] |= *l == c,
                State::Any => next[i + 1] |= c != '/',
                State::Star => next[i] |= c != '/',
                State::All => next[i] = true,
                State::MaybeDirectories => {}
                State::Directories => {
                    next[i] = true;
                    next[i + 1] |= c == '/';
                }
                State::Class { negated, ranges } => {
                    next[i + 1] |= ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated;
                }
            }
        }
        self.skip(&mut next);
        next
    }

    /// Whether the path or a directory above it matches.
    fn matches(&self, path: &str) -> bool {
        let mut at = self.start();
        for c in path.chars() {
            if c == '/' && at[self.states.len()] {
                return true;
            }
            at = self.step(&at, c);
            if !at.contains(&true) {
                return false;
            }
        }
        at[self.states.len()]
    }

    fn may_match_below(&self, directory: &str) -> bool {
        if matches!(directory, "" | ".") {
            return true;
        }
        let mut at = self.start();
        for c in directory.chars().chain(['/']) {
            at = self.step(&at, c);
        }
        at.contains(&true)
    }
}

/// A path without `.`, `..`, doubled and trailing slashes.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let clean = parts.join("/");
    match (rooted, clean.is_empty()) {
        (true, _) => format!("/{clean}"),
        (false, true) => ".".to_owned(),
        (false, false) => clean,
    }
}

fn states(pattern: &str) -> Result<Vec<State>, String> {
    const WRONG: &str = "syntax error in pattern";
    let mut states = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.as_str().starts_with('*') => {
                chars.next();
                let slash = chars.as_str().starts_with('/');
                if slash {
                    chars.next();
                }
                let rest = chars.as_str();
                // `**name` is any path that ends so; before a pattern `**` is whole directories, as moby has it.
                let ends_so = states.is_empty() && !slash && !rest.contains(['*', '?', '[', ']', '\\']);
                if rest.is_empty() || ends_so {
                    states.push(State::All);
                } else {
                    states.extend([State::MaybeDirectories, State::Directories]);
                }
            }
            '*' => states.push(State::Star),
            '?' => states.push(State::Any),
            '\\' => states.push(State::Letter(chars.next().ok_or(WRONG)?)),
            '[' => {
                let negated = chars.as_str().starts_with('^');
                if negated {
                    chars.next();
                }
                let mut ranges = Vec::new();
                let letter = |c: Option<char>, chars: &mut std::str::Chars<'_>| match c {
                    Some('\\') => chars.next().ok_or(WRONG),
                    Some('-' | ']') | None => Err(WRONG),
                    Some(c) => Ok(c),
                };
                loop {
                    let c = chars.next();
                    if c == Some(']') && !ranges.is_empty() {
                        break;
                    }
                    let from = letter(c, &mut chars)?;
                    let to = if chars.as_str().starts_with('-') {
                        chars.next();
                        let c = chars.next();
                        letter(c, &mut chars)?
                    } else {
                        from
                    };
                    ranges.push((from, to));
                }
                states.push(State::Class { negated, ranges });
            }
            c => states.push(State::Letter(c)),
        }
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn check(text: &str, ignored: &[&str], wanted: &[&str]) {
        let ignore = ignore(text);
        for path in ignored {
            assert!(ignore.is_ignored(path), "{text:?} must ignore {path}");
        }
        for path in wanted {
            assert!(!ignore.is_ignored(path), "{text:?} must want {path}");
        }
    }

    #[test]
    fn patterns_match_paths_and_all_below_them() {
        check("a", &["a", "a/b", "a/b/c"], &["b/a", "ab", ".", ""]);
        check("/a/b/", &["a/b", "a/b/c"], &["a", "b"]);
        check("./x/../a//b\n", &["a/b"], &["x"]);
        check("*", &["a", "a/b", ".git/x"], &["."]);
        check("*/t*", &["a/t", "a/tmp/x"], &["t", "a/b/t"]);
        check("a?c", &["abc"], &["ac", "a/c"]);
        check("[a-c]x[^0]", &["axb", "cx1"], &["dxb", "ax0"]);
        check("a\\*\\[", &["a*["], &["ab["]);
        check(" \n# a\n #b\na.b\n", &["#b", "a.b"], &["a", "axb"]);
        check("\u{feff}a\r\nb\r\n", &["a", "b"], &[]);
    }

    #[test]
    fn two_stars_are_any_number_of_directories() {
        check("**", &["a", "a/b"], &[]);
        check("**/a", &["a", "b/a", "b/c/a/d"], &["ba", "b/ca"]);
        check("**/*.o", &["x.o", "a/b/x.o"], &["x.oo"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
        check("a/**/b", &["a/b", "a/x/y/b", "a/x/b/c"], &["a/xb"]);
        check("a**", &["a", "ab", "ab/c"], &["b"]);
        check("**.o", &["x.o", "a/x.o"], &["x.oo"]);
        check("a**b*", &["ab", "ax/bc"], &["axb"]);
    }

    #[test]
    fn the_last_match_decides() {
        check(
            "*.md\n!README*.md\nREADME-secret.md",
            &["x.md", "README-secret.md"],
            &["README.md", "README-a.md"],
        );
        check("*\n!a/b\n! /c", &["a", "a/c", "d"], &["a/b", "a/b/x", "c"]);
        check("!a\na", &["a", "a/b"], &[]);
    }

    #[test]
    fn a_directory_is_left_alone_only_if_nothing_below_is_wanted() {
        let ignore = ignore("*\n!src/**/*.rs\n!docs/a");
        for (directory, wanted) in [
            ("src", true),
            ("src/a/b", true),
            ("docs", true),
            ("docs/a", true),
            ("docs/b", false),
            ("target", false),
        ] {
            assert_eq!(ignore.may_want_below(directory), wanted, "{directory}");
        }
        assert!(super::Ignore::default().may_want_below("a"));
        assert!(!super::Ignore::of(["a"]).unwrap().may_want_below("a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_its_line() {
        for (text, expected) in [
            ("a\n!\n", ".dockerignore line 2: illegal exclusion pattern: \"!\": \"!\""),
            ("a[", ".dockerignore line 1: syntax error in pattern: \"a[\""),
            ("[]a]", ".dockerignore line 1: syntax error in pattern: \"[]a]\""),
            ("a\\", ".dockerignore line 1: syntax error in pattern: \"a\\\\\""),
        ] {
            assert_eq!(Ignore::parse(text.as_bytes()).map(|_| ()).unwrap_err(), expected);
        }
    }
}
