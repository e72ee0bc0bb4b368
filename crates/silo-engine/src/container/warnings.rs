//! Limits that the host's kernel cannot keep: taken out of a request, each with a warning in dockerd's words.

use silo_guest::{DeviceLimits, Limits};
use silo_sandbox::Accounting;

use crate::error::{EngineError, Result};

const MEMORY: &str = "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
const SWAP: &str = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";
const SWAPPINESS: &str = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.";
const RESERVATION: &str = "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.";
const OOM_KILL: &str = "Your kernel does not support OomKillDisable. OomKillDisable discarded.";
const OOM_WITHOUT_LIMIT: &str = "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.";
const PIDS: &str = "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.";
const NANO_CPUS: &str =
    "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted";
const SHARES: &str =
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.";
const QUOTA: &str = "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.";
const CPUSET: &str = "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.";
const WEIGHT: &str =
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
const WEIGHT_DEVICE: &str = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.";
const READ_BPS: &str = "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.";
const WRITE_BPS: &str = "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.";
const READ_IOPS: &str = "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.";
const WRITE_IOPS: &str = "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.";

/// Takes out what `host` does not have; returns a sentence for each.
///
/// # Errors
/// Of what is no soft limit: processors (as dockerd), and Windows' limits of the system drive.
pub(crate) fn discard(limits: &mut Limits, host: &Accounting) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut warn = |is: bool, text: &str| {
        if is {
            warnings.push(text.to_owned());
        }
        is
    };
    if warn(limits.memory > 0 && !host.memory, MEMORY) {
        (limits.memory, limits.memory_swap) = (0, -1);
    }
    if warn(limits.memory > 0 && limits.memory_swap != -1 && !host.swap, SWAP) {
        limits.memory_swap = -1;
    }
    if warn(limits.memory_swappiness.is_some() && !host.swappiness, SWAPPINESS) {
        limits.memory_swappiness = None;
    }
    if warn(limits.memory_reservation > 0 && !host.reservation, RESERVATION) {
        limits.memory_reservation = 0;
    }
    if warn(limits.oom_kill_disable && !host.oom_control, OOM_KILL) {
        limits.oom_kill_disable = false;
    }
    warn(limits.oom_kill_disable && limits.memory == 0, OOM_WITHOUT_LIMIT);
    if warn(limits.pids > 0 && !host.pids, PIDS) {
        limits.pids = 0;
    }
    if (limits.nano_cpus > 0 || limits.cpu_count > 0 || limits.cpu_percent > 0) && !host.cpu_quota {
        return Err(EngineError::invalid(NANO_CPUS));
    }
    if warn(limits.cpu_shares > 0 && !host.cpu_shares, SHARES) {
        limits.cpu_shares = 0;
    }
    if warn((limits.cpu_period != 0 || limits.cpu_quota != 0) && !host.cpu_quota, QUOTA) {
        (limits.cpu_period, limits.cpu_quota) = (0, 0);
    }
    if warn((!limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty()) && !host.cpuset, CPUSET) {
        (limits.cpuset_cpus, limits.cpuset_mems) = Default::default();
    }
    if warn(limits.blkio_weight > 0 && !host.io_weight, WEIGHT) {
        limits.blkio_weight = 0;
    }
    let bandwidth = limits.io_bandwidth > 0 && !(host.read_bps && host.write_bps);
    let operations = limits.io_operations > 0 && !(host.read_iops && host.write_iops);
    if bandwidth || operations {
        return Err(EngineError::invalid(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        ));
    }
    type Take = fn(&mut DeviceLimits) -> u64;
    let kinds: [(bool, &str, Take); 5] = [
        (host.io_weight_device, WEIGHT_DEVICE, |d| std::mem::take(&mut d.weight).into()),
        (host.read_bps, READ_BPS, |d| std::mem::take(&mut d.read_bps)),
        (host.write_bps, WRITE_BPS, |d| std::mem::take(&mut d.write_bps)),
        (host.read_iops, READ_IOPS, |d| std::mem::take(&mut d.read_iops)),
        (host.write_iops, WRITE_IOPS, |d| std::mem::take(&mut d.write_iops)),
    ];
    for (kept, text, take) in kinds {
        if !kept {
            let taken: u64 = limits.io.iter_mut().map(take).sum();
            warn(taken > 0, text);
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: Limits, host: Accounting, left: Limits, warned: &[&str]) {
        let mut limits = asked;
        assert_eq!(discard(&mut limits, &host).unwrap(), warned);
        assert_eq!(limits, left);
    }

    #[test]
    fn what_a_host_cannot_keep_is_discarded_with_a_word() {
        let v2 = Accounting { memory: true, swap: true, read_bps: true, ..Default::default() };
        let v1 = Accounting { swappiness: true, oom_control: true, ..v2 };
        let asked = Limits {
            memory: 64 << 20,
            memory_swappiness: Some(10),
            oom_kill_disable: true,
            ..Default::default()
        };
        check(asked.clone(), v1, asked.clone(), &[]);
        let left = Limits { memory: 64 << 20, ..Default::default() };
        check(asked, v2, left.clone(), &[SWAPPINESS, OOM_KILL]);
        let without_swap = Accounting { swap: false, ..v1 };
        check(
            left,
            without_swap,
            Limits { memory: 64 << 20, memory_swap: -1, ..Default::default() },
            &[SWAP],
        );
        let unbounded = Limits { oom_kill_disable: true, ..Default::default() };
        check(unbounded.clone(), v1, unbounded, &[OOM_WITHOUT_LIMIT]);
        check(Limits::default(), without_swap, Limits::default(), &[]);
        let disk = DeviceLimits { read_bps: 1, write_bps: 2, ..Default::default() };
        let left = DeviceLimits { write_bps: 0, ..disk.clone() };
        let of = |disk: DeviceLimits| Limits { io: vec![disk], ..Default::default() };
        check(of(disk), v2, of(left), &[WRITE_BPS]);
        for hard in [
            Limits { cpu_percent: 1, ..Default::default() },
            Limits { io_bandwidth: 1, ..Default::default() },
        ] {
            assert!(discard(&mut hard.clone(), &v2).is_err());
        }
    }
}
