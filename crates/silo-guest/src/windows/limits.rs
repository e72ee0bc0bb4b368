//! What makes a container's limits visible to Windows programs: the files that Wine and its libraries read, with the
//! limited values in them.
//!
//! Processors: Wine reads `/sys/devices/system/{cpu,node}`; the container gets a copy of the first ones. That also
//! keeps the rest of the host's `/sys` out. All else is in [`FILE`], one `name number` a line:
//!
//! | name | number | who reads it |
//! |---|---|---|
//! | `memory` | bytes | Wine's server (the container's job, `job-limits.patch`), ntdll (available memory), `inside/windows/limits` (all memory) |
//! | `processes` | tasks | Wine's server |
//! | `cpus` | billionths of a processor | Wine's server |
//! | `processors` | how many are shown, if not all | `inside/windows/limits` |
//!
//! It is read anew each time: a running program sees what an update has made of it.

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

/// In the directory that shows at `/sys`.
const FILE: &str = "silo/limits";
const BILLION: u64 = 1_000_000_000;

/// Writes the files below `dir`, whole each, as programs may be reading them; returns the directory that shows at `/sys`.
pub(super) fn write(limits: &Limits, dir: &Path) -> Result<PathBuf, GuestError> {
    let sys = dir.join("sys");
    let online = online();
    write_processors(&sys, processors(limits, online))
        .and_then(|()| put(&sys.join(FILE), &text(limits, online)))
        .map_err(|source| GuestError::Io { doing: format!("showing limits in {}", sys.display()), source })?;
    Ok(sys)
}

/// The content of [`FILE`].
fn text(limits: &Limits, online: usize) -> String {
    let processors = Some(processors(limits, online)).filter(|count| *count < online);
    let numbers = [
        ("memory", limits.memory),
        ("processes", limits.pids),
        ("cpus", cpus(limits).unwrap_or(0)),
        ("processors", processors.unwrap_or(0) as u64),
    ];
    let limited = numbers.into_iter().filter(|(_, number)| *number > 0);
    limited.map(|(name, number)| format!("{name} {number}\n")).collect()
}

/// Whether a limit of processors is shown.
pub(super) fn are_shown(limits: &Limits) -> bool {
    cpus(limits).is_some() || !limits.cpuset_cpus.is_empty()
}

/// Processor time that a container may have, in billionths of a processor; `None`: all.
fn cpus(limits: &Limits) -> Option<u64> {
    if limits.nano_cpus > 0 {
        return Some(limits.nano_cpus);
    }
    let quota = u64::try_from(limits.cpu_quota).ok().filter(|quota| *quota > 0)?;
    let period = if limits.cpu_period > 0 { limits.cpu_period } else { 100_000 };
    u64::try_from(u128::from(quota) * u128::from(BILLION) / u128::from(period)).ok()
}

/// How many processors a container sees: no more than there are, a quota rounded up.
fn processors(limits: &Limits, online: usize) -> usize {
    let quota = cpus(limits).map_or(online, |cpus| cpus.div_ceil(BILLION) as usize);
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
        put(&cpus.join(name), &list)?;
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
    put(&sys.join("devices/system/node/online"), "0\n")?;
    put(&node.join("cpulist"), &list)?;
    let mask = format!("{:x}\n", (1u128 << count.min(127)) - 1);
    put(&node.join("cpumap"), &mask)
}

/// Writes a file, made with its directory if it is not there; one that says something else is replaced.
fn put(path: &Path, content: &str) -> io::Result<()> {
    match fs::read(path) {
        Ok(there) if there == content.as_bytes() => return Ok(()),
        Ok(_) => return silo_sys::atomic_file::write_with(path, content.as_bytes(), 0o644, false),
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)
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
    fn every_limit_is_told_once_and_an_update_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let told = |limits: &Limits| {
            let sys = write(limits, dir.path()).unwrap();
            fs::read_to_string(sys.join(FILE)).unwrap()
        };
        let limits = Limits { memory: 5 << 20, pids: 7, nano_cpus: 500_000_000, ..Default::default() };
        let text = told(&limits);
        assert!(text.starts_with("memory 5242880\nprocesses 7\ncpus 500000000\n"), "{text}");
        assert_eq!(text.contains("processors 1\n"), online() > 1);
        let quota = Limits { cpu_quota: 25_000, cpu_period: 50_000, ..Default::default() };
        assert!(told(&quota).starts_with("cpus 500000000\n"));
        assert_eq!(told(&Limits::default()), "");
    }
}
