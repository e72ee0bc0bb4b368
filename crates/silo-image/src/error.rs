//! What the image store refuses or fails at.

use crate::registry::error::RegistryError;

/// An error; the text names the image, archive member or file.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of that name, tag, digest or ID.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A registry has no such thing, or does not show it to us.
    #[error("{0}")]
    Absent(String),
    /// Not a reference.
    #[error("invalid reference format{0}")]
    InvalidReference(String),
    /// An ID prefix that several images have.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// Archive or request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something uses it.
    #[error("{0}")]
    Conflict(String),
    /// A layer could not be unpacked or packed.
    #[error("{0}")]
    Layer(#[from] silo_layer::LayerError),
    /// A registry refused or could not be talked to.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Result of the store.
pub(crate) type Result<T> = std::result::Result<T, ImageError>;

/// Wraps an I/O error with what was being done.
pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> ImageError {
    let doing = doing.into();
    move |source| ImageError::Io { doing, source }
}
