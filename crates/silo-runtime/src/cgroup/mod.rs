//! Control groups of one container on v1, v2 and hybrid hosts: the chooser over `v1` and `v2`.

mod device_filter;
mod files;
mod v1;
mod v2;

use std::io;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use crate::protocol::Stats;

/// The hierarchies that this host has mounted.
#[derive(Debug, Clone)]
enum Hierarchies {
    /// Controller name → mount point.
    V1(Vec<(String, PathBuf)>),
    /// The one mount point.
    V2(PathBuf),
}

/// The cgroup of one container.
#[derive(Debug)]
pub struct Cgroup {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1(v1::V1),
    V2(v2::V2),
}

/// 1 or 2, as `docker info` shows it: a hybrid host (controllers in v1) counts as 1.
pub fn version() -> u8 {
    match detect() {
        Ok(Hierarchies::V2(_)) => 2,
        _ => 1,
    }
}

/// Which limits of memory the host's hierarchies can keep beside the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounting {
    /// Swap is counted.
    pub swap: bool,
    /// A cgroup has a swappiness of its own.
    pub swappiness: bool,
    /// The out-of-memory killer can be switched off.
    pub oom_control: bool,
}

/// Looks at the hierarchies. Of v1 the root cgroup tells; that of v2 has no limits, so any cgroup below it does.
pub fn accounting() -> Accounting {
    match detect() {
        Ok(Hierarchies::V1(mounts)) => {
            let memory = mounts.iter().find(|(name, _)| name == "memory").map(|(_, at)| at);
            let has = |file: &str| memory.is_some_and(|at| at.join(file).exists());
            Accounting {
                swap: has("memory.memsw.limit_in_bytes"),
                swappiness: has("memory.swappiness"),
                oom_control: has("memory.oom_control"),
            }
        }
        Ok(Hierarchies::V2(mount)) => {
            let below = std::fs::read_dir(mount).into_iter().flatten().flatten().map(|e| e.path());
            let mut limited = below.filter(|dir| dir.join("memory.max").exists()).peekable();
            // Nobody has made one yet: the kernel tells.
            let unknown = limited.peek().is_none();
            let swap = if unknown {
                std::path::Path::new("/proc/swaps").exists()
            } else {
                limited.any(|dir| dir.join("memory.swap.max").exists())
            };
            Accounting { swap, swappiness: false, oom_control: false }
        }
        Err(_) => Accounting { swap: false, swappiness: false, oom_control: false },
    }
}

/// Reads the mounts: v2 counts only if it has controllers, otherwise the host is hybrid or v1.
fn detect() -> io::Result<Hierarchies> {
    const KNOWN: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio"];
    let mut v1 = Vec::new();
    for line in std::fs::read_to_string("/proc/self/mountinfo")?.lines() {
        // proc_pid_mountinfo(5): … (5) mount point … " - " type source super-options
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        match kind {
            "cgroup2" => {
                let controllers = std::fs::read_to_string(PathBuf::from(point).join("cgroup.controllers"))?;
                if controllers.split_whitespace().any(|c| c == "memory" || c == "pids") {
                    return Ok(Hierarchies::V2(point.into()));
                }
            }
            "cgroup" => {
                for option in right.split([' ', ',']) {
                    if KNOWN.contains(&option) && !v1.iter().any(|(name, _)| name == option) {
                        v1.push((option.to_owned(), PathBuf::from(point)));
                    }
                }
            }
            _ => {}
        }
    }
    if v1.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted on this host"));
    }
    Ok(Hierarchies::V1(v1))
}

impl Cgroup {
    /// The cgroup `path` (such as `/silo/<id>`), made with [`Cgroup::create`] or by an earlier process.
    pub fn at(path: &str) -> io::Result<Self> {
        let path = path.trim_start_matches('/');
        if path.is_empty() || path.split('/').any(|p| p.is_empty() || p == "." || p == "..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cgroup path {path:?} is not plain"),
            ));
        }
        let kind = match detect()? {
            Hierarchies::V1(mounts) => Kind::V1(v1::V1::new(mounts, path)),
            Hierarchies::V2(mount) => Kind::V2(v2::V2::new(mount, path)),
        };
        Ok(Self { kind })
    }

    /// Makes it and sets the limits. Existing directories of that name are taken over.
    pub fn create(&self, resources: Option<&LinuxResources>) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.create(resources),
            Kind::V2(g) => g.create(resources),
        }
    }

    /// Moves a process in.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.add(pid),
            Kind::V2(g) => g.add(pid),
        }
    }

    /// Sets limits; what `resources` does not name stays.
    pub fn update(&self, resources: &LinuxResources) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.update(resources),
            Kind::V2(g) => g.update(resources),
        }
    }

    /// Freezes or thaws all processes; returns when the kernel says so (at most two seconds).
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.freeze(frozen),
            Kind::V2(g) => g.freeze(frozen),
        }
    }

    /// Usage at this moment.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        match &self.kind {
            Kind::V1(g) => g.stats(&mut stats),
            Kind::V2(g) => g.stats(&mut stats),
        }
        stats
    }

    /// Host pids of its processes.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        match &self.kind {
            Kind::V1(g) => g.pids(),
            Kind::V2(g) => g.pids(),
        }
    }

    /// How often the out-of-memory killer came.
    pub fn oom_kills(&self) -> u64 {
        match &self.kind {
            Kind::V1(g) => g.oom_kills(),
            Kind::V2(g) => g.oom_kills(),
        }
    }

    /// Kills what is left and removes it. Absent: fine.
    pub fn destroy(&self) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.destroy(),
            Kind::V2(g) => g.destroy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/", "/a/../b", "a//b"] {
            assert!(Cgroup::at(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_cgroup_limits_pids_and_goes_away() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let group = Cgroup::at(&format!("/silo-test/{}", std::process::id())).unwrap();
        let mut resources = LinuxResources::default();
        let mut pids = oci_spec::runtime::LinuxPids::default();
        pids.set_limit(7);
        resources.set_pids(Some(pids));
        group.create(Some(&resources)).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        group.add(child.id() as i32).unwrap();
        assert_eq!(group.stats().pids_limit, 7);
        assert_eq!(group.pids().unwrap(), [child.id() as i32]);
        group.freeze(true).unwrap();
        group.freeze(false).unwrap();
        group.destroy().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(group.pids().unwrap().is_empty());
    }
}
