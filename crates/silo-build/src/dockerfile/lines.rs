//! Bytes of a Dockerfile → the logical lines that instructions are parsed from: byte order mark, parser directives, comments,
//! continuations. Heredocs' bodies are taken from here too, by whom knows that an instruction has one.

use super::ast::Lines;
use super::error::{DockerfileError, Result};

/// Longest file in bytes.
pub(super) const MAX_FILE: usize = 16 << 20;
/// Longest line in bytes, as BuildKit's parser has it.
pub(super) const MAX_LINE: usize = 64 << 10;

/// An instruction's text, in one line.
#[derive(Debug)]
pub(super) struct Logical {
    /// Without continuations and comments, trimmed.
    pub(super) text: String,
    pub(super) lines: Lines,
    /// A continued line that is empty.
    pub(super) empty_continuation: bool,
}

/// The lines not read yet.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Lines read.
    line: u32,
    pub(super) escape: char,
    /// The value of `# check=`, and its line.
    pub(super) check: Option<(u32, String)>,
    /// Directives seen; `None` after the first line that is none.
    directives: Option<Vec<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Result<Self> {
        if text.len() > MAX_FILE {
            let message = format!("dockerfile greater than max allowed size of {MAX_FILE}");
            return Err(DockerfileError::new(Lines::default(), "", message));
        }
        let rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Ok(Self { rest, line: 0, escape: '\\', check: None, directives: Some(Vec::new()) })
    }

    /// Of the line read last.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    fn error(&self, message: impl Into<String>) -> DockerfileError {
        DockerfileError::new(Lines { first: self.line, last: self.line }, "", message)
    }

    /// The next line with its end.
    fn raw(&mut self) -> Result<Option<&'a [u8]>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|b| *b == b'\n').map_or(self.rest.len(), |i| i + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += 1;
        if line.len() > MAX_LINE {
            let longest = MAX_LINE - 1;
            return Err(self.error(format!("dockerfile line greater than max allowed size of {longest}")));
        }
        Ok(Some(line))
    }

    /// The next line without its end, as text; a comment is empty whatever its bytes are.
    fn physical(&mut self) -> Result<Option<(&'a str, bool)>> {
        let Some(line) = self.raw()? else { return Ok(None) };
        let blank = line.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let comment = line.get(blank) == Some(&b'#');
        let text = match std::str::from_utf8(line) {
            Ok(text) => text.trim_end_matches(['\r', '\n']),
            Err(_) if comment => "#",
            Err(_) => return Err(self.error("line is not UTF-8")),
        };
        if self.directives.is_some() {
            self.directive(text.trim_start())?;
        }
        Ok(Some((if comment { "" } else { text }, comment)))
    }

    /// Takes `# name=value` if it is one of the directives at the head of the file.
    fn directive(&mut self, line: &str) -> Result<()> {
        let known =
            line.strip_prefix('#').and_then(|l| l.trim_start().split_once('=')).and_then(|(name, value)| {
                let name = name.trim_end().to_ascii_lowercase();
                let known = ["syntax", "escape", "check"].contains(&name.as_str());
                (known && !value.trim().is_empty()).then(|| (name, value.trim()))
            });
        let (Some((name, value)), Some(seen)) = (known, &mut self.directives) else {
            self.directives = None;
            return Ok(());
        };
        if seen.contains(&name) {
            return Err(self.error(format!("only one {name} parser directive can be used")));
        }
        let escape = name == "escape";
        if name == "check" {
            self.check = Some((self.line, value.to_owned()));
        }
        seen.push(name);
        if escape {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let message = format!("invalid escape token '{value}' does not match ` or \\");
                    return Err(self.error(message));
                }
            };
        }
        Ok(())
    }

    /// What stands before a continuation character at the end, or all and `true`. Two of them are one that is escaped.
    fn continued<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let body = line.trim_end_matches([' ', '\t']).strip_suffix(self.escape);
        match body {
            Some(body) if !body.ends_with(self.escape) => (body, false),
            _ => (line, true),
        }
    }

    /// The next instruction's text; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Logical>> {
        while let Some((line, _)) = self.physical()? {
            let (line, mut ended) = self.continued(line.trim_start());
            if ended && line.trim().is_empty() {
                continue;
            }
            let first = self.line;
            let mut text = line.to_owned();
            let mut empty_continuation = false;
            while !ended {
                let Some((line, comment)) = self.physical()? else { break };
                if comment {
                    continue;
                }
                if line.trim_start().is_empty() {
                    empty_continuation = true;
                    continue;
                }
                let (line, end) = self.continued(line);
                text.push_str(line);
                ended = end;
            }
            let lines = Lines { first, last: self.line };
            let text = text.trim().to_owned();
            if text.is_empty() {
                continue;
            }
            return Ok(Some(Logical { text, lines, empty_continuation }));
        }
        Ok(None)
    }

    /// The lines before one that is `terminator` alone, as written; `tabs`: tabs before it are let pass.
    pub(super) fn heredoc(&mut self, terminator: &str, tabs: bool) -> Result<String> {
        let mut body = String::new();
        while let Some(line) = self.raw()? {
            let Ok(line) = std::str::from_utf8(line) else {
                return Err(self.error("heredoc is not UTF-8"));
            };
            let end = line.trim_end_matches(['\r', '\n']);
            let end = if tabs { end.trim_start_matches('\t') } else { end };
            if end == terminator {
                return Ok(body);
            }
            body.push_str(line);
        }
        Err(self.error("unterminated heredoc"))
    }
}
