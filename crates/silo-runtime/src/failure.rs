//! Why something was not done, as the task protocol says it.

use serde::{Deserialize, Serialize};

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Class.
    pub kind: FailureKind,
    /// Sentence.
    pub message: String,
}

/// Classes of failure that the engine treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program does not exist (exit code 127).
    ProgramNotFound,
    /// The program exists and cannot be run (exit code 126).
    ProgramNotExecutable,
    /// The request does not fit the state.
    WrongState,
    /// The request itself is wrong.
    Invalid,
    /// There is no such file.
    NoSuchFile,
    /// Everything else.
    Other,
}
