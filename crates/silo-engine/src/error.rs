//! What the engine refuses or fails at. The face maps [`Kind`] to a status in one place.

use silo_guest::GuestError;
use silo_sandbox::{FailureKind, SandboxError};

/// Class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong or asks what cannot be honoured (400).
    Invalid,
    /// A registry does not know who asks, or does not believe it (401).
    Unauthorized,
    /// What is never allowed, or not now, of this object (403).
    Forbidden,
    /// No such object (404).
    NotFound,
    /// The object's state forbids it, or a name is taken (409).
    Conflict,
    /// Already so: nothing was changed (304).
    NotModified,
    /// What no configuration of this object can do (501).
    Unsupported,
    /// Everything else (500).
    Internal,
}

/// An engine error: a sentence for the user, in dockerd's words where it has some.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Class.
    pub kind: Kind,
    /// Sentence.
    pub message: String,
}

impl EngineError {
    /// 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, message: message.into() }
    }
    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unauthorized, message: message.into() }
    }
    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { kind: Kind::Forbidden, message: message.into() }
    }
    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into() }
    }
    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { kind: Kind::Conflict, message: message.into() }
    }
    /// 304.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotModified, message: message.into() }
    }
    /// 501.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unsupported, message: message.into() }
    }
    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, message: message.into() }
    }
}

/// Result of an engine verb.
pub type Result<T> = std::result::Result<T, EngineError>;

/// A guest's refusal, in the engine's classes.
pub(crate) fn guest_error(error: GuestError) -> EngineError {
    match error {
        GuestError::Invalid(text) => EngineError::invalid(text),
        GuestError::NotFound(text) => EngineError::invalid(text),
        GuestError::Broken(text) => EngineError::conflict(text),
        other => EngineError::internal(other.to_string()),
    }
}

/// A sandbox's refusal, in the engine's classes.
pub(crate) fn sandbox_error(error: SandboxError) -> EngineError {
    match &error {
        SandboxError::Failed(f) => match f.kind {
            FailureKind::WrongState => EngineError::conflict(error.to_string()),
            FailureKind::Invalid | FailureKind::ProgramNotFound | FailureKind::ProgramNotExecutable => {
                EngineError::invalid(error.to_string())
            }
            FailureKind::NoSuchFile => EngineError::not_found(error.to_string()),
            FailureKind::Other => EngineError::internal(error.to_string()),
        },
        _ => EngineError::internal(error.to_string()),
    }
}
