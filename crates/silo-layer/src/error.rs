//! What can go wrong with a layer, in words that name the archive entry.

use std::io;
use std::path::Path;

/// Why a layer could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The archive asks for something no honest archive asks for.
    #[error("archive entry {entry:?}: {why}")]
    Hostile {
        /// Name of the entry as the archive has it.
        entry: String,
        /// What was wrong with it.
        why: String,
    },
    /// The archive is larger than allowed.
    #[error("archive entry {entry:?}: the archive exceeds the limit of {limit} {what}")]
    Limit {
        /// The entry at which the limit was passed.
        entry: String,
        /// The limit.
        limit: u64,
        /// What is counted: bytes or entries.
        what: &'static str,
    },
    /// A directory would be replaced by something else, or the reverse, and the caller forbade it.
    #[error("cannot overwrite {old} with {new} {entry:?}")]
    Overwrite {
        /// Name of the entry.
        entry: String,
        /// What is there.
        old: &'static str,
        /// What the archive holds.
        new: &'static str,
    },
    /// A tree has what the format of the archive cannot have.
    #[error("{path:?} cannot be in a layer of this format: {why}")]
    Tree {
        /// Where it is in the tree.
        path: String,
        /// Why it cannot be.
        why: String,
    },
    /// The archive itself cannot be read.
    #[error("archive damaged after entry {after:?}: {source}")]
    Archive {
        /// The last entry that was read; empty before the first.
        after: String,
        /// The reader's own words.
        source: io::Error,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the path or entry.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

impl LayerError {
    pub(crate) fn hostile(entry: &[u8], why: impl Into<String>) -> Self {
        Self::Hostile { entry: String::from_utf8_lossy(entry).into_owned(), why: why.into() }
    }

    pub(crate) fn tree(path: &Path, why: impl Into<String>) -> Self {
        Self::Tree { path: path.to_string_lossy().into_owned(), why: why.into() }
    }

    pub(crate) fn io(verb: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: format!("{verb} {}", path.display()), source: source.into() }
    }
}
