//! The engine's handle, what it holds, and how containers are found in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use silo_image::ImageStore;
use silo_network::{Names, Networks};
use silo_sandbox::{Attach, Isolation, Sandbox};
use tokio::sync::watch;

use crate::build_records::BuildCache;
use crate::db::{Db, Table};
use crate::error::{EngineError, Result};
use crate::events::Events;
use crate::execs::Execs;
use crate::lock::lock;
use crate::network_book::Book;
use crate::record::{ContainerId, ContainerRecord, Status, VolumeRecord};
use crate::spares::Spares;
use crate::volume_mounts::VolumeMounts;
use crate::volumes::Volumes;

/// How bases are had.
#[derive(Debug, Clone, Default)]
pub struct BaseSettings {
    /// A base that is missing is not made but asked for.
    pub no_build: bool,
    /// What bases are made of, instead of the distribution's mirror.
    pub packages: Option<PathBuf>,
    /// What the user says of layers: digest or diff ID → the family of the base that has it.
    pub digests: std::collections::BTreeMap<String, String>,
}

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Everything that lasts (`/var/lib/silo`).
    pub root: PathBuf,
    /// Sockets (`/run/silo`).
    pub run: PathBuf,
    /// Program that is started as `… shim DIR`; normally this one.
    pub executable: PathBuf,
    /// The default network, and what others are made from.
    pub networks: silo_network::NetworkConfig,
    /// Isolation of containers that ask for none.
    pub isolation: Isolation,
    /// Guest kernels and templates.
    pub vm: PathBuf,
    /// Spares that are kept ready, at most.
    pub pool: usize,
    /// How bases are had.
    pub bases: BaseSettings,
    /// How registries are reached.
    pub registries: std::sync::Arc<silo_image::RegistrySettings>,
    /// What builds may take.
    pub builds: crate::build_limit::BuildSettings,
}

/// Everything that exists. A handle: cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) id: String,
    pub(crate) db: Db,
    pub(crate) images: ImageStore,
    pub(crate) networks: Networks,
    /// Which networks there are, and who is on them.
    pub(crate) book: Book,
    /// Who is found under which name.
    pub(crate) names: Names,
    /// Told when the daemon is to end.
    pub(crate) end: tokio::sync::Notify,
    /// One makes or removes a network at a time.
    pub(crate) network_verb: Mutex<()>,
    pub(crate) events: Events,
    pub(crate) volumes: Volumes,
    pub(crate) volume_mounts: VolumeMounts,
    pub(crate) execs: Execs,
    /// Adapters of ended runs that are still being taken away.
    pub(crate) leaving: watch::Sender<u32>,
    /// Whose they are.
    pub(crate) leaving_entries: Mutex<Vec<Arc<Entry>>>,
    pub(crate) spares: Spares,
    pub(crate) build_cache: BuildCache,
    registry: RwLock<Registry>,
}

#[derive(Default)]
struct Registry {
    by_id: HashMap<ContainerId, Arc<Entry>>,
    by_name: HashMap<String, ContainerId>,
}

/// One container in memory.
pub(crate) struct Entry {
    pub(crate) id: ContainerId,
    record: Mutex<ContainerRecord>,
    /// One verb that changes the life of the container at a time.
    pub(crate) verb: tokio::sync::Mutex<()>,
    /// Of a container with a kernel of its own that does not run: one at a time has its files.
    pub(crate) files: Arc<tokio::sync::Mutex<()>>,
    /// Its shim while there is one.
    pub(crate) sandbox: Mutex<Option<Sandbox>>,
    /// Clients that came before the start.
    pub(crate) early: Mutex<Vec<(Attach, std::os::fd::OwnedFd)>>,
    /// The ended run's adapters, until they are taken away; whoever takes them away holds the lock meanwhile.
    pub(crate) leaving: Mutex<Vec<silo_network::AdapterRecord>>,
    /// Clients whose attach has been answered and is not entered yet; a start waits for them.
    pub(crate) attaching: watch::Sender<u32>,
    /// A restart is under way: `--rm` does not remove what it ends.
    pub(crate) restarting: AtomicBool,
    /// Told at each change; counts ended runs.
    pub(crate) changed: watch::Sender<Progress>,
    /// A stop, kill or removal wants no restart by policy.
    pub(crate) no_restart: AtomicBool,
}

/// What waiters look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Runs that have ended.
    pub(crate) ended: u64,
    /// The container is gone.
    pub(crate) removed: bool,
    /// Exit code of the last run.
    pub(crate) exit_code: u32,
    /// Why the last run failed to start, if it did.
    pub(crate) error: Option<String>,
}

/// Runs blocking work (files, mounts) off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| EngineError::internal(format!("a task panicked: {e}")))?
}

