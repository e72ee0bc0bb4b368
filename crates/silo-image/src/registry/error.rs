//! What a registry refuses or how talking to one fails.

/// An error of a registry; the text names the registry, repository or blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry refused, in its own words (distribution specification, "Error Codes").
    #[error("{}", refusal(code, message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// `MANIFEST_UNKNOWN`; empty if it gave none.
        code: String,
        /// Sentence.
        message: String,
    },
    /// What it sent is not what it should be.
    #[error("{0}")]
    Broken(String),
    /// It could not be reached, or the connection broke.
    #[error("Get \"{url}\": {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why not.
        why: String,
    },
    /// It asks to be left alone, or has trouble, and still did when patience ended.
    #[error("{0}")]
    Busy(String),
    /// Nobody wants the result any more.
    #[error("context canceled")]
    Cancelled,
    /// The settings for it are wrong: certificates, proxies.
    #[error("{0}")]
    Settings(String),
}

/// In dockerd's form: `manifest unknown: manifest unknown`.
fn refusal(code: &str, message: &str) -> String {
    let code = code.to_lowercase().replace('_', " ");
    match (code.is_empty(), message.is_empty()) {
        (true, _) => message.to_owned(),
        (false, true) => code,
        (false, false) => format!("{code}: {message}"),
    }
}

impl RegistryError {
    /// Whether the registry wants other credentials, or any.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// Whether there is no registry of that kind there. One that speaks TLS and does not like us is there.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { why, .. } if !why.contains("alert"))
    }

    /// Whether it has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Result of talking to a registry.
pub(crate) type Result<T> = std::result::Result<T, RegistryError>;
