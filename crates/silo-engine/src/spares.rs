//! What the engine has of its pool: spares, the ranges of host ids that they hold, starts that they must not disturb.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use silo_sandbox::pool::{Bounds, Pool, Shown};
use silo_sandbox::{Events, Isolation, MachineConfig, Sandbox, ShimProcess};
use tokio::sync::{Notify, watch};

use crate::lock::lock;

/// A sandbox that waits for its container.
#[derive(Debug)]
pub(crate) struct Spare {
    /// Its directory.
    pub(crate) dir: PathBuf,
    pub(crate) sandbox: Sandbox,
    pub(crate) events: Events,
    /// Its shim.
    pub(crate) process: ShimProcess,
    /// Where its processes are; the container's adapter is put there.
    pub(crate) namespace: OwnedFd,
    /// First id of its range of host ids, which becomes the container's.
    pub(crate) owner: u32,
}

/// What is left of a spare that has become a container: its directory, and its cgroup if its shim was killed on the way.
/// They go with this.
pub(crate) struct Rest {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
}

impl Drop for Rest {
    fn drop(&mut self) {
        let (dir, cgroup) = (std::mem::take(&mut self.dir), std::mem::take(&mut self.cgroup));
        tokio::task::spawn_blocking(move || sweep(&dir, &cgroup));
    }
}

/// Removes a spare's directory, and its cgroup with what is in it. Blocking.
pub(crate) fn sweep(dir: &Path, cgroup: &str) {
    if let Err(e) = silo_sandbox::clean_up_after(cgroup, &dir.join("none")) {
        tracing::warn!("the cgroup of a spare: {e}");
    }
    remove(dir);
}

/// Removes a directory with all in it, if it is there.
pub(crate) fn remove(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("removing {}: {e}", dir.display());
        }
        _ => {}
    }
}

/// How spares of a kind are made.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) isolation: Isolation,
    pub(crate) machine: MachineConfig,
    pub(crate) ready: Option<Ready>,
}

/// What is brought up in a spare beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) os: silo_guest::Os,
    /// The image that its layers are of.
    pub(crate) image: String,
    pub(crate) user: String,
    /// Everything that it depends on: the guest's own and the chain.
    pub(crate) key: String,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spares {
    pub(crate) pool: Pool<Recipe, Spare>,
    /// Something has changed that whoever keeps the pool has to look at.
    pub(crate) wake: Notify,
    /// Memory is short.
    pub(crate) short: Notify,
    /// That is told.
    pub(crate) told: AtomicBool,
    starting: watch::Sender<u32>,
    ranges: Mutex<HashSet<u32>>,
}

/// A start that is under way.
pub(crate) struct Starting<'a>(&'a Spares);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starting.send_modify(|count| *count -= 1);
    }
}

impl Spares {
    /// At most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            pool: Pool::new(Bounds::of(most)),
            wake: Notify::new(),
            short: Notify::new(),
            told: AtomicBool::new(false),
            starting: watch::Sender::new(0),
            ranges: Mutex::default(),
        }
    }

    /// There are to be none.
    pub(crate) fn is_off(&self) -> bool {
        self.pool.bounds().all == 0
    }

    /// A start begins, and lasts until this is dropped.
    pub(crate) fn starting(&self) -> Starting<'_> {
        self.starting.send_modify(|count| *count += 1);
        Starting(self)
    }

    /// Follows the number of starts under way.
    pub(crate) fn starts(&self) -> watch::Receiver<u32> {
        self.starting.subscribe()
    }

    /// Ranges of host ids that no container may have.
    pub(crate) fn ranges(&self) -> Vec<u32> {
        lock(&self.ranges).iter().copied().collect()
    }

    pub(crate) fn reserve(&self, range: u32) {
        lock(&self.ranges).insert(range);
    }

    /// A range is a container's now, or nobody's.
    pub(crate) fn release(&self, range: u32) {
        lock(&self.ranges).remove(&range);
    }
}

/// The pool as it is shown.
#[derive(Debug, Clone)]
pub struct PoolState {
    /// Spares that may be kept.
    pub most: usize,
    /// Spares that are being made.
    pub making: usize,
    /// Ranges of host ids that spares hold.
    pub ranges: usize,
    /// Spares that wait.
    pub ready: Vec<Shown>,
}

impl std::fmt::Display for PoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = self.ready.iter().map(|s| s.bytes).sum::<u64>() >> 20;
        let (ready, making, most) = (self.ready.len(), self.making, self.most);
        write!(f, "{ready} ready ({mib} MiB), {making} being made, {most} at most")
    }
}
