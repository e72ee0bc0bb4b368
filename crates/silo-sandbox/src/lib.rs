//! Axis 2: where a bundle runs. Owns isolation drivers, the shim and the engine's end of the task protocol.
//!
//! Must not know: images, guests (the words "Linux image" or "Wine"), networks, the engine's records.

mod client;
mod contract;
pub mod shim;

pub use client::{Events, ExecRequest, Sandbox, clean_up_after, recorded_exit};
pub use contract::*;
/// Which limits of memory this host can keep.
pub use silo_runtime::cgroup::{Accounting, accounting};
/// For programs that live long and rest between bursts of work.
pub use silo_sys::process::give_memory_back;

/// 1 or 2: the cgroup version that limits are set with on this host.
pub fn cgroup_version() -> u8 {
    silo_runtime::cgroup::version()
}

/// Opens the root of a container that does not run, with its mounts, for the time of `work`; nobody else sees them.
pub fn with_stopped_root<T: Send + 'static>(
    dir: &std::path::Path,
    work: impl FnOnce(&std::os::fd::OwnedFd) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let bundle = silo_runtime::Bundle::load(dir)?;
    silo_sys::mount::in_private_namespace(move || {
        let root = silo_runtime::assemble(&bundle)?;
        work(&root)
    })
}
