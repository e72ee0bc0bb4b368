//! cgroup v1: one directory in each hierarchy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::files::{self, Changes};
use crate::protocol::Stats;

const FREEZE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct V1 {
    /// (controller, hierarchy's mount point).
    mounts: Vec<(String, PathBuf)>,
    path: String,
}

impl V1 {
    pub(super) fn new(mounts: Vec<(String, PathBuf)>, path: &str) -> Self {
        Self { mounts, path: path.to_owned() }
    }

    fn dir(&self, controller: &str) -> Option<PathBuf> {
        self.mounts.iter().find(|(c, _)| c == controller).map(|(_, m)| m.join(&self.path))
    }

    /// Directories, each once (hierarchies may hold several controllers).
    fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.mounts.iter().map(|(_, m)| m.join(&self.path)).collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    pub(super) fn create(&self, resources: Option<&LinuxResources>) -> io::Result<()> {
        for (controller, mount) in &self.mounts {
            // A cpuset starts without processors and memory nodes and refuses tasks until they are copied down.
            if controller == "cpuset" {
                let mut dir = mount.clone();
                for part in self.path.split('/') {
                    let parent = dir.clone();
                    dir.push(part);
                    make(&dir)?;
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        if files::read(&dir, file).trim().is_empty() {
                            files::write(&dir, file, files::read(&parent, file).trim())?;
                        }
                    }
                }
            } else {
                make_all(&mount.join(&self.path))?;
            }
        }
        match resources {
            Some(resources) => {
                self.devices(resources.devices().as_deref().unwrap_or(&[]))?;
                self.update(resources)
            }
            None => Ok(()),
        }
    }

    /// Takes the place of `other` with all its processes, in all hierarchies or in none; whether it could. What was limited
    /// there and is not named by a later [`V1::create`] is as in a new one.
    pub(super) fn succeed(&self, other: &Self) -> bool {
        let pairs: Vec<(PathBuf, PathBuf)> = other.dirs().into_iter().zip(self.dirs()).collect();
        for (done, (from, to)) in pairs.iter().enumerate() {
            if std::fs::rename(from, to).is_err() {
                for (from, to) in &pairs[..done] {
                    // Its processes are moved one by one then, from wherever they are.
                    let _ = std::fs::rename(to, from);
                }
                return false;
            }
        }
        // What was used so far was nobody's. A kernel that does not forget it counts on.
        let counted = [
            ("cpuacct", "cpuacct.usage", "0"),
            ("memory", "memory.max_usage_in_bytes", "0"),
            ("memory", "memory.failcnt", "0"),
            ("blkio", "blkio.reset_stats", "1"),
        ];
        for (controller, file, forget) in counted {
            let _ = self.dir(controller).map(|dir| files::write(&dir, file, forget));
        }
        const DEFAULT_SHARES: &str = "1024";
        self.dir("cpu").is_none_or(|dir| files::write(&dir, "cpu.shares", DEFAULT_SHARES).is_ok())
    }

    fn devices(&self, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
        let Some(dir) = self.dir("devices") else { return Ok(()) };
        for rule in rules {
            let kind = match rule.typ() {
                Some(LinuxDeviceType::B) => "b",
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
                _ => "a",
            };
            let part = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
            let access = rule.access().clone().unwrap_or_else(|| "rwm".into());
            let text = format!("{kind} {}:{} {access}", part(rule.major()), part(rule.minor()));
            files::write(&dir, if rule.allow() { "devices.allow" } else { "devices.deny" }, &text)?;
        }
        Ok(())
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> io::Result<()> {
        let mut changes = Changes::default();
        let result = self.change(&mut changes, resources);
        changes.settle(result)
    }

    fn change(&self, to: &mut Changes, resources: &LinuxResources) -> io::Result<()> {
        if let (Some(memory), Some(dir)) = (resources.memory(), self.dir("memory")) {
            change_memory(to, &dir, memory)?;
        }
        if let (Some(cpu), Some(dir)) = (resources.cpu(), self.dir("cpu")) {
            change_cpu(to, &dir, cpu)?;
        }
        if let (Some(cpu), Some(dir)) = (resources.cpu(), self.dir("cpuset")) {
            if let Some(cpus) = cpu.cpus().as_ref().filter(|c| !c.is_empty()) {
                to.write(&dir, "cpuset.cpus", cpus)?;
            }
            if let Some(mems) = cpu.mems().as_ref().filter(|m| !m.is_empty()) {
                to.write(&dir, "cpuset.mems", mems)?;
            }
        }
        if let (Some(pids), Some(dir)) = (resources.pids(), self.dir("pids")) {
            let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
            to.write(&dir, "pids.max", &value)?;
        }
        if let (Some(io), Some(dir)) = (resources.block_io(), self.dir("blkio")) {
            change_io(to, &dir, io)?;
        }
        Ok(())
    }

    pub(super) fn add(&self, pid: i32) -> io::Result<()> {
        let pid = pid.to_string();
        self.dirs().iter().try_for_each(|dir| files::write(dir, "cgroup.procs", &pid))
    }

    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        let dir = self.dir("freezer").ok_or_else(|| io::Error::other("this host has no freezer cgroup"))?;
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        let end = Instant::now() + FREEZE_LIMIT;
        loop {
            files::write(&dir, "freezer.state", wanted)?;
            if files::read(&dir, "freezer.state").trim() == wanted {
                return Ok(());
            }
            if Instant::now() > end {
                let _ = files::write(&dir, "freezer.state", "THAWED");
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("cgroup did not become {wanted} in 2 s"),
                ));
            }
            // v1 has no notification of FREEZING → FROZEN.
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    pub(super) fn pids(&self) -> io::Result<Vec<i32>> {
        match self.dirs().first() {
            Some(dir) => files::pids(dir),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.dir("memory").map_or(0, |d| files::keyed(&files::read(&d, "memory.oom_control"), "oom_kill"))
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        /// Nanoseconds of a clock tick (USER_HZ is 100 on every Linux ABI).
        const TICK: u64 = 10_000_000;
        if let Some(dir) = self.dir("cpuacct") {
            stats.cpu_total = files::number(&dir, "cpuacct.usage");
            stats.cpu_percpu = files::read(&dir, "cpuacct.usage_percpu")
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            let text = files::read(&dir, "cpuacct.stat");
            stats.cpu_user = files::keyed(&text, "user") * TICK;
            stats.cpu_system = files::keyed(&text, "system") * TICK;
        }
        if let Some(dir) = self.dir("cpu") {
            let text = files::read(&dir, "cpu.stat");
            stats.throttling_periods = files::keyed(&text, "nr_periods");
            stats.throttled_periods = files::keyed(&text, "nr_throttled");
            stats.throttled_time = files::keyed(&text, "throttled_time");
        }
        if let Some(dir) = self.dir("memory") {
            stats.memory_usage = files::number(&dir, "memory.usage_in_bytes");
            stats.memory_max_usage = files::number(&dir, "memory.max_usage_in_bytes");
            stats.memory_limit = files::number(&dir, "memory.limit_in_bytes");
            stats.memory_failcnt = files::number(&dir, "memory.failcnt");
            stats.memory_stats = key_values(&files::read(&dir, "memory.stat"));
        }
        if let Some(dir) = self.dir("pids") {
            stats.pids_current = files::number(&dir, "pids.current");
            stats.pids_limit = Some(files::number(&dir, "pids.max")).filter(|n| *n != u64::MAX).unwrap_or(0);
        }
        if let Some(dir) = self.dir("blkio") {
            stats.io_service_bytes =
                io_table(&files::read(&dir, "blkio.throttle.io_service_bytes_recursive"));
            stats.io_serviced = io_table(&files::read(&dir, "blkio.throttle.io_serviced_recursive"));
        }
    }

    pub(super) fn destroy(&self) -> io::Result<()> {
        if self.dir("freezer").is_some_and(|d| files::read(&d, "freezer.state").trim() != "THAWED") {
            let _ = self.freeze(false);
        }
        self.dirs().iter().try_for_each(|dir| files::remove(dir))
    }

    pub(super) fn hand_over(&self, own: &[i32]) -> io::Result<()> {
        self.dirs().iter().try_for_each(|dir| files::hand_over(dir, own))
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(e.kind(), format!("making cgroup {}: {e}", dir.display())))
        }
        _ => Ok(()),
    }
}

