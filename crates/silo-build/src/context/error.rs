//! What is wrong with a context, in dockerd's words where it has some.

use silo_image::RegistryError;

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no Dockerfile of this name.
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    /// There is nothing in it.
    #[error("the Dockerfile ({0}) cannot be empty")]
    EmptyDockerfile(String),
    /// What was sent or named cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// An URL does not answer as it should.
    #[error("{0}")]
    Fetch(#[from] RegistryError),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl ContextError {
    pub(super) fn io<E: Into<std::io::Error>>(doing: String) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, source: source.into() }
    }
}
