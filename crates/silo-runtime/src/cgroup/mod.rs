//! Control groups of one container on v1, v2 and hybrid hosts: the chooser over `v1` and `v2`.

mod accounting;
mod device_filter;
mod files;
mod v1;
mod v2;

pub use accounting::Accounting;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use crate::protocol::Stats;

/// Rounds of moving processes to another cgroup: those that fork meanwhile come along in the next.
const ROUNDS: usize = 100;

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

/// Looks at the hierarchies.
pub fn accounting() -> Accounting {
    match detect() {
        Ok(Hierarchies::V1(mounts)) => v1::accounting(&mounts),
        Ok(Hierarchies::V2(mount)) => v2::accounting(&mount),
        Err(_) => Accounting::default(),
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

    /// Makes it, with all processes of `other`, which is gone then. Of a v1 host's hierarchies a directory is given another
    /// name, which costs nothing; elsewhere processes are moved, and each waits for a moment without forks in the whole system.
    pub fn take_over(&self, other: &Cgroup, resources: Option<&LinuxResources>) -> io::Result<()> {
        let renamed = match (&self.kind, &other.kind) {
            (Kind::V1(to), Kind::V1(from)) => to.succeed(from),
            _ => false,
        };
        self.create(resources)?;
        if renamed {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let pids = other.pids()?;
            if pids.is_empty() {
                return other.destroy();
            }
            for pid in pids {
                match self.add(pid) {
                    // It has ended.
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Err(io::Error::other("processes that are to be moved to another cgroup go on forking"))
    }

    /// What a process can be started in by clone3(2), which spares it the move; `None`: this hierarchy has no such thing.
    pub(crate) fn entry(&self) -> io::Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::V1(_) => Ok(None),
            Kind::V2(g) => g.entry().map(Some),
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

    /// Removes it once `own` processes, which are about to end, have left, unless a successor's are in it by then: who
    /// comes so [tries again](Cgroup::settle) where it finds it gone.
    pub fn hand_over(&self, own: &[i32]) -> io::Result<()> {
        match &self.kind {
            Kind::V1(g) => g.hand_over(own),
            Kind::V2(g) => g.hand_over(own),
        }
    }

    /// Makes it and moves a process in, although a predecessor may just be removing it.
    pub fn settle(&self, pid: i32) -> io::Result<()> {
        let mut tries = 0;
        loop {
            self.create(None)?;
            match self.add(pid) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < 8 => tries += 1,
                other => return other,
            }
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
        let works = "read x; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; exec sleep 60";
        let mut child = std::process::Command::new("sh")
            .args(["-c", works])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        group.add(child.id() as i32).unwrap();
        drop(child.stdin.take());
        let mut said = [0; 5];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(group.stats().pids_limit, 7);
        assert_eq!(group.pids().unwrap(), [child.id() as i32]);
        group.freeze(true).unwrap();
        group.freeze(false).unwrap();
        let next = Cgroup::at(&format!("/silo-test/{}-next", std::process::id())).unwrap();
        let before = group.stats().cpu_total;
        next.take_over(&group, None).unwrap();
        // What its processes did before is not the new one's.
        assert!(next.stats().cpu_total < before / 2, "{} of {before}", next.stats().cpu_total);
        assert_eq!(next.pids().unwrap(), [child.id() as i32]);
        assert!(group.pids().unwrap().is_empty());
        next.destroy().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(group.pids().unwrap().is_empty());
    }
}
