//! Who keeps which limit of a container with a machine of its own: the host that of the machine's processes, the VMM that of
//! its disks, the machine's kernel everything else.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxResources, LinuxThrottleDevice};
use silo_runtime::cgroup::Accounting;

/// Processor time that the VMM and the agent may take beside the container's, microseconds of [`PERIOD`]: the container's
/// limit is its machine's to keep, exactly; the host's is for a machine that does not.
const OWN_TIME: i64 = 50_000;
/// Microseconds.
const PERIOD: u64 = 100_000;
/// Shares of a cgroup that is given none.
const SHARES: u64 = 1024;

/// What can be limited here: a host's memory and tasks are not what such a container uses.
pub(crate) fn accounting(host: &Accounting) -> Accounting {
    Accounting {
        memory: true,
        swap: true,
        reservation: true,
        pids: true,
        cpu_quota: true,
        read_bps: true,
        write_bps: true,
        read_iops: true,
        write_iops: true,
        // Its kernel has cgroups of version 2.
        swappiness: false,
        oom_control: false,
        ..*host
    }
}

/// What the VMM lets through to the disks in a second, all of them together; 0: everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) read_bytes: u64,
    pub(crate) write_bytes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

/// A container's limits, by who keeps them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shares {
    /// Of the VMM's processes, while the machine starts.
    pub(crate) host: LinuxResources,
    /// The VMM's.
    pub(crate) rates: Rates,
    /// The machine's kernel's.
    pub(crate) inside: LinuxResources,
    /// Processor time of the VMM's processes once the container runs: (quota, period).
    time: (i64, u64),
}

impl Shares {
    /// `disk`: major and minor number of the disk that the machine's disks are files on; no other is used by it.
    pub(crate) fn of(resources: &LinuxResources, disk: Option<(u32, u32)>) -> Self {
        let mut shares = Self { inside: inside(resources), time: (-1, PERIOD), ..Self::default() };
        if let Some(cpu) = resources.cpu() {
            let mut host = LinuxCpu::default();
            host.set_shares(Some(cpu.shares().filter(|s| *s > 0).unwrap_or(SHARES)));
            host.set_cpus(cpu.cpus().clone()).set_mems(cpu.mems().clone());
            shares.host.set_cpu(Some(host));
            if let Some(quota) = cpu.quota().filter(|q| *q > 0) {
                let period = cpu.period().filter(|p| *p > 0).unwrap_or(PERIOD);
                let time = i128::from(quota) * i128::from(PERIOD) / i128::from(period);
                shares.time.0 = i64::try_from(time).unwrap_or(i64::MAX - OWN_TIME) + OWN_TIME;
            }
        }
        if let Some(io) = resources.block_io() {
            let mut weights = LinuxBlockIo::default();
            weights.set_weight(io.weight()).set_weight_device(io.weight_device().clone());
            shares.host.set_block_io(Some(weights).filter(|w| *w != LinuxBlockIo::default()));
            let disk = disk.map(|(major, minor)| (i64::from(major), i64::from(minor)));
            let rate = |list: &Option<Vec<LinuxThrottleDevice>>| {
                let of_disk = list.iter().flatten().filter(|d| Some((d.major(), d.minor())) == disk);
                of_disk.map(LinuxThrottleDevice::rate).filter(|r| *r > 0).min().unwrap_or(0)
            };
            shares.rates = Rates {
                read_bytes: rate(io.throttle_read_bps_device()),
                write_bytes: rate(io.throttle_write_bps_device()),
                reads: rate(io.throttle_read_iops_device()),
                writes: rate(io.throttle_write_iops_device()),
            };
        }
        shares
    }

    /// The host's share once the container runs.
    pub(crate) fn of_running(&self) -> LinuxResources {
        let mut all = self.host.clone();
        let mut cpu = all.cpu().clone().unwrap_or_default();
        cpu.set_quota(Some(self.time.0)).set_period(Some(self.time.1));
        all.set_cpu(Some(cpu));
        all
    }
}

/// What the machine's kernel keeps. The host's processors, disks and real-time classes are not its own.
pub(crate) fn inside(resources: &LinuxResources) -> LinuxResources {
    let mut inside = resources.clone();
    if let Some(mut cpu) = inside.cpu().clone() {
        cpu.set_cpus(None).set_mems(None).set_realtime_period(None).set_realtime_runtime(None);
        inside.set_cpu(Some(cpu));
    }
    inside.set_block_io(None);
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_who_keeps_it() {
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({
            "memory": {"limit": 100}, "pids": {"limit": 7},
            "cpu": {"shares": 512, "quota": 25000, "period": 50000, "cpus": "1", "realtimeRuntime": 5},
            "blockIO": {"weight": 300,
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 254, "minor": 0, "rate": 2}],
                "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 3}]},
        }))
        .unwrap();
        let shares = Shares::of(&resources, Some((254, 0)));
        assert_eq!(shares.rates, Rates { read_bytes: 2, writes: 3, ..Default::default() });
        assert_eq!(Shares::of(&resources, None).rates, Rates::default());
        let cpu = shares.host.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.cpus().as_deref(), cpu.quota()), (Some(512), Some("1"), None));
        assert_eq!(shares.host.block_io().as_ref().unwrap().weight(), Some(300));
        assert!(shares.host.memory().is_none() && shares.host.pids().is_none());
        let running = shares.of_running();
        assert_eq!(running.cpu().as_ref().unwrap().quota(), Some(50_000 + OWN_TIME));
        let cpu = shares.inside.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.cpus(), cpu.realtime_runtime()), (Some(25_000), &None, None));
        assert!(shares.inside.block_io().is_none() && shares.inside.pids().is_some());
        let free = Shares::of(&LinuxResources::default(), None).of_running();
        assert_eq!(free.cpu().as_ref().unwrap().quota(), Some(-1));
    }
}
