//! What is wrong with a Dockerfile, and where.

use std::fmt;

use super::ast::{Lines, Step};

/// What is wrong with a Dockerfile, in dockerd's words where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileError {
    /// The instruction's lines; 0 where it is in none of the file (a trigger of the base image, an option).
    pub lines: Lines,
    /// Its keyword, as written; empty if there is none.
    pub instruction: String,
    /// What is wrong.
    pub message: String,
}

/// Of this folder.
pub type Result<T, E = DockerfileError> = std::result::Result<T, E>;

impl DockerfileError {
    /// About a step of the file.
    pub fn at(step: &Step, message: impl Into<String>) -> Self {
        Self::new(step.lines, &step.text, message)
    }

    /// About the instruction of this text.
    pub(crate) fn new(lines: Lines, text: &str, message: impl Into<String>) -> Self {
        let instruction = text.split_whitespace().next().unwrap_or_default().to_owned();
        Self { lines, instruction, message: message.into() }
    }
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.first > 0 {
            write!(f, "dockerfile parse error on line {}: ", self.lines.first)?;
        }
        let named = [self.instruction.as_str(), &self.instruction.to_uppercase()];
        if !named.iter().any(|name| self.message.contains(name)) {
            write!(f, "{}: ", self.instruction)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DockerfileError {}
