//! `update`: limits and restart policy of a container, running or not.

use silo_guest::{DeviceLimits, Limits};
use silo_sandbox::Sandbox;

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result, sandbox_error};
use crate::placement;
use crate::record::{ContainerRecord, Status};
use crate::spec::RestartPolicy;

/// What is changed; `None` and empty stay as they are.
#[derive(Debug, Clone, Default)]
pub struct LimitsUpdate {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    /// Bytes, -1 unlimited.
    pub memory_swap: Option<i64>,
    /// Billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Weight.
    pub cpu_shares: Option<u64>,
    /// As `0-3`.
    pub cpuset_cpus: Option<String>,
    /// As `0`.
    pub cpuset_mems: Option<String>,
    /// Tasks; 0 or less: no limit.
    pub pids: Option<i64>,
    /// blkio weight.
    pub blkio_weight: Option<u16>,
    /// 0–100.
    pub memory_swappiness: Option<u64>,
    /// Nobody is killed who has no memory left, or somebody is again.
    pub oom_kill_disable: Option<bool>,
    /// Processors.
    pub cpu_count: Option<u64>,
    /// Percent of all processors.
    pub cpu_percent: Option<u64>,
    /// Bytes a second of the system drive.
    pub io_bandwidth: Option<u64>,
    /// Operations a second of it.
    pub io_operations: Option<u64>,
    /// Devices that are named, and of each what is named.
    pub io: Vec<DeviceUpdate>,
}

/// What is changed of one device's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUpdate {
    /// The device's file.
    pub path: String,
    /// Which limit.
    pub kind: DeviceLimit,
    /// Its new value; 0: none.
    pub value: u64,
}

/// A limit of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceLimit {
    /// Bytes a second.
    ReadBps,
    /// Bytes a second.
    WriteBps,
    /// Operations a second.
    ReadIops,
    /// Operations a second.
    WriteIops,
    /// blkio weight.
    Weight,
}

/// Sets what is said of devices.
pub fn set_devices(io: &mut Vec<DeviceLimits>, changes: &[DeviceUpdate]) {
    for change in changes {
        let at = io.iter().position(|d| d.path == change.path).unwrap_or_else(|| {
            io.push(DeviceLimits { path: change.path.clone(), ..Default::default() });
            io.len() - 1
        });
        let device = &mut io[at];
        match change.kind {
            DeviceLimit::ReadBps => device.read_bps = change.value,
            DeviceLimit::WriteBps => device.write_bps = change.value,
            DeviceLimit::ReadIops => device.read_iops = change.value,
            DeviceLimit::WriteIops => device.write_iops = change.value,
            DeviceLimit::Weight => device.weight = u16::try_from(change.value).unwrap_or(u16::MAX),
        }
    }
    io.retain(|d| *d != DeviceLimits { path: d.path.clone(), device: d.device, ..Default::default() });
}

/// An update.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Limits.
    pub limits: LimitsUpdate,
    /// Restart policy.
    pub restart: Option<RestartPolicy>,
}