impl Entry {
    pub(crate) fn new(record: ContainerRecord) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            verb: tokio::sync::Mutex::new(()),
            files: Arc::default(),
            sandbox: Mutex::new(None),
            early: Mutex::new(Vec::new()),
            leaving: Mutex::new(Vec::new()),
            attaching: watch::channel(0).0,
            restarting: AtomicBool::new(false),
            changed: watch::channel(Progress::default()).0,
            no_restart: AtomicBool::new(false),
        })
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&ContainerRecord) -> T) -> T {
        look(&lock(&self.record))
    }

    pub(crate) fn status(&self) -> Status {
        self.with(|r| r.state.status)
    }

    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        lock(&self.sandbox).clone()
    }

    /// The shim of a running container, or dockerd's 409.
    pub(crate) fn running(&self) -> Result<Sandbox> {
        match self.sandbox() {
            Some(sandbox) if self.status().is_running() => Ok(sandbox),
            _ => Err(EngineError::conflict(format!("container {} is not running", self.id))),
        }
    }

    pub(crate) fn stop_restarting(&self, stop: bool) {
        self.no_restart.store(stop, Ordering::SeqCst);
    }
}

impl Engine {
    /// Assembles an engine over opened parts; recovery is `recover.rs`.
    pub(crate) fn assemble(
        config: EngineConfig,
        id: String,
        db: Db,
        images: ImageStore,
        networks: Networks,
        volumes: Volumes,
        build_cache: BuildCache,
    ) -> Self {
        let spares = Spares::new(config.pool);
        Self {
            inner: Arc::new(Inner {
                config,
                spares,
                build_cache,
                id,
                db,
                images,
                book: Book::new(networks.builtin()),
                networks,
                names: Names::default(),
                network_verb: Mutex::new(()),
                end: tokio::sync::Notify::new(),
                events: Events::new(),
                volumes,
                volume_mounts: VolumeMounts::default(),
                execs: Execs::default(),
                leaving: watch::Sender::new(0),
                leaving_entries: Mutex::default(),
                registry: RwLock::default(),
            }),
        }
    }

    fn registry(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.inner.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn registry_mut(&self) -> std::sync::RwLockWriteGuard<'_, Registry> {
        self.inner.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The store of images, for reading.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Where work under way may lie, on the file system of the layers; what a daemon leaves there is gone at the next start.
    pub fn scratch(&self) -> PathBuf {
        self.inner.config.root.join("tmp")
    }

    /// The set-up.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Directory of a container.
    pub(crate) fn dir(&self, id: &ContainerId) -> PathBuf {
        self.inner.config.root.join("containers").join(&id.0)
    }

    /// Socket of a container's shim. Half of the ID: a unix socket's path has 107 bytes.
    pub(crate) fn socket(&self, id: &ContainerId) -> PathBuf {
        self.inner.config.run.join("s").join(&id.0[..32])
    }

    /// A container's cgroup.
    pub(crate) fn cgroup(&self, id: &ContainerId) -> String {
        let parent = self.registry().by_id.get(id).map(|e| e.with(|r| r.spec.limits.cgroup_parent.clone()));
        match parent.as_deref().map(|p| p.trim_matches('/')) {
            Some("") | None => format!("/silo/{id}"),
            Some(parent) => format!("/{parent}/{id}"),
        }
    }

    /// All containers, in no order.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.registry().by_id.values().cloned().collect()
    }

