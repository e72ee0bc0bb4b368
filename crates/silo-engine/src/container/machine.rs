//! What a container with a kernel of its own is given, and what it cannot have of the host.

use silo_sandbox::{MachineConfig, TopDisk};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::placement::{self, Kernel};
use crate::record::ContainerRecord;
use crate::spec::{ContainerSpec, NetworkMode};

/// PID 1 of a machine, among the programs that are installed beside this one.
const AGENT: &str = "silo-agent";

impl Engine {
    /// Where a container's machine comes from, if it is to have one.
    pub(crate) fn machine_config(&self, record: &ContainerRecord) -> MachineConfig {
        if placement::facts(record.isolation).kernel == Kernel::Shared {
            return MachineConfig::default();
        }
        let config = self.config();
        MachineConfig {
            vm: config.vm.clone(),
            disks: config.root.join("disks"),
            templates: config.vm.join("templates"),
            agent: silo_guest::inside::program(AGENT).unwrap_or_else(|| AGENT.into()),
            memory: record.spec.limits.memory,
            processors: super::limits::processors_of_machine(&record.spec.limits),
            scratch: record.spec.storage_size,
            ..Default::default()
        }
    }
}

impl Engine {
    /// The disk that a container's writable files are on, if it has one of a size of its own on the host's kernel.
    pub(crate) fn top_disk(&self, record: &ContainerRecord) -> Option<TopDisk> {
        let own =
            placement::facts(record.isolation).kernel == Kernel::Shared && record.spec.storage_size != 0;
        own.then(|| TopDisk { disks: self.config().root.join("disks"), size: record.spec.storage_size })
    }
}

/// Refuses what only the host's kernel could give, naming the option.
pub(super) fn refuse_of_another_kernel(spec: &ContainerSpec, kernel: Kernel) -> Result<()> {
    if kernel == Kernel::Shared {
        return Ok(());
    }
    let shared = |mode: &str| mode == "host" || mode.starts_with("container:");
    let refused = [
        (spec.network == NetworkMode::Host, "--network host"),
        (matches!(spec.network, NetworkMode::Container(_)), "--network container"),
        (shared(&spec.pid_mode), "--pid"),
        (shared(&spec.ipc_mode), "--ipc"),
        (shared(&spec.uts_mode), "--uts"),
        (spec.cgroupns_mode == "host", "--cgroupns host"),
        (!spec.security.devices.is_empty(), "--device"),
    ];
    match refused.into_iter().find(|(is, _)| *is) {
        Some((_, option)) => Err(EngineError::invalid(format!(
            "{option}: a container with hyperv isolation has a kernel of its own and cannot share the host's"
        ))),
        None => Ok(()),
    }
}