fn apply(change: &LimitsUpdate, limits: &mut Limits) -> Result<()> {
    if let Some(memory) = change.memory {
        // What was not said when it was made was settled then: as much swap as memory.
        if limits.memory > 0 && limits.memory_swap == 0 {
            limits.memory_swap = i64::try_from(limits.memory.saturating_mul(2)).unwrap_or(i64::MAX);
        }
        let swap = change.memory_swap.unwrap_or(limits.memory_swap);
        if swap > 0 && (swap as u64) < memory {
            return Err(EngineError::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        limits.memory = memory;
    }
    if let Some(v) = change.memory_reservation {
        limits.memory_reservation = v;
    }
    if let Some(v) = change.memory_swap {
        limits.memory_swap = v;
    }
    if let Some(v) = change.nano_cpus {
        if limits.cpu_quota != 0 || limits.cpu_period != 0 {
            return Err(EngineError::conflict(
                "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set",
            ));
        }
        limits.nano_cpus = v;
    }
    if change.cpu_quota.is_some() || change.cpu_period.is_some() {
        if limits.nano_cpus != 0 {
            return Err(EngineError::conflict(
                "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set",
            ));
        }
        limits.cpu_quota = change.cpu_quota.unwrap_or(limits.cpu_quota);
        limits.cpu_period = change.cpu_period.unwrap_or(limits.cpu_period);
    }
    if let Some(v) = change.cpu_shares {
        limits.cpu_shares = v;
    }
    if let Some(v) = &change.cpuset_cpus {
        limits.cpuset_cpus.clone_from(v);
    }
    if let Some(v) = &change.cpuset_mems {
        limits.cpuset_mems.clone_from(v);
    }
    if let Some(v) = change.pids {
        limits.pids = u64::try_from(v).unwrap_or(0);
    }
    if let Some(v) = change.blkio_weight {
        limits.blkio_weight = v;
    }
    if let Some(v) = change.memory_swappiness {
        limits.memory_swappiness = Some(v);
    }
    limits.oom_kill_disable = change.oom_kill_disable.unwrap_or(limits.oom_kill_disable);
    limits.cpu_count = change.cpu_count.unwrap_or(limits.cpu_count);
    limits.cpu_percent = change.cpu_percent.unwrap_or(limits.cpu_percent);
    limits.io_bandwidth = change.io_bandwidth.unwrap_or(limits.io_bandwidth);
    limits.io_operations = change.io_operations.unwrap_or(limits.io_operations);
    set_devices(&mut limits.io, &change.io);
    if limits.nano_cpus > 0 && limits.cpu_percent > 0 {
        return Err(EngineError::conflict(
            "conflicting options: Nano CPUs and CPU Percent cannot both be set",
        ));
    }
    Ok(())
}

impl Engine {
    /// Lets the guest show a running container's new limits inside.
    async fn show_limits(&self, record: &ContainerRecord, limits: Limits, sandbox: &Sandbox) -> Result<()> {
        let (dir, os) = (self.dir(&record.id), record.os);
        let shown = blocking(move || {
            placement::guest(os)?.limits_changed(&limits, &dir).map_err(crate::error::guest_error)
        });
        if shown.await? { sandbox.refresh().await.map_err(sandbox_error) } else { Ok(()) }
    }

    /// Changes limits and restart policy; returns warnings. What fails changes nothing.
    pub async fn update(&self, name: &str, update: Update) -> Result<Vec<String>> {
        let entry = self.find(name)?;
        let _verb = entry.verb.lock().await;
        let cannot = |e: EngineError| EngineError {
            message: format!("Cannot update container {}: {}", entry.id, e.message),
            ..e
        };
        let warnings = self.update_entry(&entry, update).await.map_err(cannot)?;
        self.inner.events.container(&entry.record(), "update", &[]);
        Ok(warnings)
    }

    async fn update_entry(&self, entry: &Entry, update: Update) -> Result<Vec<String>> {
        let record = entry.record();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict("container is marked for removal and cannot be \"update\""));
        }
        if record.spec.auto_remove && update.restart.is_some_and(|r| r != RestartPolicy::No) {
            return Err(EngineError::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let mut limits = record.spec.limits.clone();
        apply(&update.limits, &mut limits)?;
        super::limits::check(&limits, 0)?;
        let kernel = placement::facts(record.isolation).kernel;
        // Warned of is what is asked for now, not what was left out when it was made.
        let mut warnings = super::limits::take_precedence(&mut limits, kernel);
        let of_memory = update.limits.memory.is_some() || update.limits.memory_swap.is_some();
        let left = super::warnings::discard(&mut limits, &silo_sandbox::accounting(record.isolation))?;
        let known = |text: &String| of_memory || !text.contains("swap limit capabilities");
        warnings.extend(left.into_iter().filter(known));
        let dir = self.dir(&record.id);
        let before = super::limits::effective(&record.spec.limits, kernel, &dir)?;
        let made = super::limits::effective(&limits, kernel, &dir)?;
        if let Ok(sandbox) = entry.running() {
            let resources = silo_guest::linux::changed_resources(&before, &made);
            sandbox.update(resources).await.map_err(sandbox_error)?;
            if let Err(e) = self.show_limits(&record, made.clone(), &sandbox).await {
                let back = silo_guest::linux::changed_resources(&made, &before);
                if let Err(e) = sandbox.update(back).await {
                    tracing::warn!("container {}: taking an update back: {e}", record.id);
                }
                return Err(e);
            }
        }
        self.change(entry, |r| {
            r.spec.limits = limits;
            if let Some(restart) = update.restart {
                r.spec.restart = restart;
            }
        })?;
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_says_what_it_changes() {
        let of = |path: &str, kind, value| DeviceUpdate { path: path.to_owned(), kind, value };
        let mut limits = Limits { memory: 64 << 20, ..Default::default() };
        let io = vec![
            of("/dev/a", DeviceLimit::ReadBps, 5),
            of("/dev/b", DeviceLimit::Weight, 300),
            of("/dev/a", DeviceLimit::WriteIops, 6),
        ];
        apply(&LimitsUpdate { io, cpu_count: Some(2), ..Default::default() }, &mut limits).unwrap();
        assert_eq!((limits.io[0].read_bps, limits.io[0].write_iops, limits.io[1].weight), (5, 6, 300));
        assert_eq!((limits.cpu_count, limits.memory), (2, 64 << 20));
        let io = vec![of("/dev/b", DeviceLimit::Weight, 0), of("/dev/a", DeviceLimit::ReadBps, 0)];
        apply(&LimitsUpdate { io, ..Default::default() }, &mut limits).unwrap();
        assert_eq!(limits.io.len(), 1);
        assert_eq!((limits.io[0].read_bps, limits.io[0].write_iops), (0, 6));
        // dockerd's: what swap came to be when it was made is above.
        let more = LimitsUpdate { memory: Some(256 << 20), ..Default::default() };
        assert!(apply(&more, &mut limits.clone()).unwrap_err().message.contains("already set memoryswap"));
        apply(&LimitsUpdate { memory: Some(100 << 20), ..Default::default() }, &mut limits).unwrap();
        assert_eq!(limits.memory_swap, 128 << 20);
    }
}
