//! What a copy is asked for: the words, and what it refuses.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use silo_image::layer::Limits;

use super::tree::Tree;

/// How a guest's files lie in the directories of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The directory of an unpacked layer that holds them: `""` for Linux, `Files` for Windows.
    pub files: &'static str,
    /// Where they show in the container's root: `/` for Linux, `/c` for Windows.
    pub shown_at: &'static str,
    /// Names are Windows': found in any spelling, `\` separates them in sources, owners mean nothing.
    pub windows: bool,
}

/// Linux' form.
pub const LINUX: Form = Form { files: "", shown_at: "/", windows: false };
/// Windows'.
pub const WINDOWS: Form = Form { files: "Files", shown_at: "/c", windows: true };

/// A file that was fetched for `ADD`.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called; `None`: the URL has no name, and only a target that is a file will do.
    pub name: Option<String>,
    /// Its URL, for messages.
    pub url: String,
    /// When it changed, by its server.
    pub modified: Option<Timestamp>,
}

/// One source, expanded.
#[derive(Debug, Clone)]
pub enum Item {
    /// A path or pattern in a tree: the context, a stage's or an image's chain.
    Path {
        /// Where.
        tree: Arc<Tree>,
        /// As written.
        path: String,
    },
    /// What is at a path of a tree, as [`Tree::inside`] gives one.
    Exact {
        /// Where.
        tree: Arc<Tree>,
        /// Below the root.
        path: PathBuf,
    },
    /// A heredoc.
    Bytes {
        /// File name.
        name: String,
        /// All of it.
        content: Vec<u8>,
    },
    /// A file from an URL.
    Fetched(Fetched),
    /// A directory whose content is copied, such as a repository's.
    Directory {
        /// Where.
        path: PathBuf,
        /// Its URL, for messages.
        url: String,
    },
}

/// Says of a path below a source whether it is left out; of a source that is no directory, of its name.
#[derive(Clone)]
pub struct Exclude(pub Arc<dyn Fn(&Path) -> bool + Send + Sync>);

impl fmt::Debug for Exclude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclude")
    }
}

/// `COPY` or `ADD`, expanded.
#[derive(Debug, Clone)]
pub struct Request {
    /// `COPY` or `ADD`, for messages.
    pub verb: &'static str,
    /// At least one.
    pub items: Vec<Item>,
    /// The target in the container's root, as the guest resolves it (`/app`, `/c/app`).
    pub target: PathBuf,
    /// The target was written with a separator at its end, or as `.`: it is a directory.
    pub into: bool,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Option<Exclude>,
    /// Local archives are unpacked (`ADD`).
    pub unpack_local: bool,
    /// Archives from URLs are unpacked (`ADD --unpack`).
    pub unpack_fetched: bool,
    /// Of the target.
    pub form: Form,
    /// The unpacked layers below, uppermost first.
    pub lower: Vec<PathBuf>,
    /// How much an archive may unpack to.
    pub limits: Limits,
}

impl Request {
    /// A copy to a target, with nothing else asked for.
    pub fn new(verb: &'static str, items: Vec<Item>, target: PathBuf, into: bool, form: Form) -> Self {
        Self {
            verb,
            items,
            target,
            into,
            chown: None,
            chmod: None,
            parents: false,
            exclude: None,
            unpack_local: false,
            unpack_fetched: false,
            form,
            lower: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, links and devices; not directories.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Why a copy is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The Dockerfile asks for what cannot be; in dockerd's words.
    #[error("{0}")]
    Refused(String),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl CopyError {
    pub(super) fn io<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source: source.into() }
    }
}

/// Says what was being done when it failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CopyError>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CopyError> {
        self.map_err(|e| CopyError::io(what())(e))
    }
}
