//! Heredocs' words: `<<NAME`, `<<-NAME`, `<<"NAME"`.

use super::ast::Heredoc;
use super::error::Result;
use super::lines::Reader;
use super::shell_words::Reading;

/// A word that begins a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) name: String,
    /// Not quoted: variables are replaced.
    pub(super) expand: bool,
    /// `<<-`: tabs at lines' starts go.
    pub(super) tabs: bool,
}

/// A heredoc with its lines as written.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) opening: Opening,
    pub(super) body: String,
}

impl Raw {
    pub(super) fn heredoc(&self) -> Heredoc {
        let body = if self.opening.tabs {
            self.body.split_inclusive('\n').map(|l| l.trim_start_matches('\t')).collect()
        } else {
            self.body.clone()
        };
        Heredoc { name: self.opening.name.clone(), body, expand: self.opening.expand }
    }
}

fn reading() -> Reading<'static> {
    Reading { keep_unset: true, ..Reading::new('\\', &|_| None) }
}

/// Whether a word begins a heredoc, and which: digits of a descriptor, `<<`, `-`, blanks, and a name that is one word.
pub(super) fn opening(word: &str) -> Option<Opening> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.contains('<') {
        return None;
    }
    let one = |mut words: Vec<String>| (words.len() == 1).then(|| words.remove(0));
    let name = one(reading().words(rest).ok()?)?;
    let raw = one(Reading { raw_quotes: true, ..reading() }.words(rest).ok()?)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Opening { expand: quotes(&name) == quotes(&raw), name, tabs })
}

/// The heredocs that an instruction's text begins, with the lines that follow it.
pub(super) fn of_line(text: &str, reader: &mut Reader<'_>) -> Result<Vec<Raw>> {
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    let all = Reading { raw_quotes: true, raw_escapes: true, limit: usize::MAX, ..reading() };
    // A text that is no shell's words has none.
    let words = all.words(text).unwrap_or_default();
    let openings = words.iter().filter_map(|w| opening(w));
    openings
        .map(|opening| {
            let body = reader.heredoc(&opening.name, opening.tabs)?;
            Ok(Raw { opening, body })
        })
        .collect()
}
