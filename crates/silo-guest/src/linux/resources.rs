//! Limits as the OCI specification writes them.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};

use crate::contract::{GuestError, Limits};

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
    if limits.blkio_weight > 0 {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(limits.blkio_weight));
        resources.set_block_io(Some(io));
    }
    resources
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
    }

    #[test]
    fn unknown_ulimits_are_named() {
        let limits = Limits { ulimits: [("nofile".to_owned(), (1, 2))].into(), ..Default::default() };
        assert_eq!(rlimits(&limits).unwrap()[0].typ(), PosixRlimitType::RlimitNofile);
        let limits = Limits { ulimits: [("nonsense".to_owned(), (1, 2))].into(), ..Default::default() };
        assert_eq!(rlimits(&limits).unwrap_err().to_string(), "invalid ulimit type: nonsense");
    }
}
