//! The sandbox seam: the words, and what an isolation states about itself; imports no implementation.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use silo_runtime::protocol::{
    Attach, Event, ExecState, Exit, Failure, FailureKind, KNOWS_NETWORKS, MachineNetwork, SandboxState,
    Stats, VERSION,
};
pub use silo_runtime::tools::Tool;

/// Where a container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and a cgroup on the host's kernel (a Windows Server Container).
    #[default]
    Process,
    /// A microVM with a kernel of its own (a Hyper-V Container).
    Hyperv,
}

impl Isolation {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Process => "process",
            Isolation::Hyperv => "hyperv",
        }
    }

    /// By its name, in any case; `None`: there is none of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Process, Self::Hyperv].into_iter().find(|i| i.as_str().eq_ignore_ascii_case(name))
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
    /// Where the container runs.
    pub isolation: Isolation,
    /// Of a machine of its own: where it comes from.
    pub machine: MachineConfig,
    /// First id of the container's own range of host users and groups.
    pub owner: u32,
    /// Where volumes are: what is mounted there is the daemon's, to be had by [`silo_sys::mount::MOUNTER`].
    pub volumes: PathBuf,
    /// Of a container on the host's kernel: the disk that its writable files are on; `None`: the host's.
    pub top: Option<TopDisk>,
    /// Directory of a bundle whose files alone are wanted: its machine boots, runs nothing and goes with the daemon's
    /// connection. The shim's own directory is another one then.
    pub files_of: Option<PathBuf>,
    /// Soft limit of open files that a container has which asks for none; 0: the shim's own.
    pub open_files: u64,
    /// It is a spare: made ready before anybody asks for it, to become one container's shim. The directory is the pool's.
    pub spare: Option<SpareConfig>,
}

/// A disk of a container's own for its writable files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopDisk {
    /// Directory of formatted images, each made once.
    pub disks: PathBuf,
    /// Bytes that may be written to it.
    pub size: u64,
}

/// What a spare is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpareConfig {
    /// Everything that its ready state depends on: a start takes one whose key is its own ([`crate::spare_key`]).
    pub key: String,
    /// A bundle lies in its directory that is to be made ready with it.
    pub bundle: bool,
}

/// Where machines come from, and what one of them has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineConfig {
    /// Prepared kernels and initial file systems.
    pub vm: PathBuf,
    /// Disk images of chains, shared by all machines.
    pub disks: PathBuf,
    /// Saved machines.
    pub templates: PathBuf,
    /// The agent.
    pub agent: PathBuf,
    /// Bytes of memory that the container may use; 0: not limited.
    pub memory: u64,
    /// Processors; 0: one.
    pub processors: u64,
    /// Bytes that its writable files may have; 0: the default.
    pub scratch: u64,
    /// What the host's processor can do, found out once by whoever starts shims.
    pub host: MachineHost,
    /// What a template is to be saved with beside the booted kernel; `None`: nothing.
    pub ready: Option<ReadyState>,
    /// Of a spare: the layers of the disks that its container will have, as [`crate::layers_of`] finds them; they are mounted
    /// while it waits, with a scratch. Empty: it can become any.
    pub layers: Vec<Vec<PathBuf>>,
    /// The template to clone, set when a shim is started and given its memory.
    pub template: Option<PathBuf>,
}

/// A bundle whose first process waits to be told what to run, brought up in a machine before that is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadyState {
    /// Everything that its state depends on beside the machine.
    pub key: String,
    /// Directory of the bundle.
    pub bundle: PathBuf,
    /// What it is for, as it is shown.
    pub of: String,
}

/// What a host gives its machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineHost {
    /// Why KVM does not run machines here; `None`: it does.
    pub no_kvm: Option<String>,
    /// Thousands of ticks a second of the processor's timestamp counter.
    pub tsc_khz: u64,
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
