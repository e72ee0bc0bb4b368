//! An instruction's text → keyword, flags, words; quotes stay, but those of flags.

/// Blanks between words; no line end is left in a logical line.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Keyword, flags (`--…`), and the rest.
pub(super) fn split(line: &str, escape: char) -> (&str, Vec<String>, &str) {
    let line = line.trim();
    let Some(end) = line.find(BLANKS) else { return (line, Vec::new(), "") };
    let (flags, rest) = flags(line[end..].trim_start_matches(BLANKS), escape);
    (&line[..end], flags, rest.trim())
}

/// Words that begin with `--`, unquoted, and what follows them; `--` alone ends them.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (mut word, mut quote, mut end) = (String::new(), None, rest.len());
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = at;
                    break;
                }
                None if matches!(c, '\'' | '"') => quote = Some(c),
                Some(q) if c == q => quote = None,
                _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
                _ => word.push(c),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// Words between blanks.
pub(super) fn fields(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// The first word and the rest.
pub(super) fn first(text: &str) -> (&str, Option<&str>) {
    match text.find(BLANKS) {
        Some(end) => (&text[..end], Some(text[end..].trim_start_matches(BLANKS))),
        None => (text, None),
    }
}

/// Words between blanks that are neither quoted nor escaped; quotes and escapes stay.
pub(super) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            // One at the very end is nothing.
            if let Some(next) = chars.next() {
                word.extend([c, next]);
            }
            continue;
        }
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a JSON array is to an instruction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// Strings only.
    Strings(Vec<String>),
    /// An array of other things.
    Mixed,
    /// No array: it is read as plain text.
    No,
}

/// Reads a JSON array.
pub(super) fn json(text: &str) -> Json {
    if !text.trim_start().starts_with('[') {
        return Json::No;
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Json::No };
    let strings = list.into_iter().map(|v| match v {
        serde_json::Value::String(s) => Some(s),
        _ => None,
    });
    strings.collect::<Option<_>>().map_or(Json::Mixed, Json::Strings)
}

/// The name of `names` that `word` may be a slip of: at most two letters wrong.
pub(crate) fn suggest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // No name is as long: a word of any length costs nothing.
    if word.len() > 64 {
        return None;
    }
    let near = names.into_iter().map(|name| (distance(word, name), name));
    near.filter(|(d, _)| (1..3).contains(d)).min_by_key(|(d, _)| *d).map(|(_, name)| name)
}

/// Adds a suggestion to a message.
pub(super) fn meant<'n>(message: String, word: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    match suggest(word, names) {
        Some(name) => format!("{message} (did you mean {name}?)"),
        None => message,
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Go's `%q`.
pub(crate) fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
