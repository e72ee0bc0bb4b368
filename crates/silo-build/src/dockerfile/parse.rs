//! A Dockerfile's bytes → stages of instructions.

use super::ast::{Argument, CheckOptions, Dockerfile, Instruction, Lines, Stage, Step};
use super::checks;
use super::error::{DockerfileError, Result};
use super::flags::{Flags, Kind};
use super::heredoc;
use super::instruction;
use super::lines::Reader;
use super::words::{fields, go_quote, split};

/// Most instructions of a file.
pub(super) const MAX_INSTRUCTIONS: usize = 10_000;

/// Reads a Dockerfile.
///
/// # Errors
/// What is wrong, with the instruction and its first line, in dockerd's words.
pub fn parse(text: &[u8]) -> Result<Dockerfile> {
    let mut reader = Reader::new(text)?;
    let mut file = Dockerfile {
        escape: '\\',
        arguments: Vec::new(),
        stages: Vec::new(),
        warnings: Vec::new(),
        empty_continuations: Vec::new(),
        checks: CheckOptions::default(),
    };
    let mut count = 0;
    while let Some((statement, empty)) = next(&mut reader)? {
        if let Some(lines) = empty {
            let text = format!("Empty continuation line found in: {}", statement.text());
            file.warnings.push((text, lines));
            file.empty_continuations.push(lines);
        }
        count += 1;
        let (lines, text) = (statement.lines(), statement.text());
        let wrong = |why: String| DockerfileError::new(lines, text, why);
        if count > MAX_INSTRUCTIONS {
            return Err(wrong(format!("more than {MAX_INSTRUCTIONS} instructions")));
        }
        match statement {
            Statement::From(stage) => file.stages.push(stage),
            Statement::Step(step) => match (file.stages.last_mut(), step.instruction) {
                (Some(stage), instruction) => stage.steps.push(Step { instruction, ..step }),
                (None, Instruction::Arg(arguments)) => {
                    file.arguments.extend(arguments.into_iter().map(|a| (a, step.lines)));
                }
                (None, _) => {
                    let why = "no build stage in current context";
                    return Err(DockerfileError::new(step.lines, &step.text, why));
                }
            },
        }
    }
    file.escape = reader.escape;
    if let Some((line, text)) = &reader.check {
        let lines = Lines { first: *line, last: *line };
        file.checks = checks::options(text).map_err(|why| DockerfileError::new(lines, "", why))?;
    }
    if !file.warnings.is_empty() {
        let text = "Empty continuation lines will become errors in a future release.";
        file.warnings.push((text.to_owned(), Lines::default()));
    }
    if file.stages.is_empty() {
        let why =
            if count == 0 { "file with no instructions" } else { "dockerfile contains no stages to build" };
        let line = reader.line();
        return Err(DockerfileError::new(Lines { first: line, last: line }, "", why));
    }
    Ok(file)
}

/// Instructions that belong to no file: triggers of a base image, `--change` of a commit. `FROM` is none of them.
///
/// # Errors
/// As [`parse`].
pub fn parse_steps(text: &[u8]) -> Result<Vec<Step>> {
    let mut reader = Reader::new(text)?;
    let mut steps = Vec::new();
    while let Some((statement, _)) = next(&mut reader)? {
        match statement {
            Statement::Step(step) if steps.len() < MAX_INSTRUCTIONS => steps.push(step),
            Statement::Step(step) => {
                return Err(DockerfileError::at(&step, format!("more than {MAX_INSTRUCTIONS} instructions")));
            }
            Statement::From(stage) => {
                return Err(DockerfileError::new(stage.lines, "FROM", "FROM is not allowed here"));
            }
        }
    }
    Ok(steps)
}

enum Statement {
    From(Stage),
    Step(Step),
}

impl Statement {
    fn text(&self) -> &str {
        match self {
            Self::From(stage) => &stage.text,
            Self::Step(step) => &step.text,
        }
    }

    fn lines(&self) -> Lines {
        match self {
            Self::From(stage) => stage.lines,
            Self::Step(step) => step.lines,
        }
    }
}

/// The next instruction, and its lines if a continuation of it is empty.
fn next(reader: &mut Reader<'_>) -> Result<Option<(Statement, Option<Lines>)>> {
    let Some(logical) = reader.next()? else { return Ok(None) };
    let empty = logical.empty_continuation.then_some(logical.lines);
    let text = logical.text;
    let wrong = |why: String| DockerfileError::new(logical.lines, &text, why);
    let (keyword, flags, rest) = split(&text, reader.escape);
    let statement = if keyword.eq_ignore_ascii_case("FROM") {
        Statement::From(from(&flags, rest, &text, logical.lines).map_err(wrong)?)
    } else {
        let heredocs = if instruction::may_have_heredocs(&text, reader.escape) {
            let found = heredoc::of_line(&text, reader);
            found.map_err(|e| wrong(e.message))?
        } else {
            Vec::new()
        };
        let instruction = instruction::parse(&text, reader.escape, &heredocs).map_err(wrong)?;
        let lines = Lines { last: reader.line(), ..logical.lines };
        Statement::Step(Step { instruction, text, lines })
    };
    Ok(Some((statement, empty)))
}

fn from(flags: &[String], rest: &str, text: &str, lines: Lines) -> Result<Stage, String> {
    let words = fields(rest);
    let name = match words.as_slice() {
        [_] => None,
        [_, r#as, name] if r#as.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let flags = Flags::parse(flags, &[("platform", Kind::Text)])?;
    let from = words.into_iter().next().unwrap_or_default();
    let platform = flags.text("platform");
    Ok(Stage { from, platform, name, lines, text: text.to_owned(), steps: Vec::new() })
}

fn stage_name(word: &str) -> Result<String, String> {
    let name = word.to_lowercase();
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(letter) {
        return Ok(name);
    }
    let why = "name can't start with a number or contain symbols";
    Err(format!("invalid name for build stage: {}, {why}", go_quote(word)))
}

impl Dockerfile {
    /// `ARG`s before the first `FROM`, one for each instruction, with their text.
    pub fn global_steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (argument, lines) in &self.arguments {
            let text = argument.to_string();
            match steps.last_mut() {
                Some(Step { instruction: Instruction::Arg(list), text: all, lines: same })
                    if same == lines =>
                {
                    list.push(argument.clone());
                    *all = format!("{all} {text}");
                }
                _ => steps.push(Step {
                    instruction: Instruction::Arg(vec![argument.clone()]),
                    text: format!("ARG {text}"),
                    lines: *lines,
                }),
            }
        }
        steps
    }
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.default {
            Some(default) => write!(f, "={default}"),
            None => Ok(()),
        }
    }
}
