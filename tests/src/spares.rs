//! What a daemon has of spares: that it accounts for all of it, and that nothing of it is left at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Daemon;

/// How long processes and the kernel may take to clear away.
const LIMIT: Duration = Duration::from_secs(30);

/// The spares that were seen, whatever became of them.
#[derive(Debug, Default)]
pub struct Spares {
    /// They name directories and cgroups.
    ids: BTreeSet<String>,
    /// Network namespaces, held so that no later one is taken for one of them.
    namespaces: BTreeMap<PathBuf, File>,
}

fn await_empty<T: std::fmt::Debug>(d: &Daemon, what: &str, mut list: impl FnMut() -> Vec<T>) {
    let end = Instant::now() + LIMIT;
    loop {
        let left = list();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} of spares are left: {left:?}\n{}", d.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn namespace(process: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

/// Processes whose command line names the pool's directory.
fn processes(d: &Daemon) -> Vec<String> {
    let pool = d.path("root/pool").display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&pool) {
            found.push(format!("{} {line}", entry.file_name().display()));
        }
    }
    found
}

fn directories(d: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(d.path("root/pool")).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

impl Spares {
    /// Notes those that there are.
    pub fn look(&mut self, d: &Daemon) {
        self.ids.extend(directories(d));
        for process in processes(d) {
            let pid = process.split(' ').next().unwrap_or_default();
            // It may have ended by now.
            let Ok(held) = File::open(format!("/proc/{pid}/ns/net")) else { continue };
            if let Ok(name) = std::fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd())) {
                self.namespaces.insert(name, held);
            }
        }
    }

    /// Waits until each directory and each range of host ids is that of a spare which is ready or being made.
    pub fn are_accounted_for(&mut self, d: &Daemon) {
        self.look(d);
        await_empty(d, "directories or ranges", || {
            let pool: serde_json::Value = serde_json::from_str(&d.get("/silo/pool")).unwrap();
            let known = pool["Ready"].as_array().unwrap().len() as u64 + pool["Making"].as_u64().unwrap();
            let dirs = directories(d);
            let fits = known == dirs.len() as u64 && pool["Ranges"].as_u64() == Some(known);
            if fits { Vec::new() } else { vec![format!("{pool} {dirs:?}")] }
        });
    }

    /// The daemon has been stopped or killed: waits until processes, network namespaces and, after its next start, directories
    /// and cgroups of all that were seen are gone. It keeps none from then on.
    pub fn are_gone(&mut self, d: &mut Daemon) {
        await_empty(d, "processes", || processes(d));
        await_empty(d, "network namespaces", || {
            let own = namespace("self");
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let all = all.filter_map(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                Some((namespace(&name)?, name))
            });
            // A shim has entered its own by the time that it is ready.
            all.filter(|(namespace, _)| Some(namespace) != own.as_ref())
                .filter(|(namespace, _)| self.namespaces.contains_key(namespace))
                .collect::<Vec<_>>()
        });
        d.keep_spares(0);
        d.again();
        await_empty(d, "directories", || directories(d));
        await_empty(d, "cgroups", || {
            let output = Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let ours = |line: &&str| self.ids.iter().any(|id| line.contains(id.as_str()));
            text.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
        });
    }
}
