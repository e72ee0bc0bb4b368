//! Tools on the files of a machine's container: what the host does itself with a container on its own kernel, and the
//! agent for one whose files are in a machine only.
//!
//! A tool runs as an exec does, with its input and output as streams; its last line of standard error is a
//! `ToolEnd`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A tool and what it is to work on. Paths are absolute in the container's root; links in them are resolved there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// What is at a path, the last name not followed → JSON (`silo_layer::Found`).
    Stat {
        /// Where.
        path: PathBuf,
    },
    /// The names in a directory, in no order → JSON (an array of strings), without those that are no UTF-8.
    Names {
        /// Where.
        path: PathBuf,
    },
    /// The content of a file, at most so many bytes.
    Read {
        /// Where; the last name is followed too.
        path: PathBuf,
        /// Bytes.
        most: u64,
    },
    /// A file or tree as tar, under another name; see `silo_layer::pack_tree`.
    Pack {
        /// Where.
        path: PathBuf,
        /// Its name in the archive.
        prefix: String,
    },
    /// Extracts the tar on standard input; see `silo_layer::ExtractOptions`.
    Extract {
        /// A directory.
        path: PathBuf,
        /// A directory is not replaced by something else, nor the reverse.
        no_overwrite_dir_non_dir: bool,
        /// Owners are the archive's; otherwise root's.
        keep_owner: bool,
    },
    /// All that was written over the image: the upper directories, by the names that they have below the container's
    /// writable directory, as the tar of a layer.
    Top,
    /// Has everything written be on the disk.
    Sync,
    /// The container's processes, as ps(1) prints them: `-ef` (without arguments too), `aux`, `-o FIELDS`.
    Processes {
        /// Of ps.
        arguments: Vec<String>,
    },
}

impl Tool {
    /// It reads standard input to its end.
    pub fn has_input(&self) -> bool {
        matches!(self, Tool::Extract { .. })
    }
}
