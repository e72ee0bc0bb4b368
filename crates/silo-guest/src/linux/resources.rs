//! Limits as the OCI specification writes them.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

use crate::contract::{DeviceLimits, GuestError, Limits};

/// `linux.resources` without device rules; what is not limited is not named.
pub fn resources(limits: &Limits) -> LinuxResources {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut resources = LinuxResources::default();
    let mut memory = LinuxMemory::default();
    if limits.memory > 0 {
        memory.set_limit(Some(signed(limits.memory)));
        // As dockerd: without a word about swap, as much swap as memory.
        let swap = if limits.memory_swap == 0 {
            signed(limits.memory.saturating_mul(2))
        } else {
            limits.memory_swap
        };
        memory.set_swap(Some(swap));
    } else if limits.memory_swap != 0 {
        memory.set_swap(Some(limits.memory_swap));
    }
    if limits.memory_reservation > 0 {
        memory.set_reservation(Some(signed(limits.memory_reservation)));
    }
    memory.set_swappiness(limits.memory_swappiness);
    if limits.oom_kill_disable {
        memory.set_disable_oom_killer(Some(true));
    }
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    if limits.nano_cpus > 0 {
        cpu.set_period(Some(100_000));
        cpu.set_quota(Some(signed(limits.nano_cpus / 10_000)));
    } else {
        cpu.set_period(Some(limits.cpu_period).filter(|p| *p > 0));
        cpu.set_quota(Some(limits.cpu_quota).filter(|q| *q != 0));
    }
    cpu.set_realtime_period(Some(limits.cpu_realtime_period).filter(|p| *p > 0));
    cpu.set_realtime_runtime(Some(limits.cpu_realtime_runtime).filter(|r| *r != 0));
    cpu.set_shares(Some(limits.cpu_shares).filter(|s| *s > 0));
    cpu.set_cpus(Some(limits.cpuset_cpus.clone()).filter(|c| !c.is_empty()));
    cpu.set_mems(Some(limits.cpuset_mems.clone()).filter(|c| !c.is_empty()));
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    if limits.pids > 0 {
        let mut pids = LinuxPids::default();
        pids.set_limit(signed(limits.pids));
        resources.set_pids(Some(pids));
    }
    if let Some(io) = block_io(limits) {
        resources.set_block_io(Some(io));
    }
    resources
}

/// [`resources`] for a container that runs with other limits: what is not limited any more is named too.
pub fn changed_resources(before: &Limits, limits: &Limits) -> LinuxResources {
    let mut resources = resources(limits);
    let mut cpu = resources.cpu().clone().unwrap_or_default();
    if cpu.quota().is_none() && (before.nano_cpus > 0 || before.cpu_quota != 0) {
        cpu.set_quota(Some(-1));
    }
    if limits.cpu_shares == 0 && before.cpu_shares > 0 {
        const DEFAULT: u64 = 1024;
        cpu.set_shares(Some(DEFAULT));
    }
    // Its real-time part is settled when it starts.
    cpu.set_realtime_period(None).set_realtime_runtime(None);
    resources.set_cpu(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()));
    if limits.memory == 0 && before.memory > 0 {
        let mut memory = (*resources.memory()).unwrap_or_default();
        memory.set_limit(Some(-1)).set_swap(Some(-1));
        resources.set_memory(Some(memory));
    }
    if before.oom_kill_disable && !limits.oom_kill_disable {
        let mut memory = (*resources.memory()).unwrap_or_default();
        memory.set_disable_oom_killer(Some(false));
        resources.set_memory(Some(memory));
    }
    if limits.pids == 0 && before.pids > 0 {
        resources.set_pids(Some(LinuxPids::default()));
    }
    let gone = |rate: fn(&DeviceLimits) -> u64, list: &Option<Vec<LinuxThrottleDevice>>| {
        let kept = |d: &&DeviceLimits| !limits.io.iter().any(|n| n.device == d.device && rate(n) > 0);
        let gone = before.io.iter().filter(|d| rate(d) > 0).filter(kept).map(|d| throttle(d, 0));
        let all: Vec<_> = list.iter().flatten().copied().chain(gone).collect();
        Some(all).filter(|list| !list.is_empty())
    };
    let mut io = resources.block_io().clone().unwrap_or_default();
    let lists = [
        gone(|d| d.read_bps, io.throttle_read_bps_device()),
        gone(|d| d.write_bps, io.throttle_write_bps_device()),
        gone(|d| d.read_iops, io.throttle_read_iops_device()),
        gone(|d| d.write_iops, io.throttle_write_iops_device()),
    ];
    let [read_bps, write_bps, read_iops, write_iops] = lists;
    io.set_throttle_read_bps_device(read_bps)
        .set_throttle_write_bps_device(write_bps)
        .set_throttle_read_iops_device(read_iops)
        .set_throttle_write_iops_device(write_iops);
    resources.set_block_io(Some(io).filter(|io| *io != LinuxBlockIo::default()));
    resources
}

fn throttle(device: &DeviceLimits, rate: u64) -> LinuxThrottleDevice {
    let throttle = LinuxThrottleDeviceBuilder::default().major(device.device.0).minor(device.device.1);
    // Nothing of it is required.
    throttle.rate(rate).build().unwrap_or_default()
}

