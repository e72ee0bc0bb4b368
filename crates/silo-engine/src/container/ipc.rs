//! `--ipc`: whose shared memory a container sees at `/dev/shm`.

use std::path::PathBuf;

use silo_guest::Shm;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// What is asked for; the other container's without its namespace, which it has only while it runs.
pub(super) fn shm(ipc_mode: &str) -> Shm {
    match ipc_mode {
        "none" => Shm::None,
        "shareable" => Shm::Shareable,
        mode if mode.starts_with("container:") => Shm::Of(PathBuf::new()),
        _ => Shm::Own,
    }
}

impl Engine {
    /// The same, of another container that runs with memory to share: as with dockerd, one that was made `shareable`, or
    /// that sees another's or the host's itself.
    pub(super) fn shm_of(&self, ipc_mode: &str) -> Result<Shm> {
        let Some(other) = ipc_mode.strip_prefix("container:") else { return Ok(shm(ipc_mode)) };
        let other = self.find(other)?;
        let (pid, mode) = other.with(|r| (r.state.pid, r.spec.ipc_mode.clone()));
        if !matches!(mode.as_str(), "shareable" | "host") && !mode.starts_with("container:") {
            return Err(EngineError::conflict(format!(
                "cannot join IPC of a container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                other.id
            )));
        }
        Ok(Shm::Of(PathBuf::from(format!("/proc/{pid}/ns/mnt"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (mode, expected) in [
            ("", Shm::Own),
            ("private", Shm::Own),
            ("host", Shm::Own),
            ("shareable", Shm::Shareable),
            ("none", Shm::None),
            ("container:x", Shm::Of(PathBuf::new())),
        ] {
            assert_eq!(shm(mode), expected, "{mode}");
        }
    }
}
