//! What the engine says of itself: `info`, `system df`, events.

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::filters::Filters;
use crate::record::{ContainerSummary, Event, Status};

/// Facts for `docker info`.
#[derive(Debug, Clone)]
pub struct Info {
    /// Engine's ID.
    pub id: String,
    /// All containers.
    pub containers: usize,
    /// Running ones.
    pub running: usize,
    /// Paused ones.
    pub paused: usize,
    /// Others.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// `overlay2`-like driver name.
    pub driver: &'static str,
    /// File system of the root directory.
    pub backing_filesystem: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Which limits of memory this host can keep.
    pub accounting: silo_sandbox::Accounting,
    /// `uname -r`.
    pub kernel: String,
    /// Pretty name of the host's distribution.
    pub operating_system: String,
    /// `VERSION_ID`.
    pub os_version: String,
    /// Processors.
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    /// Host name.
    pub name: String,
    /// Where everything lies.
    pub root: String,
    /// Isolation of containers that ask for none.
    pub default_isolation: &'static str,
    /// What runs containers with a kernel of their own, or what is missing for that.
    pub machines: String,
    /// Directory of guest kernels and templates.
    pub vm: String,
    /// What is kept ready for containers to come, in a sentence.
    pub pool: String,
}

/// What uses disk.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    /// Of images.
    pub images: silo_image::Usage,
    /// Containers with their sizes.
    pub containers: Vec<ContainerSummary>,
    /// What builds keep.
    pub cache: Vec<crate::build_records::CacheUsage>,
    /// Volume name → bytes and number of users.
    pub volumes: Vec<(crate::record::VolumeRecord, u64, usize)>,
}

fn os_release(key: &str) -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split_once('='))
        .find(|(k, _)| *k == key)
        .map(|(_, v)| v.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Name of the file system that `/proc/self/mountinfo` has for a path.
fn filesystem_of(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut best = (0, String::new());
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        if path.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), right.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    best.1
}

impl Engine {
    /// Facts for `docker info`.
    pub fn info(&self) -> Info {
        let statuses: Vec<Status> = self.entries().iter().map(|e| e.status()).collect();
        let count = |wanted: Status| statuses.iter().filter(|s| **s == wanted).count();
        let (running, paused) = (count(Status::Running), count(Status::Paused));
        let uname = rustix::system::uname();
        Info {
            id: self.inner.id.clone(),
            containers: statuses.len(),
            running,
            paused,
            stopped: statuses.len() - running - paused,
            images: self.inner.images.list().len(),
            driver: "overlay2",
            backing_filesystem: filesystem_of(&self.inner.config.root),
            cgroup_version: silo_sandbox::cgroup_version(),
            accounting: silo_sandbox::accounting(silo_sandbox::Isolation::Process),
            kernel: uname.release().to_string_lossy().into_owned(),
            operating_system: os_release("PRETTY_NAME"),
            os_version: os_release("VERSION_ID"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: rustix::system::sysinfo().totalram,
            name: uname.nodename().to_string_lossy().into_owned(),
            root: self.inner.config.root.display().to_string(),
            default_isolation: self.inner.config.isolation.as_str(),
            machines: machines(&self.inner.config.vm),
            vm: self.inner.config.vm.display().to_string(),
            pool: self.pool().to_string(),
        }
    }

    /// Events from `since` (kept ones) to `until`, or from now on.
    pub fn subscribe(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        filters: Filters,
    ) -> mpsc::Receiver<Event> {
        self.inner.events.subscribe(since, until, filters)
    }

    /// What uses disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let containers = self.list(true, 0, true, &Filters::default()).await?;
        let cache = self.build_cache().await?;
        let used = self.volumes_in_use();
        let engine = self.clone();
        blocking(move || {
            let mut volumes = Vec::new();
            // As dockerd: what is mounted from elsewhere is no room of this host's.
            for volume in engine.volumes(&Filters::default())?.into_iter().filter(|v| v.options.is_empty()) {
                let bytes =
                    silo_image::disk_usage(std::path::Path::new(&volume.mountpoint)).map_or(0, |u| u.0);
                let users = used.get(&volume.name).map_or(0, Vec::len);
                volumes.push((volume, bytes, users));
            }
            Ok(DiskUsage { images: engine.inner.images.usage(), containers, cache, volumes })
        })
        .await
    }
}

/// What runs machines here, in a sentence.
fn machines(vm: &std::path::Path) -> String {
    let kernel = match silo_sandbox::hyperv::kernel::Kernel::find(vm) {
        Ok(kernel) => format!("guest kernel {}", kernel.version),
        Err(e) => e.to_string(),
    };
    match &silo_sandbox::hyperv::host().no_kvm {
        None => format!("KVM, {kernel}"),
        Some(why) => format!("TCG ({why}), {kernel}"),
    }
}
