//! What a container's limits come to on this host: lists and flags checked, the flags that Windows has and the paths of
//! devices as what a kernel keeps.

use std::path::Path;

use silo_guest::{DeviceLimits, Limits};
use silo_sandbox::block;

use crate::error::{EngineError, Result};
use crate::placement::Kernel;

/// Billionths of a processor.
const PROCESSOR: u64 = 1_000_000_000;
/// The kernel's period where none is set, microseconds.
const PERIOD: u64 = 100_000;
/// Bytes that a disk of a container's own may have.
const SIZES: std::ops::RangeInclusive<u64> = 64 << 20..=1 << 40;

/// Numbers of a list such as `0-3,5`; `None`: it is none.
fn listed(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8192 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

fn read_list(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "0".to_owned(), |text| text.trim().to_owned())
}

fn of_set(asked: &str, there: &str, field: &str, things: &str) -> Result<()> {
    let wanted = listed(asked)
        .ok_or_else(|| EngineError::invalid(format!("Invalid value {asked} for cpuset {field}")))?;
    let available = listed(there).unwrap_or_default();
    if wanted.iter().all(|n| available.contains(n)) {
        return Ok(());
    }
    Err(EngineError::invalid(format!(
        "Requested {things} are not available - requested {asked}, available: {there}"
    )))
}

/// Processors of the host.
pub(super) fn processors() -> u64 {
    listed(&read_list("/sys/devices/system/cpu/online")).map_or(1, |all| all.len().max(1) as u64)
}

/// Refuses what cannot be, in dockerd's words where it has some.
pub(crate) fn check(limits: &Limits, storage_size: u64) -> Result<()> {
    of_set(&limits.cpuset_cpus, &read_list("/sys/devices/system/cpu/online"), "cpus", "CPUs")?;
    of_set(&limits.cpuset_mems, &read_list("/sys/devices/system/node/online"), "mems", "memory nodes")?;
    let there = processors();
    if limits.cpu_count > there {
        return Err(EngineError::invalid(format!(
            "invalid CPUCount: {} processors are asked for, and there are only {there}",
            limits.cpu_count
        )));
    }
    for device in &limits.io {
        numbers(device)?;
    }
    let parent = limits.cgroup_parent.trim_matches('/');
    if parent.split('/').any(|part| matches!(part, "." | "..") || part.is_empty() && !parent.is_empty()) {
        return Err(EngineError::invalid(format!("invalid cgroup-parent: {:?}", limits.cgroup_parent)));
    }
    if storage_size != 0 && !SIZES.contains(&storage_size) {
        return Err(EngineError::invalid(format!(
            "storage option size: {storage_size} bytes, from 64 MiB to 1 TiB are possible"
        )));
    }
    Ok(())
}

fn numbers(device: &DeviceLimits) -> Result<(i64, i64)> {
    let found = block::device_numbers(Path::new(&device.path));
    let (major, minor) = found.map_err(|e| EngineError::invalid(format!("device {}: {e}", device.path)))?;
    Ok((major.into(), minor.into()))
}

/// On one kernel processors are said in one way: by count, else by weight, else as a share. Windows Server containers have
/// that rule; sentences are dockerd's.
pub(crate) fn take_precedence(limits: &mut Limits, kernel: Kernel) -> Vec<String> {
    let mut warnings = Vec::new();
    if kernel == Kernel::Own {
        return warnings;
    }
    let mut conflict = |first: &str, second: &str| {
        warnings.push(format!(
            "Conflicting options: CPU {first} takes priority over CPU {second} on Windows Server Containers. CPU {second} discarded"
        ));
    };
    if limits.cpu_count > 0 && limits.cpu_shares > 0 {
        conflict("count", "shares");
        limits.cpu_shares = 0;
    }
    if limits.cpu_percent > 0 && limits.cpu_count > 0 {
        conflict("count", "percent");
        limits.cpu_percent = 0;
    } else if limits.cpu_percent > 0 && limits.cpu_shares > 0 {
        conflict("shares", "percent");
        limits.cpu_percent = 0;
    }
    warnings
}

/// Processor time that a quota gives, billionths; 0: without limit.
fn quota(limits: &Limits) -> u64 {
    let period = if limits.cpu_period == 0 { PERIOD } else { limits.cpu_period };
    match u64::try_from(limits.cpu_quota) {
        Ok(quota) if quota > 0 => (u128::from(quota) * u128::from(PROCESSOR) / u128::from(period)) as u64,
        _ => limits.nano_cpus,
    }
}

/// Processors of a machine of a container's own: as many as it can use, one where nothing is said.
pub(super) fn processors_of_machine(limits: &Limits) -> u64 {
    let wanted = match (limits.cpu_count, quota(limits)) {
        (0, 0) => 1,
        (0, time) => time.div_ceil(PROCESSOR),
        (count, _) => count,
    };
    wanted.clamp(1, processors())
}