    /// By full ID, name, or unique prefix of the ID, in dockerd's words when there is none.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Entry>> {
        let registry = self.registry();
        if name.is_empty() {
            return Err(EngineError::invalid("no container name or ID was given"));
        }
        if let Some(entry) = registry.by_id.get(&ContainerId(name.to_owned())) {
            return Ok(entry.clone());
        }
        if let Some(entry) =
            registry.by_name.get(name.strip_prefix('/').unwrap_or(name)).and_then(|id| registry.by_id.get(id))
        {
            return Ok(entry.clone());
        }
        let hex = name.bytes().all(|b| b.is_ascii_hexdigit());
        let mut found = registry.by_id.values().filter(|e| hex && e.id.0.starts_with(name));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.clone()),
            (Some(_), Some(_)) => {
                Err(EngineError::invalid(format!("multiple IDs found with provided prefix: {name}")))
            }
            (None, _) => Err(EngineError::not_found(format!("No such container: {name}"))),
        }
    }

    /// Enters a container under its name, or dockerd's conflict; one that has no range of host ids (0) gets one that no
    /// other has.
    pub(crate) fn enter(&self, record: &mut ContainerRecord) -> Result<Arc<Entry>> {
        let mut registry = self.registry_mut();
        if let Some(holder) = registry.by_name.get(&record.name) {
            return Err(name_taken(&record.name, holder));
        }
        if record.id_range == 0 {
            record.id_range = self.unused_range(&registry)?;
        }
        let entry = Entry::new(record.clone());
        registry.by_name.insert(record.name.clone(), record.id.clone());
        registry.by_id.insert(record.id.clone(), entry.clone());
        Ok(entry)
    }

    fn unused_range(&self, registry: &Registry) -> Result<u32> {
        let mut taken: Vec<u32> = registry.by_id.values().map(|e| e.with(|r| r.id_range)).collect();
        taken.extend(self.inner.spares.ranges());
        free_range(taken).ok_or_else(|| {
            EngineError::conflict("every range of host ids is taken: remove containers that are not needed")
        })
    }

    /// A range of host ids for a spare, its own until [`Spares::release`].
    pub(crate) fn reserve_range(&self) -> Result<u32> {
        let registry = self.registry_mut();
        let range = self.unused_range(&registry)?;
        self.inner.spares.reserve(range);
        Ok(range)
    }

    /// Waits, at most `limit`, for what ended containers have left to be cleared away.
    pub async fn settle(&self, limit: std::time::Duration) {
        let mut leaving = self.inner.leaving.subscribe();
        let settled = leaving.wait_for(|count| *count == 0);
        if tokio::time::timeout(limit, settled).await.is_err() {
            tracing::warn!("adapters of ended containers are left to the next start");
        }
    }

    pub(crate) fn is_name_free(&self, name: &str) -> bool {
        !self.registry().by_name.contains_key(name)
    }

    /// Gives a container another name, in memory and in the database.
    pub(crate) fn change_name(&self, entry: &Entry, name: &str) -> Result<String> {
        let mut registry = self.registry_mut();
        if let Some(holder) = registry.by_name.get(name) {
            return Err(name_taken(name, holder));
        }
        let old = entry.with(|r| r.name.clone());
        registry.by_name.insert(name.to_owned(), entry.id.clone());
        registry.by_name.remove(&old);
        drop(registry);
        self.change(entry, |r| r.name = name.to_owned())?;
        Ok(old)
    }

    /// Takes a container out.
    pub(crate) fn leave(&self, entry: &Entry) {
        let mut registry = self.registry_mut();
        let name = entry.with(|r| r.name.clone());
        if registry.by_name.get(&name) == Some(&entry.id) {
            registry.by_name.remove(&name);
        }
        registry.by_id.remove(&entry.id);
    }

    /// Changes a record: in the database first, then in memory.
    pub(crate) fn change<T>(
        &self,
        entry: &Entry,
        change: impl FnOnce(&mut ContainerRecord) -> T,
    ) -> Result<T> {
        let mut guard = lock(&entry.record);
        let mut record = guard.clone();
        let result = change(&mut record);
        self.inner.db.put(Table::Containers, &entry.id.0, &record)?;
        *guard = record;
        Ok(result)
    }

    /// Stores a new container's record and those of its own volumes, all or none, on disk when this returns.
    pub(crate) fn store(
        &self,
        entry: &Entry,
        record: &ContainerRecord,
        volumes: &[VolumeRecord],
    ) -> Result<()> {
        let mut guard = lock(&entry.record);
        self.inner.db.durably(|write| {
            for volume in volumes {
                write.put(Table::Volumes, &volume.name, volume)?;
            }
            write.put(Table::Containers, &entry.id.0, record)
        })?;
        *guard = record.clone();
        Ok(())
    }

    /// As [`Engine::change`] where nothing can be done about a database that fails: the state in memory is the true one.
    pub(crate) fn note<T>(&self, entry: &Entry, change: impl FnOnce(&mut ContainerRecord) -> T) -> T {
        let mut guard = lock(&entry.record);
        let result = change(&mut guard);
        if let Err(e) = self.inner.db.put(Table::Containers, &entry.id.0, &*guard) {
            tracing::error!("container {}: {e}", entry.id);
        }
        result
    }

    /// A record that is shown, not changed.
    pub fn container(&self, name: &str) -> Result<ContainerRecord> {
        Ok(self.find(name)?.record())
    }

    /// Where a container's files lie on the host.
    pub fn paths(&self, id: &ContainerId) -> ContainerPaths {
        let dir = self.dir(id);
        ContainerPaths {
            log: log_path(&dir),
            hosts: dir.join("hosts"),
            hostname: dir.join("hostname"),
            resolv_conf: dir.join("resolv.conf"),
            dir,
        }
    }
}

/// Files of a container on the host.
#[derive(Debug, Clone)]
pub struct ContainerPaths {
    /// Its directory.
    pub dir: PathBuf,
    /// json-file log.
    pub log: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/hostname`.
    pub hostname: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

pub(crate) fn log_path(dir: &Path) -> PathBuf {
    dir.join("container.log")
}

/// Host ids of a container's own range.
const RANGE: u32 = 65_536;
/// First id that ranges are taken from; below lie the host's own users.
const FIRST_RANGE: u32 = 1 << 20;

/// The first id of the lowest range that is not taken.
fn free_range(mut taken: Vec<u32>) -> Option<u32> {
    taken.sort_unstable();
    let mut next = FIRST_RANGE;
    for range in taken {
        if range == next {
            next = next.checked_add(RANGE)?;
        }
    }
    next.checked_add(RANGE - 1).map(|_| next)
}

fn name_taken(name: &str, holder: &ContainerId) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_once_until_there_are_none() {
        assert_eq!(free_range(vec![]), Some(FIRST_RANGE));
        assert_eq!(free_range(vec![FIRST_RANGE + RANGE, FIRST_RANGE]), Some(FIRST_RANGE + 2 * RANGE));
        assert_eq!(free_range(vec![FIRST_RANGE + RANGE]), Some(FIRST_RANGE));
        let all = (FIRST_RANGE..=u32::MAX - RANGE + 1).step_by(RANGE as usize).collect();
        assert_eq!(free_range(all), None);
    }
}
