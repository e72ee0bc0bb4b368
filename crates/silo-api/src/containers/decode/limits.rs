//! Limits: dockerd's checks, and what the guest is asked for.

use std::path::Path;

use silo_engine::guest::Limits;
use silo_engine::{DeviceLimit, DeviceUpdate};

use super::body::HostConfig;
use crate::error::{Answer, ApiError};

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// `--storage-opt size=`, in bytes: a number with a unit of 1024 (`20G`, `512m`), as dockerd reads it.
pub(super) fn storage_size(options: &std::collections::BTreeMap<String, String>) -> Answer<u64> {
    let mut size = 0;
    for (name, value) in options {
        if !name.eq_ignore_ascii_case("size") {
            return Err(ApiError::bad(format!("unknown option: StorageOpt {name:?}, there is size only")));
        }
        size = silo_engine::size::bytes(value)
            .filter(|n| (1..=1_000_000_000_000_000).contains(n))
            .ok_or_else(|| ApiError::bad(format!("invalid size: StorageOpt size {value:?}")))?;
    }
    Ok(size)
}

/// dockerd's checks of limits, in its words. `update`: what is not named is there already.
pub(crate) fn check_limits(host: &HostConfig, update: bool) -> Answer<()> {
    const LEAST: i64 = 6 << 20;
    if host.memory != 0 && host.memory < LEAST {
        return Err(ApiError::bad("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(ApiError::bad("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if host.memory == 0 && host.memory_swap > 0 && !update {
        return Err(ApiError::bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_reservation != 0 && host.memory_reservation < LEAST {
        return Err(ApiError::bad("Minimum memory reservation allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(ApiError::bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.nano_cpus != 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
        return Err(ApiError::bad("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as i64;
    if host.nano_cpus != 0 && !(10_000_000..=cpus * 1_000_000_000).contains(&host.nano_cpus) {
        return Err(ApiError::bad(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if (host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0)
        && !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
    {
        return Err(ApiError::bad("Your kernel does not support CPU real-time scheduler"));
    }
    if host.cpu_realtime_period != 0 && host.cpu_realtime_runtime > host.cpu_realtime_period {
        return Err(ApiError::bad("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(ApiError::bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(ApiError::bad("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(ApiError::bad("Range of blkio weight is from 10 to 1000"));
    }
    if host.memory_swappiness.is_some_and(|s| s != -1 && !(0..=100).contains(&s)) {
        return Err(ApiError::bad("Invalid value: memory swappiness must be between 0 and 100"));
    }
    if host.blkio_weight_device.iter().any(|d| d.weight != 0 && !(10..=1000).contains(&d.weight)) {
        return Err(ApiError::bad("Range of blkio weight is from 10 to 1000"));
    }
    if !(0..=100).contains(&host.cpu_percent) {
        return Err(ApiError::bad("range of CPUPercent is from 1 to 100"));
    }
    if host.cpu_count < 0 {
        return Err(ApiError::bad("invalid CPUCount: CPUCount cannot be negative"));
    }
    if host.nano_cpus > 0 && host.cpu_percent > 0 {
        return Err(ApiError::bad("conflicting options: Nano CPUs and CPU Percent cannot both be set"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(ApiError::bad(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(ApiError::bad("SHM size can not be less than 0"));
    }
    Ok(())
}

pub(super) fn limits(host: &HostConfig) -> Limits {
    let mut io = Vec::new();
    silo_engine::set_devices(&mut io, &devices(host));
    Limits {
        memory: positive(host.memory),
        memory_reservation: positive(host.memory_reservation),
        memory_swap: host.memory_swap,
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        nano_cpus: positive(host.nano_cpus),
        cpu_quota: host.cpu_quota,
        cpu_period: positive(host.cpu_period),
        cpu_shares: positive(host.cpu_shares),
        cpu_realtime_period: positive(host.cpu_realtime_period),
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids: host.pids_limit.map_or(0, positive),
        blkio_weight: host.blkio_weight,
        ulimits: host.ulimits.iter().map(|u| (u.name.clone(), (u.soft as u64, u.hard as u64))).collect(),
        shm_size: positive(host.shm_size),
        oom_score_adj: host.oom_score_adj,
        oom_kill_disable: host.oom_kill_disable == Some(true),
        io,
        cpu_count: positive(host.cpu_count),
        cpu_percent: positive(host.cpu_percent),
        io_bandwidth: host.io_maximum_bandwidth,
        io_operations: host.io_maximum_iops,
        cgroup_parent: host.cgroup_parent.clone(),
    }
}

/// What is said of devices.
pub(crate) fn devices(host: &HostConfig) -> Vec<DeviceUpdate> {
    let of = |path: &str, kind, value| DeviceUpdate { path: path.to_owned(), kind, value };
    let throttles = [
        (&host.blkio_device_read_bps, DeviceLimit::ReadBps),
        (&host.blkio_device_write_bps, DeviceLimit::WriteBps),
        (&host.blkio_device_read_iops, DeviceLimit::ReadIops),
        (&host.blkio_device_write_iops, DeviceLimit::WriteIops),
    ];
    let throttles = throttles.into_iter().flat_map(|(list, kind)| list.iter().map(move |d| (d, kind)));
    let weights = host.blkio_weight_device.iter().map(|d| of(&d.path, DeviceLimit::Weight, d.weight.into()));
    throttles.map(|(d, kind)| of(&d.path, kind, d.rate)).chain(weights).collect()
}