/// Limits as a kernel keeps them. `dir`: where the container's files are.
pub(crate) fn effective(limits: &Limits, kernel: Kernel, dir: &Path) -> Result<Limits> {
    let mut made = limits.clone();
    let there = match kernel {
        Kernel::Shared => processors(),
        Kernel::Own => processors_of_machine(limits),
    };
    let flags = [limits.cpu_count * PROCESSOR, limits.cpu_percent * there * (PROCESSOR / 100)];
    if let Some(least) = flags.into_iter().filter(|n| *n > 0).min() {
        let asked = Some(quota(limits)).filter(|n| *n > 0);
        // Of a machine with so many processors the count is kept already.
        made.nano_cpus = asked.map_or(least, |n| n.min(least));
        (made.cpu_quota, made.cpu_period) = (0, 0);
    }
    for device in &mut made.io {
        device.device = numbers(device)?;
    }
    if limits.io_bandwidth > 0 || limits.io_operations > 0 {
        let disk = block::disk_of(dir)
            .map_err(|e| EngineError::internal(format!("{}: {e}", dir.display())))?
            .ok_or_else(|| {
                EngineError::invalid(format!(
                    "IOMaximumBandwidth, IOMaximumIOps: {} is on no block device that could be limited",
                    dir.display()
                ))
            })?;
        limit_disk(&mut made, (disk.0.into(), disk.1.into()));
    }
    Ok(made)
}

/// The system drive's limits hold for reading and for writing.
fn limit_disk(limits: &mut Limits, disk: (i64, i64)) {
    let (bytes, operations) = (limits.io_bandwidth, limits.io_operations);
    let at = limits.io.iter().position(|d| d.device == disk).unwrap_or_else(|| {
        limits.io.push(DeviceLimits { device: disk, ..Default::default() });
        limits.io.len() - 1
    });
    let least = |asked: u64, given: u64| match (asked, given) {
        (0, n) | (n, 0) => n,
        (a, b) => a.min(b),
    };
    let device = &mut limits.io[at];
    device.read_bps = least(device.read_bps, bytes);
    device.write_bps = least(device.write_bps, bytes);
    device.read_iops = least(device.read_iops, operations);
    device.write_iops = least(device.write_iops, operations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers() {
        assert_eq!(listed("0-2, 5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(listed(""), Some(vec![]));
        for wrong in ["a", "1-", "3-1", "0-99999999"] {
            assert_eq!(listed(wrong), None, "{wrong}");
        }
        let said = |asked: &str| of_set(asked, "0-3", "cpus", "CPUs").map_err(|e| e.message);
        assert_eq!(said("1,3"), Ok(()));
        assert_eq!(said("x"), Err("Invalid value x for cpuset cpus".into()));
        assert_eq!(
            said("2-4"),
            Err("Requested CPUs are not available - requested 2-4, available: 0-3".into())
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        let check = |limits: Limits| check(&limits, 0).unwrap_err().message;
        let null = DeviceLimits { path: "/dev/null".into(), read_bps: 1, ..Default::default() };
        assert_eq!(
            check(Limits { io: vec![null], ..Default::default() }),
            "device /dev/null: not a block device"
        );
        let parent = Limits { cgroup_parent: "/a/../b".into(), ..Default::default() };
        assert_eq!(check(parent), "invalid cgroup-parent: \"/a/../b\"");
        assert!(
            check(Limits { cpu_count: 9999, ..Default::default() }).starts_with("invalid CPUCount: 9999")
        );
        assert!(
            super::check(&Limits::default(), 1).is_err()
                && super::check(&Limits::default(), 64 << 20).is_ok()
        );
    }

    #[test]
    fn flags_of_windows_become_quotas() {
        let at = Path::new("/");
        let quota_of = |limits: Limits, kernel| effective(&limits, kernel, at).unwrap().nano_cpus;
        let count = Limits { cpu_count: 1, ..Default::default() };
        assert_eq!(quota_of(count.clone(), Kernel::Shared), PROCESSOR);
        let percent = Limits { cpu_percent: 50, ..Default::default() };
        assert_eq!(quota_of(percent.clone(), Kernel::Shared), processors() * PROCESSOR / 2);
        // Of its machine, which has one.
        assert_eq!(quota_of(percent, Kernel::Own), PROCESSOR / 2);
        let both = Limits { cpu_quota: 20_000, ..count };
        assert_eq!(quota_of(both, Kernel::Shared), PROCESSOR / 5);
        assert_eq!(quota_of(Limits { nano_cpus: 7, ..Default::default() }, Kernel::Shared), 7);
        assert_eq!(processors_of_machine(&Limits::default()), 1);
    }

    #[test]
    fn one_way_of_saying_processors_wins() {
        let mut all = Limits { cpu_count: 1, cpu_shares: 2, cpu_percent: 3, ..Default::default() };
        assert_eq!(take_precedence(&mut all.clone(), Kernel::Own), Vec::<String>::new());
        let said = take_precedence(&mut all, Kernel::Shared);
        assert_eq!(said.len(), 2);
        assert!(said[0].ends_with("Windows Server Containers. CPU shares discarded"), "{said:?}");
        assert_eq!((all.cpu_count, all.cpu_shares, all.cpu_percent), (1, 0, 0));
        let mut two = Limits { cpu_shares: 2, cpu_percent: 3, ..Default::default() };
        assert!(take_precedence(&mut two, Kernel::Shared)[0].contains("CPU shares takes priority"));
        assert_eq!(two.cpu_percent, 0);
    }

    #[test]
    fn the_system_drive_keeps_the_lower_limit() {
        let given = DeviceLimits { device: (254, 0), read_bps: 5, ..Default::default() };
        let mut limits = Limits { io: vec![given], io_bandwidth: 9, io_operations: 4, ..Default::default() };
        limit_disk(&mut limits, (254, 0));
        let disk = &limits.io[0];
        assert_eq!((disk.read_bps, disk.write_bps, disk.read_iops, disk.write_iops), (5, 9, 4, 4));
        limit_disk(&mut limits, (8, 0));
        assert_eq!(limits.io[1].write_bps, 9);
    }
}