/// Limits of devices whose numbers are known.
fn block_io(limits: &Limits) -> Option<LinuxBlockIo> {
    let mut io = LinuxBlockIo::default();
    io.set_weight(Some(limits.blkio_weight).filter(|w| *w > 0));
    let throttled = |rate: fn(&DeviceLimits) -> u64| {
        let list = limits.io.iter().filter(|d| rate(d) > 0).map(|d| throttle(d, rate(d)));
        Some(list.collect::<Vec<_>>()).filter(|list| !list.is_empty())
    };
    io.set_throttle_read_bps_device(throttled(|d| d.read_bps))
        .set_throttle_write_bps_device(throttled(|d| d.write_bps))
        .set_throttle_read_iops_device(throttled(|d| d.read_iops))
        .set_throttle_write_iops_device(throttled(|d| d.write_iops));
    let weights = limits.io.iter().filter(|d| d.weight > 0).map(|d| {
        let weight = LinuxWeightDeviceBuilder::default().major(d.device.0).minor(d.device.1);
        // Nothing of it is required.
        weight.weight(d.weight).build().unwrap_or_default()
    });
    io.set_weight_device(Some(weights.collect::<Vec<_>>()).filter(|list| !list.is_empty()));
    Some(io).filter(|io| *io != LinuxBlockIo::default())
}

/// `process.rlimits`.
pub fn rlimits(limits: &Limits) -> Result<Vec<PosixRlimit>, GuestError> {
    limits
        .ulimits
        .iter()
        .map(|(name, (soft, hard))| {
            let kind: PosixRlimitType =
                serde_json::from_value(format!("RLIMIT_{}", name.to_uppercase()).into())
                    .map_err(|_| GuestError::Invalid(format!("invalid ulimit type: {name}")))?;
            PosixRlimitBuilder::default()
                .typ(kind)
                .soft(*soft)
                .hard(*hard)
                .build()
                .map_err(|e| GuestError::Invalid(format!("ulimit {name}: {e}")))
        })
        .collect()
}

/// One device rule.
pub fn device_rule(
    allow: bool,
    typ: LinuxDeviceType,
    major: i64,
    minor: i64,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    let number = |n: i64| Some(n).filter(|n| *n >= 0);
    rule.set_allow(allow)
        .set_typ(Some(typ))
        .set_major(number(major))
        .set_minor(number(minor))
        .set_access(Some(access.to_owned()));
    rule
}

/// What every container may do with devices: make nodes, and use the harmless ones, terminals and its own console.
pub fn default_device_rules() -> Vec<LinuxDeviceCgroup> {
    let any = |typ| device_rule(true, typ, -1, -1, "m");
    let mut rules = vec![
        device_rule(false, LinuxDeviceType::A, -1, -1, "rwm"),
        any(LinuxDeviceType::C),
        any(LinuxDeviceType::B),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1)] {
        rules.push(device_rule(true, LinuxDeviceType::C, major, minor, "rwm"));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_resources() {
        assert_eq!(resources(&Limits::default()), LinuxResources::default());
        let r =
            resources(&Limits { memory: 64 << 20, nano_cpus: 1_500_000_000, pids: 9, ..Default::default() });
        assert_eq!(r.memory().unwrap().limit(), Some(64 << 20));
        assert_eq!(r.memory().unwrap().swap(), Some(128 << 20));
        assert_eq!(r.cpu().as_ref().unwrap().quota(), Some(150_000));
        assert_eq!(r.pids().unwrap().limit(), 9);
        let disk =
            DeviceLimits { device: (254, 0), read_bps: 1, write_iops: 2, weight: 300, ..Default::default() };
        let other = DeviceLimits { device: (8, 16), read_bps: 5, ..Default::default() };
        let r = resources(&Limits { io: vec![disk, other], ..Default::default() });
        let io = r.block_io().as_ref().unwrap();
        let numbers = |list: &Option<Vec<LinuxThrottleDevice>>| -> Vec<(i64, i64, u64)> {
            list.iter().flatten().map(|d| (d.major(), d.minor(), d.rate())).collect()
        };
        assert_eq!(numbers(io.throttle_read_bps_device()), [(254, 0, 1), (8, 16, 5)]);
        assert_eq!(numbers(io.throttle_write_iops_device()), [(254, 0, 2)]);
        assert_eq!(*io.throttle_write_bps_device(), None);
        assert_eq!(io.weight_device().as_ref().unwrap()[0].weight(), Some(300));
    }

    #[test]
    fn what_is_not_limited_any_more_is_named() {
        let disk = DeviceLimits { device: (254, 0), read_bps: 1, write_bps: 2, ..Default::default() };
        let before = Limits {
            memory: 64 << 20,
            nano_cpus: 1,
            pids: 9,
            oom_kill_disable: true,
            io: vec![disk.clone()],
            ..Default::default()
        };
        let after =
            Limits { io: vec![DeviceLimits { read_bps: 0, ..disk }], cpu_shares: 7, ..Default::default() };
        let r = changed_resources(&before, &after);
        assert_eq!(r.memory().unwrap().limit(), Some(-1));
        assert_eq!(r.memory().unwrap().disable_oom_killer(), Some(false));
        let cpu = r.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.shares()), (Some(-1), Some(7)));
        assert_eq!(r.pids().unwrap().limit(), 0);
        let io = r.block_io().as_ref().unwrap();
        assert_eq!(io.throttle_read_bps_device().as_ref().unwrap()[0].rate(), 0);
        assert_eq!(io.throttle_write_bps_device().as_ref().unwrap()[0].rate(), 2);
        assert_eq!(changed_resources(&before, &before), resources(&before));
    }

    #[test]
    fn unknown_ulimits_are_named() {
        let limits = Limits { ulimits: [("nofile".to_owned(), (1, 2))].into(), ..Default::default() };
        assert_eq!(rlimits(&limits).unwrap()[0].typ(), PosixRlimitType::RlimitNofile);
        let limits = Limits { ulimits: [("nonsense".to_owned(), (1, 2))].into(), ..Default::default() };
        assert_eq!(rlimits(&limits).unwrap_err().to_string(), "invalid ulimit type: nonsense");
    }
}
