//! Words as a shell reads them: quotes, the escape character, `$NAME` and the forms of `${NAME…}` that a Dockerfile has
//! (BuildKit, `frontend/dockerfile/shell`).

use std::str::Chars;

use super::pattern::Pattern;

/// Longest result in bytes of one word.
const MAX_WORD: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may go.
const MAX_DEPTH: u32 = 64;

/// How words are read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'e> {
    /// `\` or `` ` ``.
    pub(super) escape: char,
    /// Quotes stay.
    pub(super) raw_quotes: bool,
    /// Escape characters stay.
    pub(super) raw_escapes: bool,
    /// Quotes are letters as others.
    pub(super) plain_quotes: bool,
    /// A variable that has no value stays as it is written.
    pub(super) keep_unset: bool,
    /// Longest result in bytes.
    pub(super) limit: usize,
    /// A variable's value.
    pub(super) lookup: &'e dyn Fn(&str) -> Option<String>,
    /// Hears of variables that have no value, and for which nothing stands in.
    pub(super) unset: Option<&'e dyn Fn(&str)>,
}

impl<'e> Reading<'e> {
    /// Of an instruction's words.
    pub(super) fn new(escape: char, lookup: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            plain_quotes: false,
            keep_unset: false,
            limit: MAX_WORD,
            lookup,
            unset: None,
        }
    }

    /// One word, blanks and all.
    pub(super) fn word(&self, text: &str) -> Result<String, String> {
        self.read(text).map(|out| out.text)
    }

    /// Words between blanks that are not quoted, also those that variables' values have.
    pub(super) fn words(&self, text: &str) -> Result<Vec<String>, String> {
        self.read(text).map(|out| out.words)
    }

    fn read(&self, text: &str) -> Result<Out, String> {
        let mut lexer = Lexer { how: *self, rest: text.chars(), depth: 0, steps: 0 };
        lexer.until(None, self.raw_escapes).map_err(|why| match text.char_indices().nth(200) {
            Some((end, _)) => format!("failed to process \"{}…\": {why}", &text[..end]),
            None => format!("failed to process {}: {why}", super::words::go_quote(text)),
        })
    }
}

/// One word: an instruction's that belongs to no stage.
pub(crate) fn expand_word(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    Reading::new(escape, lookup).word(word)
}

/// Text, and the same as words.
#[derive(Default)]
struct Out {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Out {
    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn split(&mut self, text: &str) {
        self.text.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() { self.end_word() } else { self.word.push(c) }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

struct Lexer<'t, 'e> {
    how: Reading<'e>,
    rest: Chars<'t>,
    depth: u32,
    /// Of patterns.
    steps: usize,
}

impl Lexer<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.how.lookup)(name)
    }

    /// What a name alone is.
    fn plain(&self, name: &str) -> Option<String> {
        let value = self.get(name);
        if let (None, Some(unset)) = (&value, self.how.unset) {
            unset(name);
        }
        value
    }

