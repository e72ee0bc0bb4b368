//! Patterns of `${name#pattern}` and its kind: `*`, `?`, and an escape character before those that are meant as letters.

/// Tokens compared with letters for one word at most.
const MAX_STEPS: usize = 1 << 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Letter(char),
}

/// A parsed pattern. Neither `*` nor `?` is a line's end, as in BuildKit.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str, escape: char) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                c if c == escape => match chars.next() {
                    Some(c) if matches!(c, '*' | '?' | '}' | '/') || c == escape => Token::Letter(c),
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        let why = format!("invalid escape '{escape}{other}'");
                        return Err(format!("invalid pattern ({text}) in substitution: {why}"));
                    }
                },
                c => Token::Letter(c),
            });
        }
        Ok(Self(tokens))
    }

    /// How many letters the shortest or longest match at the start of `text` has.
    fn prefix(
        tokens: &[Token],
        text: impl Iterator<Item = char>,
        greedy: bool,
        steps: &mut usize,
    ) -> Result<Option<usize>, String> {
        // at[i]: the first i tokens match what has been read.
        let mut at = vec![false; tokens.len() + 1];
        let over_stars = |at: &mut Vec<bool>| {
            for (i, token) in tokens.iter().enumerate() {
                if at[i] && *token == Token::Star {
                    at[i + 1] = true;
                }
            }
        };
        at[0] = true;
        over_stars(&mut at);
        let mut found = at[tokens.len()].then_some(0);
        for (read, c) in text.enumerate() {
            if found.is_some() && !greedy {
                return Ok(found);
            }
            *steps += tokens.len() + 1;
            if *steps > MAX_STEPS {
                return Err("pattern and value are too long for a substitution".to_owned());
            }
            let mut next = vec![false; at.len()];
            for (i, token) in tokens.iter().enumerate().filter(|(i, _)| at[*i]) {
                match token {
                    Token::Star if c != '\n' => next[i] = true,
                    Token::Any if c != '\n' => next[i + 1] = true,
                    Token::Letter(l) if *l == c => next[i + 1] = true,
                    _ => {}
                }
            }
            at = next;
            over_stars(&mut at);
            if at[tokens.len()] {
                found = Some(read + 1);
            }
            if !at.contains(&true) {
                break;
            }
        }
        Ok(found)
    }

    /// `text` without the shortest, or longest, prefix that matches.
    pub(super) fn without_prefix(
        &self,
        text: &str,
        greedy: bool,
        steps: &mut usize,
    ) -> Result<String, String> {
        let length = Self::prefix(&self.0, text.chars(), greedy, steps)?;
        Ok(text.chars().skip(length.unwrap_or(0)).collect())
    }

    /// The same of a suffix.
    pub(super) fn without_suffix(
        &self,
        text: &str,
        greedy: bool,
        steps: &mut usize,
    ) -> Result<String, String> {
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let length = Self::prefix(&tokens, text.chars().rev(), greedy, steps)?;
        let letters = text.chars().count() - length.unwrap_or(0);
        Ok(text.chars().take(letters).collect())
    }

    /// `text` with the first match, or all, replaced; the leftmost, and of those the longest. At most `limit` bytes.
    pub(super) fn replace(
        &self,
        text: &str,
        with: &str,
        all: bool,
        limit: usize,
        steps: &mut usize,
    ) -> Result<String, String> {
        let mut out = String::new();
        let (mut rest, mut matched) = (text, false);
        loop {
            let letters = Self::prefix(&self.0, rest.chars(), true, steps)?;
            // An empty match right after another one is none.
            if let Some(letters) = letters.filter(|n| *n > 0 || !matched) {
                out.push_str(with);
                let end = rest.char_indices().nth(letters).map_or(rest.len(), |(at, _)| at);
                rest = &rest[end..];
                if !all {
                    break;
                }
                matched = true;
                if letters > 0 {
                    continue;
                }
            }
            matched = false;
            let mut chars = rest.chars();
            match chars.next() {
                Some(c) => out.push(c),
                None => break,
            }
            rest = chars.as_str();
            if out.len() > limit {
                return Err(format!("more than {limit} bytes come of it"));
            }
        }
        out.push_str(rest);
        if out.len() > limit {
            return Err(format!("more than {limit} bytes come of it"));
        }
        Ok(out)
    }
}
