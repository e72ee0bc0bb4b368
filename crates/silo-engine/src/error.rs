//! What the engine refuses or fails at. The face maps [`Kind`] to a status in one place.

/// Class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong or asks what cannot be honoured (400).
    Invalid,
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
