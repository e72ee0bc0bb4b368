//! The sandbox seam: the words, and what an isolation states about itself; imports no implementation.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use silo_runtime::protocol::{
    Attach, Event, ExecState, Exit, Failure, FailureKind, SandboxState, Stats, VERSION,
};

/// Where a container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and a cgroup on the host's kernel (a Windows Server Container).
    #[default]
    Process,
}

impl Isolation {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Process => "process",
        }
    }
}

/// What the shim must know beside the bundle; `shim.json` in the sandbox's directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimConfig {
    /// Unix socket to listen on.
    pub socket: PathBuf,
    /// The first process has a terminal.
    pub terminal: bool,
    /// Initial size (rows, columns); (0, 0): unknown.
    pub console_size: (u16, u16),
    /// It has standard input.
    pub stdin: bool,
    /// Standard input ends with the first attached client that ends its own.
    pub stdin_once: bool,
    /// Log file; `None`: none is kept.
    pub log: Option<LogFile>,
}

/// A json-file log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Where; rotated ones are `path.1`, `path.2`…
    pub path: PathBuf,
    /// Bytes after which it is rotated; 0: never.
    pub max_size: u64,
    /// Files kept, this one included; at least 1.
    pub max_files: u32,
}

/// Names of files in a sandbox's directory.
pub mod files {
    /// [`super::ShimConfig`].
    pub const SHIM: &str = "shim.json";
    /// [`super::Exit`] of the first process, written by the shim.
    pub const EXIT: &str = "exit.json";
    /// What the shim itself complains about.
    pub const SHIM_LOG: &str = "shim.log";
}

/// What fails between engine and shim.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The shim says no.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// There is no shim (any more).
    #[error("the container's shim is gone")]
    Gone,
    /// No answer in time.
    #[error("the container's shim did not answer within {0} seconds")]
    Silent(u64),
    /// Input/output, with what was being done.
    #[error("{doing}: {source}")]
    Io {
        /// What.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}
