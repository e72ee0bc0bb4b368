//! A bundle on disk: `config.json` (OCI runtime specification 1.1) and `rootfs.json`, the mount that makes its root.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};

use crate::seccomp::Filter;

/// A bundle as the runtime uses it.
#[derive(Debug)]
pub struct Bundle {
    /// Directory of the bundle; `rootfs/` in it is where the root is assembled.
    pub dir: PathBuf,
    /// `config.json`.
    pub spec: Spec,
    /// `rootfs.json`.
    pub rootfs: Mount,
    /// The system call filter, if it is compiled already; else it is `linux.seccomp`.
    pub filter: Option<Filter>,
}

/// Annotation that asks for a pipe through which the first process tells its 32-bit exit code.
pub const STATUS_FD_ANNOTATION: &str = "dev.silo.status-fd";

/// Annotation of a bundle whose first process waits to be told what to run.
pub const WAITS_ANNOTATION: &str = "dev.silo.waits";

/// Environment variable that names that pipe's descriptor.
pub(crate) const STATUS_FD_VARIABLE: &str = "SILO_STATUS_FD";

/// Environment variable that names the descriptor of the socket of a process that waits (`waiting.rs`).
pub(crate) const WAIT_FD_VARIABLE: &str = "SILO_WAIT_FD";

fn read<T: for<'a> serde::Deserialize<'a>>(path: &Path) -> io::Result<T> {
    let text =
        std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
}

impl Bundle {
    /// Reads both files.
    pub fn load(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            spec: read(&dir.join("config.json"))?,
            rootfs: read(&dir.join("rootfs.json"))?,
            filter: None,
        })
    }

    /// `process`, which a bundle that is started must have.
    pub fn process(&self) -> io::Result<&Process> {
        self.spec.process().as_ref().ok_or_else(|| invalid("config.json has no process"))
    }

    /// `linux`.
    pub fn linux(&self) -> io::Result<&Linux> {
        self.spec.linux().as_ref().ok_or_else(|| invalid("config.json has no linux section"))
    }

    /// cgroup path.
    pub fn cgroup(&self) -> io::Result<&str> {
        self.linux()?
            .cgroups_path()
            .as_ref()
            .and_then(|p| p.to_str())
            .ok_or_else(|| invalid("config.json has no linux.cgroupsPath"))
    }

    /// Whether the container has a namespace of this kind apart from its supervisor's, and the path to join, if any.
    pub fn namespace(&self, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
        let list = self.spec.linux().as_ref()?.namespaces().as_ref()?;
        list.iter().find(|n| n.typ() == kind).map(|n| n.path().as_deref())
    }

    /// Whether its first process waits to be told what to run.
    pub fn waits(&self) -> bool {
        self.spec.annotations().as_ref().is_some_and(|a| a.contains_key(WAITS_ANNOTATION))
    }

    /// Whether [`STATUS_FD_ANNOTATION`] is set.
    pub fn wants_status_pipe(&self) -> bool {
        self.spec
            .annotations()
            .as_ref()
            .is_some_and(|a| a.get(STATUS_FD_ANNOTATION).is_some_and(|v| v == "1"))
    }
}

/// An error of the bundle's content.
pub(crate) fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message.into())
}
