//! Why a build fails, and where in its Dockerfile.

use silo_engine::{EngineError, Kind};

use crate::copy::CopyError;
use crate::dockerfile::DockerfileError;

/// The end of a build.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Class.
    pub(crate) kind: Kind,
    /// In dockerd's words where it has some.
    pub(crate) message: String,
    /// Exit code of a `RUN`.
    pub(crate) code: Option<u32>,
    /// It says where.
    is_placed: bool,
}

/// Result of a part of a build.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, message: message.into(), code: None, is_placed: false }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, message: message.into(), code: None, is_placed: false }
    }

    /// A program that ended with a code.
    pub(crate) fn exit(message: String, code: u32) -> Self {
        Self { kind: Kind::Internal, message, code: Some(code), is_placed: false }
    }

    /// With file, line and instruction, if none is named yet.
    pub(crate) fn at(mut self, file: &str, line: u32, instruction: &str) -> Self {
        if !self.is_placed {
            self.message = format!("{} ({file}:{line}: {instruction})", self.message);
            self.is_placed = true;
        }
        self
    }
}

/// Runs blocking work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure::internal(format!("a task panicked: {e}")))?
}

impl From<DockerfileError> for Failure {
    fn from(error: DockerfileError) -> Self {
        // It says where itself.
        let is_placed = error.lines.first > 0;
        Self { kind: Kind::Invalid, message: error.to_string(), code: None, is_placed }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Refused(text) => Self::invalid(text),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { kind: error.kind, message: error.message, code: None, is_placed: false }
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind, message: failure.message }
    }
}
