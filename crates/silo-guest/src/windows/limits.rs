//! What makes a container's limits visible to Windows programs: the files that Wine and its libraries read, with the
//! limited values in them.
//!
//! Processors: Wine reads `/sys/devices/system/{cpu,node}`; the container gets a copy of the first ones. That also
//! keeps the rest of the host's `/sys` out. Memory: `/proc/meminfo` with the limit as total; and, for what comes from
//! system calls instead (`sysinfo`, the number of processors), variables for `inside/windows/limits`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::contract::{GuestError, Limits};

/// Files of one processor that Wine reads.
const TOPOLOGY: &[&str] = &[
    "topology/core_id",
    "topology/physical_package_id",
    "topology/thread_siblings",
    "topology/thread_siblings_list",
    "topology/core_siblings",
    "topology/core_siblings_list",
    "topology/core_cpus_list",
    "topology/package_cpus_list",
    "cpufreq/cpuinfo_max_freq",
    "cpufreq/base_frequency",
    "cpufreq/scaling_cur_freq",
];
/// Files of one of its caches.
const CACHE: &[&str] = &[
    "level",
    "type",
    "size",
    "coherency_line_size",
    "ways_of_associativity",
    "shared_cpu_map",
    "shared_cpu_list",
    "number_of_sets",
];

/// What was made for one container.
pub(super) struct Visible {
    /// Directory that shows at `/sys`.
    pub(super) sys: PathBuf,
    /// File that shows at `/proc/meminfo`, if memory is limited.
    pub(super) meminfo: Option<PathBuf>,
    /// Variables for the limits library, `NAME=value`.
    pub(super) env: Vec<String>,
}

/// Writes the files below `dir`.
pub(super) fn write(limits: &Limits, dir: &Path) -> Result<Visible, GuestError> {
    let processors = processors(limits, online());
    let sys = dir.join("sys");
    let error = |path: &Path| {
        let doing = format!("showing limits in {}", path.display());
        move |source| GuestError::Io { doing, source }
    };
    write_processors(&sys, processors).map_err(error(&sys))?;
    let mut env = Vec::new();
    if processors < online() {
        env.push(format!("SILO_PROCESSORS={processors}"));
    }
    let host = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let meminfo = match limited_meminfo(&host, limits.memory) {
        Some(text) => {
            let path = dir.join("meminfo");
            fs::write(&path, text).map_err(error(&path))?;
            env.push(format!("SILO_MEMORY={}", limits.memory));
            Some(path)
        }
        None => None,
    };
    Ok(Visible { sys, meminfo, env })
}

/// How many processors a container sees: no more than there are, a quota rounded up.
fn processors(limits: &Limits, online: usize) -> usize {
    let quota = if limits.nano_cpus > 0 {
        limits.nano_cpus.div_ceil(1_000_000_000) as usize
    } else if limits.cpu_quota > 0 {
        let period = if limits.cpu_period > 0 { limits.cpu_period } else { 100_000 };
        (limits.cpu_quota as u64).div_ceil(period) as usize
    } else {
        online
    };
    let set = if limits.cpuset_cpus.is_empty() { online } else { listed(&limits.cpuset_cpus) };
    quota.min(set).clamp(1, online.max(1))
}

/// Length of a list such as `0-2,5`.
fn listed(list: &str) -> usize {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.trim().parse::<usize>().ok()?.saturating_sub(first.trim().parse().ok()?) + 1)
        })
        .sum()
}

fn online() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    listed(text.trim()).max(1)
}

fn write_processors(sys: &Path, count: usize) -> io::Result<()> {
    let host = Path::new("/sys/devices/system/cpu");
    let cpus = sys.join("devices/system/cpu");
    let list = if count == 1 { "0\n".to_owned() } else { format!("0-{}\n", count - 1) };
    fs::create_dir_all(&cpus)?;
    for name in ["online", "present", "possible"] {
        fs::write(cpus.join(name), &list)?;
    }
    for i in 0..count {
        let name = format!("cpu{i}");
        copy(&host.join(&name), &cpus.join(&name), TOPOLOGY)?;
        for entry in fs::read_dir(host.join(&name).join("cache")).into_iter().flatten().flatten() {
            let index = Path::new("cache").join(entry.file_name());
            copy(&host.join(&name).join(&index), &cpus.join(&name).join(&index), CACHE)?;
        }
    }
    let node = sys.join("devices/system/node/node0");
    fs::create_dir_all(&node)?;
    fs::write(sys.join("devices/system/node/online"), "0\n")?;
    fs::write(node.join("cpulist"), &list)?;
    let mask = format!("{:x}\n", (1u128 << count.min(127)) - 1);
    fs::write(node.join("cpumap"), mask)
}

/// Copies those of `files` that the host has.
fn copy(from: &Path, to: &Path, files: &[&str]) -> io::Result<()> {
    for file in files {
        let Ok(content) = fs::read(from.join(file)) else { continue };
        let target = to.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(target, content)?;
    }
    Ok(())
}

/// The host's `/proc/meminfo` for a container with `limit` bytes; `None`: not limited, or not below what there is.
fn limited_meminfo(host: &str, limit: u64) -> Option<String> {
    let limit = limit / 1024;
    let value = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let total = host.lines().find(|line| line.starts_with("MemTotal:")).and_then(value)?;
    if limit == 0 || limit >= total {
        return None;
    }
    let mut text = String::new();
    for line in host.lines() {
        let (Some((name, _)), Some(kib)) = (line.split_once(':'), value(line)) else { continue };
        let shown = match name {
            "MemTotal" => limit,
            // A container that has just started has used nothing yet.
            "MemFree" | "MemAvailable" => limit.min(kib),
            "SwapTotal" | "SwapFree" => 0,
            _ => kib.min(limit),
        };
        text.push_str(&format!("{:<15} {shown:>8} kB\n", format!("{name}:")));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_rounds_up_to_whole_processors() {
        let limits =
            |nano_cpus, cpuset: &str| Limits { nano_cpus, cpuset_cpus: cpuset.into(), ..Default::default() };
        assert_eq!(processors(&limits(0, ""), 8), 8);
        assert_eq!(processors(&limits(1_500_000_000, ""), 8), 2);
        assert_eq!(processors(&limits(16_000_000_000, ""), 8), 8);
        assert_eq!(processors(&limits(0, "0-2,5"), 8), 4);
    }

    #[test]
    fn memory_shows_its_limit() {
        let host = "MemTotal:       1000000 kB\nMemFree:         900000 kB\nSwapTotal: 5 kB\n";
        let text = limited_meminfo(host, 512_000 * 1024).unwrap();
        assert_eq!(
            text,
            "MemTotal:         512000 kB\nMemFree:          512000 kB\nSwapTotal:             0 kB\n"
        );
        assert_eq!(limited_meminfo(host, 0), None);
        assert_eq!(limited_meminfo(host, u64::MAX), None);
    }
}