fn make_all(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|e| io::Error::new(e.kind(), format!("making cgroup {}: {e}", dir.display())))
}

fn change_memory(to: &mut Changes, dir: &Path, memory: &LinuxMemory) -> io::Result<()> {
    let swap_file = "memory.memsw.limit_in_bytes";
    let has_swap = dir.join(swap_file).exists();
    let limit = memory.limit().filter(|l| *l != 0);
    let swap = memory.swap().filter(|s| *s != 0 && has_swap);
    // The kernel keeps limit <= memory+swap at every moment: raise the outer one first, lower the inner one first.
    let raising_swap = swap.is_some_and(|s| s < 0 || s as u64 > files::number(dir, swap_file));
    if let (Some(swap), true) = (swap, raising_swap) {
        to.write(dir, swap_file, &swap.to_string())?;
    }
    if let Some(limit) = limit {
        to.write(dir, "memory.limit_in_bytes", &limit.to_string())?;
    }
    if let (Some(swap), false) = (swap, raising_swap) {
        to.write(dir, swap_file, &swap.to_string())?;
    }
    if let Some(reservation) = memory.reservation().filter(|r| *r != 0) {
        to.write(dir, "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(swappiness) = memory.swappiness() {
        to.write(dir, "memory.swappiness", &swappiness.to_string())?;
    }
    // Its text is more than what is written to it, and nothing is written after it that could fail.
    if let Some(disable) = memory.disable_oom_killer() {
        files::write(dir, "memory.oom_control", if disable { "1" } else { "0" })?;
    }
    Ok(())
}

fn change_cpu(to: &mut Changes, dir: &Path, cpu: &LinuxCpu) -> io::Result<()> {
    if let Some(shares) = cpu.shares().filter(|s| *s > 0) {
        to.write(dir, "cpu.shares", &shares.to_string())?;
    }
    if let Some(period) = cpu.realtime_period() {
        to.write(dir, "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        to.write(dir, "cpu.rt_runtime_us", &runtime.to_string())?;
    }
    let period = cpu.period().filter(|p| *p > 0).map(|p| p.to_string());
    let quota = cpu.quota().filter(|q| *q != 0).map(|q| q.to_string());
    // A new period with the old quota may be more than a parent cgroup has: then the quota comes first.
    let early = match &period {
        Some(period) if to.write(dir, "cpu.cfs_period_us", period).is_err() => quota.is_some(),
        _ => false,
    };
    if let Some(quota) = &quota {
        to.write(dir, "cpu.cfs_quota_us", quota)?;
    }
    match period {
        Some(period) if early || quota.is_none() => to.write(dir, "cpu.cfs_period_us", &period),
        _ => Ok(()),
    }
}

fn change_io(to: &mut Changes, dir: &Path, io: &LinuxBlockIo) -> io::Result<()> {
    let bfq = if dir.join("blkio.bfq.weight").exists() { "blkio.bfq" } else { "blkio" };
    if let Some(weight) = io.weight().filter(|w| *w > 0) {
        to.write(dir, &format!("{bfq}.weight"), &weight.to_string())?;
    }
    for d in io.weight_device().iter().flatten() {
        let weight = d.weight().unwrap_or_default().to_string();
        to.write_device(dir, &format!("{bfq}.weight_device"), (d.major(), d.minor()), &weight, "default")?;
    }
    for (file, list) in [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
    ] {
        for d in list.iter().flatten() {
            to.write_device(dir, file, (d.major(), d.minor()), &d.rate().to_string(), "0")?;
        }
    }
    Ok(())
}

/// What this host's hierarchies can limit. The root cgroup tells, where it has the file; what it has not any cgroup below it
/// has, if there is the controller.
pub(super) fn accounting(mounts: &[(String, PathBuf)]) -> super::accounting::Accounting {
    let root = |name: &str| mounts.iter().find(|(n, _)| n == name).map(|(_, at)| at.clone());
    let has = |name: &str, file: &str| root(name).is_some_and(|at| at.join(file).exists());
    // Weights are not in the root cgroup.
    let below = |name: &str, file: &str| {
        let at = root(name);
        let dirs = at.into_iter().flat_map(|at| std::fs::read_dir(at).into_iter().flatten().flatten());
        dirs.map(|e| e.path()).any(|dir| dir.join(file).exists())
    };
    let weighs = |file: &str| {
        below("blkio", &format!("blkio.{file}"))
            || below("blkio", &format!("blkio.bfq.{file}")) && files::some_disk_weighs()
    };
    super::accounting::Accounting {
        memory: has("memory", "memory.limit_in_bytes"),
        swap: has("memory", "memory.memsw.limit_in_bytes"),
        reservation: has("memory", "memory.soft_limit_in_bytes"),
        swappiness: has("memory", "memory.swappiness"),
        oom_control: has("memory", "memory.oom_control"),
        pids: root("pids").is_some(),
        cpu_shares: has("cpu", "cpu.shares"),
        cpu_quota: has("cpu", "cpu.cfs_quota_us"),
        cpuset: root("cpuset").is_some(),
        io_weight: weighs("weight"),
        io_weight_device: weighs("weight_device"),
        read_bps: has("blkio", "blkio.throttle.read_bps_device"),
        write_bps: has("blkio", "blkio.throttle.write_bps_device"),
        read_iops: has("blkio", "blkio.throttle.read_iops_device"),
        write_iops: has("blkio", "blkio.throttle.write_iops_device"),
    }
}

pub(super) fn key_values(text: &str) -> std::collections::BTreeMap<String, u64> {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

/// `8:0 Read 4096` lines.
fn io_table(text: &str) -> Vec<(u64, u64, String, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.split_whitespace();
            let (major, minor) = parts.next()?.split_once(':')?;
            let operation = parts.next()?.to_owned();
            Some((major.parse().ok()?, minor.parse().ok()?, operation, parts.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose hierarchies are files in a directory.
    fn pretended(dir: &Path) -> V1 {
        let mounts = ["memory", "cpu", "cpuset", "pids", "blkio"]
            .map(|name| {
                std::fs::create_dir_all(dir.join(name).join("g")).unwrap();
                (name.to_owned(), dir.join(name))
            })
            .to_vec();
        V1::new(mounts, "g")
    }

    #[test]
    fn every_limit_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let group = pretended(dir.path());
        let put = |file: &str, text: &str| {
            let controller = file.split('.').next().unwrap();
            std::fs::write(dir.path().join(controller).join("g").join(file), text).unwrap();
        };
        let see = |file: &str| files::read(&dir.path().join(file.split('.').next().unwrap()).join("g"), file);
        let all = "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.soft_limit_in_bytes cpu.shares \
                   cpu.cfs_quota_us cpu.cfs_period_us cpuset.cpus cpuset.mems pids.max blkio.weight \
                   blkio.weight_device blkio.throttle.read_bps_device blkio.throttle.write_bps_device \
                   blkio.throttle.read_iops_device blkio.throttle.write_iops_device";
        all.split_whitespace().for_each(|file| put(file, ""));
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({
            "memory": {"limit": 100, "swap": 200, "reservation": 50},
            "cpu": {"shares": 512, "quota": 5000, "period": 10000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {
                "weight": 300, "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
            },
        }))
        .unwrap();
        group.update(&resources).unwrap();
        let wanted = [
            "100", "200", "50", "512", "5000", "10000", "0-1", "0", "7", "300", "8:0 200", "8:0 1", "8:0 2",
            "8:0 3", "8:0 4",
        ];
        for (file, wanted) in all.split_whitespace().zip(wanted) {
            assert_eq!(see(file), wanted, "{file}");
        }
        // The last of them cannot be written: none is.
        std::fs::remove_file(dir.path().join("blkio/g/blkio.throttle.write_iops_device")).unwrap();
        let other = serde_json::json!({"memory": {"limit": 90}, "cpu": {"quota": 7000}, "pids": {"limit": 8},
            "blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]}});
        let other: LinuxResources = serde_json::from_value(other).unwrap();
        assert!(group.update(&other).unwrap_err().to_string().contains("write_iops_device"));
        for (file, wanted) in all.split_whitespace().zip(wanted).take(9) {
            assert_eq!(&see(file)[..wanted.len()], wanted, "{file}");
        }
    }

    #[test]
    fn io_tables() {
        let table = io_table("254:0 Read 4096\n254:0 Total 4096\nTotal 4096\n");
        assert_eq!(table, [(254, 0, "Read".into(), 4096), (254, 0, "Total".into(), 4096)]);
    }
}
