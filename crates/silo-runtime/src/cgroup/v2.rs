//! cgroup v2: one directory, controllers switched on from the root down.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxBlockIo, LinuxMemory, LinuxResources};

use super::files::Changes;
use super::{device_filter, files, v1};
use crate::protocol::Stats;

const FREEZE_LIMIT: Duration = Duration::from_secs(2);
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids", "io"];

#[derive(Debug)]
pub(super) struct V2 {
    mount: PathBuf,
    path: String,
    dir: PathBuf,
}

impl V2 {
    pub(super) fn new(mount: PathBuf, path: &str) -> Self {
        let dir = mount.join(path);
        Self { mount, path: path.to_owned(), dir }
    }

    pub(super) fn create(&self, resources: Option<&LinuxResources>) -> io::Result<()> {
        let mut dir = self.mount.clone();
        for part in self.path.split('/') {
            enable(&dir);
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io::Error::new(e.kind(), format!("making cgroup {}: {e}", dir.display())));
                }
                _ => {}
            }
        }
        let Some(resources) = resources else { return Ok(()) };
        device_filter::attach(&self.entry()?, resources.devices().as_deref().unwrap_or(&[]))?;
        self.update(resources)
    }

    pub(super) fn entry(&self) -> io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.dir, flags, Mode::empty())?)
    }

    pub(super) fn update(&self, resources: &LinuxResources) -> io::Result<()> {
        let mut changes = Changes::default();
        let result = change(&mut changes, &self.dir, resources);
        changes.settle(result)
    }

    pub(super) fn add(&self, pid: i32) -> io::Result<()> {
        files::write(&self.dir, "cgroup.procs", &pid.to_string())
    }

    pub(super) fn freeze(&self, frozen: bool) -> io::Result<()> {
        files::write(&self.dir, "cgroup.freeze", if frozen { "1" } else { "0" })?;
        let end = Instant::now() + FREEZE_LIMIT;
        while files::keyed(&files::read(&self.dir, "cgroup.events"), "frozen") != u64::from(frozen) {
            if Instant::now() > end {
                let _ = files::write(&self.dir, "cgroup.freeze", "0");
                return Err(io::Error::new(io::ErrorKind::TimedOut, "cgroup did not freeze in 2 s"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    pub(super) fn pids(&self) -> io::Result<Vec<i32>> {
        files::pids(&self.dir)
    }

    pub(super) fn oom_kills(&self) -> u64 {
        files::keyed(&files::read(&self.dir, "memory.events"), "oom_kill")
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        let dir = &self.dir;
        let cpu = files::read(dir, "cpu.stat");
        stats.cpu_total = files::keyed(&cpu, "usage_usec") * 1000;
        stats.cpu_user = files::keyed(&cpu, "user_usec") * 1000;
        stats.cpu_system = files::keyed(&cpu, "system_usec") * 1000;
        stats.throttling_periods = files::keyed(&cpu, "nr_periods");
        stats.throttled_periods = files::keyed(&cpu, "nr_throttled");
        stats.throttled_time = files::keyed(&cpu, "throttled_usec") * 1000;
        stats.memory_usage = files::number(dir, "memory.current");
        // Kernels before 5.19 do not keep it.
        stats.memory_max_usage = files::number(dir, "memory.peak");
        stats.memory_limit = files::number(dir, "memory.max");
        stats.memory_stats = v1::key_values(&files::read(dir, "memory.stat"));
        stats.memory_failcnt = files::keyed(&files::read(dir, "memory.events"), "max");
        stats.pids_current = files::number(dir, "pids.current");
        stats.pids_limit = Some(files::number(dir, "pids.max")).filter(|n| *n != u64::MAX).unwrap_or(0);
        for line in files::read(dir, "io.stat").lines() {
            let mut parts = line.split_whitespace();
            let Some((major, minor)) = parts.next().and_then(|d| d.split_once(':')) else { continue };
            let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
            for (key, value) in parts.filter_map(|p| p.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                let (table, operation) = match key {
                    "rbytes" => (&mut stats.io_service_bytes, "read"),
                    "wbytes" => (&mut stats.io_service_bytes, "write"),
                    "rios" => (&mut stats.io_serviced, "read"),
                    "wios" => (&mut stats.io_serviced, "write"),
                    _ => continue,
                };
                table.push((major, minor, operation.to_owned(), value));
            }
        }
    }

    pub(super) fn destroy(&self) -> io::Result<()> {
        if files::write(&self.dir, "cgroup.kill", "1").is_ok() {
            let _ = files::write(&self.dir, "cgroup.freeze", "0");
        }
        files::remove(&self.dir)
    }

    pub(super) fn hand_over(&self, own: &[i32]) -> io::Result<()> {
        files::hand_over(&self.dir, own)
    }
}

fn change(to: &mut Changes, dir: &Path, resources: &LinuxResources) -> io::Result<()> {
    if let Some(memory) = resources.memory() {
        change_memory(to, dir, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|s| *s > 0) {
            to.write(dir, "cpu.weight", &weight_of_shares(shares).to_string())?;
        }
        if cpu.quota().is_some_and(|q| q != 0) || cpu.period().is_some_and(|p| p != 0) {
            let quota = cpu.quota().filter(|q| *q > 0).map_or("max".to_owned(), |q| q.to_string());
            let period = cpu.period().filter(|p| *p > 0).unwrap_or(100_000);
            to.write(dir, "cpu.max", &format!("{quota} {period}"))?;
        }
        if let Some(cpus) = cpu.cpus().as_ref().filter(|c| !c.is_empty()) {
            to.write(dir, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = cpu.mems().as_ref().filter(|m| !m.is_empty()) {
            to.write(dir, "cpuset.mems", mems)?;
        }
    }
    if let Some(pids) = resources.pids() {
        let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
        to.write(dir, "pids.max", &value)?;
    }
    resources.block_io().as_ref().map_or(Ok(()), |io| change_io(to, dir, io))
}

fn change_memory(to: &mut Changes, dir: &Path, memory: &LinuxMemory) -> io::Result<()> {
    let bytes = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    let limit = memory.limit().filter(|l| *l != 0);
    if let Some(limit) = limit {
        // v1 refuses a limit below what is in use; v2 would kill for it.
        let stat = files::read(dir, "memory.stat");
        let kept = files::keyed(&stat, "anon") + files::keyed(&stat, "shmem");
        let swaps = files::number(dir, "memory.swap.max") > 0 && files::kernel_swaps();
        if limit > 0 && kept > limit as u64 && !swaps {
            let why = format!("memory limit {limit} is below the {kept} bytes that are in use");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        to.write(dir, "memory.max", &bytes(limit))?;
    }
    // v1 counts memory and swap together, v2 swap alone.
    if let Some(swap) = memory.swap().filter(|s| *s != 0) {
        let value = match (swap, limit) {
            (s, _) if s < 0 => "max".to_owned(),
            (s, Some(l)) if l > 0 => (s - l).max(0).to_string(),
            (s, _) => s.to_string(),
        };
        if dir.join("memory.swap.max").exists() {
            to.write(dir, "memory.swap.max", &value)?;
        }
    }
    if let Some(reservation) = memory.reservation().filter(|r| *r != 0) {
        // What is protected: without a bound that would be everything.
        to.write(dir, "memory.low", &reservation.max(0).to_string())?;
    }
    Ok(())
}

fn change_io(to: &mut Changes, dir: &Path, io: &LinuxBlockIo) -> io::Result<()> {
    let bfq = dir.join("io.bfq.weight").exists();
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let scaled = |weight: u16| if bfq { u64::from(weight) } else { io_weight(weight) };
    if let Some(weight) = io.weight().filter(|w| *w > 0) {
        let before = files::keyed(&files::read(dir, file), "default").max(1);
        to.write_as(dir, file, &format!("default {}", scaled(weight)), &format!("default {before}"))?;
    }
    for d in io.weight_device().iter().flatten() {
        let weight = scaled(d.weight().unwrap_or_default()).to_string();
        to.write_device(dir, file, (d.major(), d.minor()), &weight, "default")?;
    }
    for (key, list) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        for d in list.iter().flatten() {
            // 0 takes a limit away, as in v1.
            let rate = if d.rate() == 0 { "max".to_owned() } else { d.rate().to_string() };
            let value = format!("{key}={rate}");
            to.write_device(dir, "io.max", (d.major(), d.minor()), &value, &format!("{key}=max"))?;
        }
    }
    Ok(())
}

/// Weight of v2 (1–10,000) for one of v1 (10–1,000), as the OCI runtime specification's peers convert it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

/// What this host's hierarchy can limit: its root tells by its controllers, and by the files of what is below it.
pub(super) fn accounting(mount: &Path) -> super::accounting::Accounting {
    let controllers = files::read(mount, "cgroup.controllers");
    let has = |name: &str| controllers.split_whitespace().any(|c| c == name);
    let below: Vec<PathBuf> =
        std::fs::read_dir(mount).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let file = |name: &str| below.iter().any(|dir| dir.join(name).exists());
    // Nobody has made one yet: the kernel tells.
    let swap = if file("memory.max") {
        file("memory.swap.max")
    } else {
        has("memory") && Path::new("/proc/swaps").exists()
    };
    let weighs = file("io.weight") || file("io.bfq.weight") && files::some_disk_weighs();
    super::accounting::Accounting {
        memory: has("memory"),
        swap,
        reservation: has("memory"),
        swappiness: false,
        oom_control: false,
        pids: has("pids"),
        cpu_shares: has("cpu"),
        cpu_quota: has("cpu"),
        cpuset: has("cpuset"),
        io_weight: weighs,
        io_weight_device: weighs,
        read_bps: has("io"),
        write_bps: has("io"),
        read_iops: has("io"),
        write_iops: has("io"),
    }
}

/// Switches on, for the children of `dir`, each controller that it has; one that cannot be is a limit that will
/// be refused when it is asked for.
fn enable(dir: &Path) {
    let available = files::read(dir, "cgroup.controllers");
    let enabled = files::read(dir, "cgroup.subtree_control");
    for controller in CONTROLLERS {
        let has = |text: &str| text.split_whitespace().any(|c| c == *controller);
        if has(&available) && !has(&enabled) {
            let _ = files::write(dir, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// CPU weight of v2 (1–10,000) for shares of v1 (2–262,144), as the OCI runtime specification's peers convert it.
fn weight_of_shares(shares: u64) -> u64 {
    if shares == 0 { 0 } else { 1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        assert_eq!(weight_of_shares(0), 0);
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
    }

    #[test]
    fn weights_of_disks() {
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn every_limit_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g");
        std::fs::create_dir(&path).unwrap();
        let group = V2::new(dir.path().to_owned(), "g");
        let all = "memory.max memory.swap.max memory.low cpu.weight cpu.max cpuset.cpus cpuset.mems pids.max \
                   io.weight io.max memory.stat";
        all.split_whitespace().for_each(|file| std::fs::write(path.join(file), "").unwrap());
        let of = |value: serde_json::Value| serde_json::from_value::<LinuxResources>(value).unwrap();
        let resources = of(serde_json::json!({
            "memory": {"limit": 100, "swap": 250, "reservation": 50},
            "cpu": {"shares": 1024, "quota": 5000, "period": 10000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 1000, "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}]},
        }));
        group.update(&resources).unwrap();
        let wanted = ["100", "150", "50", "39", "5000 10000", "0-1", "0", "7", "default 10000", "8:0 wbps=2"];
        for (file, wanted) in all.split_whitespace().zip(wanted) {
            assert_eq!(files::read(&path, file), wanted, "{file}");
        }
        // None of them: quota and throttle are taken away, memory is not to be limited, pids neither.
        std::fs::write(path.join("io.max"), "").unwrap();
        let none = of(serde_json::json!({
            "memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1},
            "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]},
        }));
        group.update(&none).unwrap();
        for (file, wanted) in [
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
        ] {
            assert_eq!(&files::read(&path, file)[..wanted.len()], wanted, "{file}");
        }
        assert_eq!(files::read(&path, "io.max"), "8:0 riops=max");
        // Less than what is in use, and not to be swapped out.
        std::fs::write(path.join("memory.stat"), "anon 4000\nshmem 96\n").unwrap();
        std::fs::write(path.join("memory.swap.max"), "0").unwrap();
        let error = group.update(&of(serde_json::json!({"memory": {"limit": 4095}}))).unwrap_err();
        assert!(error.to_string().contains("4096 bytes that are in use"), "{error}");
    }
}