    /// Up to `stop`, which is taken, or the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Out, String> {
        if self.depth == MAX_DEPTH {
            return Err("substitutions nested too deep".to_owned());
        }
        self.depth += 1;
        let before = std::mem::replace(&mut self.how.raw_escapes, raw_escapes);
        let out = self.until_inner(stop);
        self.how.raw_escapes = before;
        self.depth -= 1;
        out
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<Out, String> {
        let mut out = Out::default();
        let mut letter = [0; 4];
        while let Some(c) = self.rest.next() {
            match c {
                c if Some(c) == stop => {
                    out.end_word();
                    return Ok(out);
                }
                '$' => out.split(&self.dollar()?),
                '\'' if !self.how.plain_quotes => out.raw(&self.single_quoted()?),
                '"' if !self.how.plain_quotes => out.raw(&self.double_quoted()?),
                // The word of a heredoc may stand after blanks.
                '<' if self.peek() == Some('<') => {
                    self.rest.next();
                    out.raw("<<");
                    while let Some(blank @ ('\t' | '\r' | ' ')) = self.peek() {
                        out.raw(blank.encode_utf8(&mut letter));
                        self.rest.next();
                    }
                }
                '<' => out.raw("<"),
                c if c == self.how.escape => {
                    if self.how.raw_escapes {
                        out.raw(c.encode_utf8(&mut letter));
                    }
                    match self.rest.next() {
                        Some(c) => out.raw(c.encode_utf8(&mut letter)),
                        None => break,
                    }
                }
                c => out.split(c.encode_utf8(&mut letter)),
            }
            if out.text.len() > self.how.limit {
                return Err(format!("more than {} bytes come of it", self.how.limit));
            }
        }
        if let Some(stop) = stop {
            return Err(format!("unexpected end of statement while looking for matching {stop}"));
        }
        out.end_word();
        Ok(out)
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let text = self.rest.as_str();
        let end =
            text.find('\'').ok_or("unexpected end of statement while looking for matching single-quote")?;
        self.rest = text[end + 1..].chars();
        let inner = &text[..end];
        Ok(if self.how.raw_quotes { format!("'{inner}'") } else { inner.to_owned() })
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let quote = |out: &mut String| out.extend(self.how.raw_quotes.then_some('"'));
        quote(&mut out);
        loop {
            match self.rest.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote".to_owned()
                    );
                }
                Some('"') => {
                    out.extend(self.how.raw_quotes.then_some('"'));
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.how.escape => {
                    if self.how.raw_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if matches!(next, '"' | '$') || next == self.how.escape => {
                            self.rest.next();
                            out.push(next);
                        }
                        Some(_) => out.push(c),
                    }
                }
                Some(c) => out.push(c),
            }
            if out.len() > self.how.limit {
                return Err(format!("more than {} bytes come of it", self.how.limit));
            }
        }
    }

    /// A name, a number, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let text = self.rest.as_str();
        let first = text.chars().next();
        let end = match first {
            Some(c) if c.is_ascii_digit() => text.find(|c: char| !c.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => text.find(|c: char| !c.is_alphanumeric() && c != '_'),
        };
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest.chars();
        name.to_owned()
    }

    /// What follows a `$`.
    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.plain(&name) {
                Some(value) => value,
                None if self.how.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.rest.next();
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            None => Err(MISSING_BRACE.to_owned()),
            Some('}') => Ok(match self.plain(&name) {
                Some(value) => value,
                None if self.how.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some('/') => self.replaced(&name),
            Some(':') => {
                let modifier = self.rest.next().ok_or(MISSING_BRACE)?;
                self.modified(&name, modifier, true)
            }
            Some(modifier) => self.modified(&name, modifier, false),
        }
    }

    fn braced(&mut self, stop: char, raw_escapes: bool) -> Result<String, String> {
        match self.until(Some(stop), raw_escapes) {
            Ok(out) => Ok(out.text),
            Err(_) if self.peek().is_none() => Err(match stop {
                '/' => "syntax error: missing '/' in ${}".to_owned(),
                _ => MISSING_BRACE.to_owned(),
            }),
            Err(why) => Err(why),
        }
    }

    /// `${name-word}` and the like; `colon`: an empty value counts as none.
    fn modified(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, String> {
        let pattern = matches!(modifier, '#' | '%');
        if !pattern && !matches!(modifier, '-' | '+' | '?') || pattern && colon {
            let colon = if colon { ":" } else { "" };
            return Err(format!("unsupported modifier ({colon}{modifier}) in substitution"));
        }
        let word = self.braced('}', pattern)?;
        let value = self.get(name);
        if value.is_none() && self.how.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let there = value.as_ref().is_some_and(|v| !(colon && v.is_empty()));
        match modifier {
            '-' if !there => Ok(word),
            '+' => Ok(if there { word } else { String::new() }),
            '?' if !there => {
                let default = match value {
                    Some(_) => "is not allowed to be empty",
                    None => "is not allowed to be unset",
                };
                Err(format!("{name}: {}", if word.is_empty() { default } else { &word }))
            }
            '#' | '%' => {
                let value = value.unwrap_or_default();
                let (greedy, word) = match word.strip_prefix(modifier) {
                    Some(word) => (true, word),
                    None => (false, word.as_str()),
                };
                let pattern = Pattern::parse(word, self.how.escape)?;
                let cut = if modifier == '#' { Pattern::without_prefix } else { Pattern::without_suffix };
                cut(&pattern, &value, greedy, &mut self.steps)
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// `${name/pattern/replacement}`, `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let pattern = self.braced('/', true)?;
        let replacement = self.braced('}', true)?;
        match self.get(name) {
            Some(value) => {
                let pattern = Pattern::parse(&pattern, self.how.escape)?;
                pattern.replace(&value, &replacement, all, self.how.limit, &mut self.steps)
            }
            None if self.how.keep_unset => {
                let slash = if all { "//" } else { "/" };
                Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"))
            }
            None => Ok(String::new()),
        }
    }
}

const MISSING_BRACE: &str = "syntax error: missing '}'";
