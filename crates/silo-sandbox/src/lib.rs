//! Axis 2: where a bundle runs. Owns isolation drivers, the shim and the engine's end of the task protocol.
//!
//! Must not know: images, guests (the words "Linux image" or "Wine"), networks, the engine's records.

/// `eprintln!` for a process that must live on when its log's disk is full: that panics, and takes a container along.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(format!("{}\n", format_args!($($text)*)).as_bytes());
    }};
}
use complain;

mod client;
mod contract;
pub mod hyperv;
pub mod pool;
pub mod shim;
mod stopped;
mod tools;
mod top;

pub use client::{
    Events, ExecRequest, Sandbox, ShimProcess, clean_up_after, clean_up_if_killed, recorded_exit,
};
pub use contract::*;
pub use silo_runtime::cgroup::Accounting;
/// Disks of this host.
pub use silo_sys::block;
/// For programs that live long and rest between bursts of work.
pub use silo_sys::process::{give_memory_back, raise_open_files};
pub use silo_sys::{beneath, mount_words};
pub use stopped::with_stopped_root;
pub use tools::ToolStream;
pub use top::{open_top, top_usage, with_top};

/// The key of spares that can become a sandbox of this configuration: everything that their ready state depends on. `ready`: the
/// digest of a bundle that is made ready with it. `None`: there is nothing to make ready now. Blocking.
pub fn spare_key(executable: &std::path::Path, config: &ShimConfig, ready: Option<&str>) -> Option<String> {
    let name = config.isolation.as_str();
    let kept = match config.isolation {
        Isolation::Process => ready.map(|_| String::new()),
        Isolation::Hyperv => hyperv::template::ready_key(executable, &config.machine),
    };
    let words = [Some(name.to_owned()), Some(kept?).filter(|k| !k.is_empty()), ready.map(str::to_owned)];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// Which limits containers of an isolation can have on this host.
pub fn accounting(isolation: Isolation) -> Accounting {
    let host = silo_runtime::cgroup::accounting();
    match isolation {
        Isolation::Process => host,
        Isolation::Hyperv => hyperv::limits::accounting(&host),
    }
}

/// The layers of the disks that a bundle needs in a machine of its own; empty where it needs none.
///
/// # Errors
/// Of a bundle that is not there or cannot run in a machine.
pub fn layers_of(
    dir: &std::path::Path,
    isolation: Isolation,
) -> std::io::Result<Vec<Vec<std::path::PathBuf>>> {
    match isolation {
        Isolation::Process => Ok(Vec::new()),
        Isolation::Hyperv => {
            let bundle = silo_runtime::Bundle::load(dir)?;
            hyperv::bundle::translate(&bundle, hyperv::bundle::COPIES).map(|made| made.layers)
        }
    }
}

/// 1 or 2: the cgroup version that limits are set with on this host.
pub fn cgroup_version() -> u8 {
    silo_runtime::cgroup::version()
}

/// Bytes that a container with a machine of its own may write.
pub fn machine_limit(config: &MachineConfig) -> u64 {
    hyperv::machine::scratch_size(config)
}

/// Bytes on disk of what such a container has written; `dir` is its directory.
pub fn machine_usage(dir: &std::path::Path, config: &MachineConfig) -> u64 {
    let scratch = dir.join(hyperv::machine::SCRATCH);
    hyperv::disks::used(&config.disks, &scratch, hyperv::machine::scratch_size(config))
}

/// Lets go of the memory of templates, where memory is short; they stay on disk.
pub fn forget_templates() {
    hyperv::template::forget();
}

/// Removes the disk that a spare has handed over to the container in `dir`, whose start has failed before its program ran.
pub fn forget_handed_over(dir: &std::path::Path) {
    let _ = std::fs::remove_file(dir.join(hyperv::machine::SCRATCH));
}
