//! `update`: limits and restart policy of a container, running or not.

use silo_guest::Limits;
use silo_sandbox::Sandbox;

use crate::engine::{Engine, blocking};
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

    /// Changes limits and restart policy; returns warnings.
    pub async fn update(&self, name: &str, update: Update) -> Result<Vec<String>> {
        let entry = self.find(name)?;
        let _verb = entry.verb.lock().await;
        let record = entry.record();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "container {} is marked for removal and cannot be updated",
                entry.id
            )));
        }
        if record.spec.auto_remove && update.restart.is_some_and(|r| r != RestartPolicy::No) {
            return Err(EngineError::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let mut limits = record.spec.limits.clone();
        apply(&update.limits, &mut limits)?;
        let of_memory = update.limits.memory.is_some() || update.limits.memory_swap.is_some();
        let warnings = if of_memory {
            super::warnings::discard(&mut limits, &silo_sandbox::accounting())
        } else {
            Vec::new()
        };
        if let Ok(sandbox) = entry.running() {
            let mut resources = silo_guest::linux::resources(&limits);
            if update.limits.pids.is_some() && limits.pids == 0 {
                resources.set_pids(Some(Default::default()));
            }
            sandbox.update(resources).await.map_err(sandbox_error)?;
            self.show_limits(&record, limits.clone(), &sandbox).await?;
        }
        self.change(&entry, |r| {
            r.spec.limits = limits;
            if let Some(restart) = update.restart {
                r.spec.restart = restart;
            }
        })?;
        self.inner.events.container(&entry.record(), "update", &[]);
        Ok(warnings)
    }
}
