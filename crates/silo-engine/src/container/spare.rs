//! Spares: made in the background, each beside its undo; taken by a start that one fits.
//!
//! A start asks for a spare by its key. One that fits becomes the container's shim; if it does not, it is ended and the start
//! goes on as without a pool. None is made while a start is under way, and all of them end with the daemon: they live on its
//! connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use silo_sandbox::pool::{SHORT, Shown, WAITED_FOR, memory_is_short, memory_of, on_memory_pressure};
use silo_sandbox::{Sandbox, ShimConfig, SpareConfig};

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::image;
use crate::joined::Joined;
use crate::record::{ContainerId, ContainerRecord};
use crate::spares::{PoolState, Recipe, Rest, Spare, remove, sweep};
use crate::spec::NetworkMode;

use super::start::Begun;

/// How long spares are not made because starts follow one another.
const YIELD: Duration = Duration::from_secs(5);
/// How long an unwanted spare may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often memory is looked at while there are spares, where the kernel does not tell when it is short.
const LOOK: Duration = Duration::from_secs(30);

/// Hears, as long as it is there, when memory is short.
struct Listener(Engine);

impl Listener {
    fn new(engine: Engine) -> Self {
        engine.inner.spares.told.store(true, Ordering::Relaxed);
        Self(engine)
    }

    fn tell(&self) {
        self.0.inner.spares.short.notify_one();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let spares = &self.0.inner.spares;
        spares.told.store(false, Ordering::Relaxed);
        spares.wake.notify_one();
    }
}

impl Engine {
    fn pool_dir(&self) -> PathBuf {
        self.config().root.join("pool")
    }

    /// A spare's, by its directory.
    fn cgroup_of_spare(&self, dir: &Path) -> String {
        let name = dir.file_name().unwrap_or_default();
        self.cgroup(&ContainerId(name.to_string_lossy().into_owned()))
    }

    /// Removes what spares of a daemon that was killed have left: files, and the cgroups of those that were killed too.
    pub(crate) fn sweep_spares(&self) {
        let pool = self.pool_dir();
        for entry in std::fs::read_dir(&pool).into_iter().flatten().flatten() {
            sweep(&entry.path(), &self.cgroup_of_spare(&entry.path()));
        }
        remove(&pool);
    }

    /// Keeps the pool as it is to be, from now on.
    pub(crate) fn keep_spares(&self) {
        if self.inner.spares.is_off() {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let listener = Listener::new(engine.clone());
            if let Err(e) = on_memory_pressure(move || listener.tell()) {
                tracing::debug!("memory pressure is not told: {e}");
            }
            loop {
                engine.keep_spares_once().await;
            }
        });
    }

    /// Does the next thing that is to be done, or waits for it.
    async fn keep_spares_once(&self) {
        let spares = &self.inner.spares;
        let pool = &spares.pool;
        // Whether the kernel says when memory is short.
        let told = spares.told.load(Ordering::Relaxed);
        let waiting = !pool.show().0.is_empty();
        if (!told || !waiting) && memory_is_short(SHORT) {
            silo_sandbox::forget_templates();
            self.end_spares(pool.shrink(Instant::now())).await;
        }
        let work = pool.next(Instant::now());
        self.end_spares(work.end).await;
        if let Some((key, recipe)) = work.make {
            let engine = self.clone();
            tokio::spawn(async move {
                let spares = &engine.inner.spares;
                let mut starts = spares.starts();
                let _ = tokio::time::timeout(YIELD, starts.wait_for(|count| *count == 0)).await;
                engine.make_spare(&key, recipe).await;
                spares.wake.notify_one();
            });
            return;
        }
        let look = (!told && waiting).then(|| Instant::now() + LOOK);
        let time = async {
            match work.again.into_iter().chain(look).min() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = spares.wake.notified() => {}
            () = time => {}
            () = spares.short.notified() => {
                // A container that waits at its own limit is no reason.
                if !memory_is_short(WAITED_FOR) {
                    return;
                }
                silo_sandbox::forget_templates();
                let unwanted = pool.shrink(Instant::now());
                if !unwanted.is_empty() {
                    tracing::info!("memory is short: {} spares are ended", unwanted.len());
                }
                self.end_spares(unwanted).await;
            }
        }
    }

    async fn make_spare(&self, key: &str, recipe: Recipe) {
        let pool = &self.inner.spares.pool;
        let id = random_id();
        let spare = match self.new_spare(&id, key, recipe).await {
            Ok(spare) => spare,
            Err(e) => {
                tracing::warn!("making a spare: {e}");
                return pool.failed(key, Instant::now());
            }
        };
        let pid = spare.sandbox.state().await.map_or(0, |s| s.shim_pid);
        let bytes = blocking(move || Ok(memory_of(pid))).await.unwrap_or(0);
        let mut gone = spare.sandbox.gone();
        let shown = Shown { key: key.to_owned(), id: id.clone(), pid, bytes };
        if let Some(unwanted) = pool.made(key, shown, spare, Instant::now()) {
            return self.end_spares(vec![unwanted]).await;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            // One that dies while it waits is replaced.
            let _ = gone.wait_for(|gone| *gone).await;
            if let Some(spare) = engine.inner.spares.pool.lost(&id, Instant::now()) {
                tracing::warn!("a spare has ended while it waited");
                engine.end_spares(vec![spare]).await;
                engine.inner.spares.wake.notify_one();
            }
        });
    }

    async fn new_spare(&self, id: &str, key: &str, recipe: Recipe) -> Result<Spare> {
        let failed = |e: &dyn std::fmt::Display| EngineError::internal(e.to_string());
        let dir = self.pool_dir().join(id);
        let owner = self.reserve_range()?;
        let made = async {
            let (engine, at) = (self.clone(), dir.clone());
            let namespace = blocking(move || {
                std::fs::create_dir_all(&at)
                    .map_err(|e| EngineError::internal(format!("making {}: {e}", at.display())))?;
                engine.inner.networks.create_empty_namespace().map_err(crate::joined::network_error)
            })
            .await?;
            let bundle = recipe.ready.is_some();
            if let Some(ready) = recipe.ready {
                let (engine, id, at) = (self.clone(), id.to_owned(), dir.clone());
                let isolation = recipe.isolation;
                blocking(move || engine.write_ready_bundle(&id, &at, owner, isolation, &ready)).await?;
            }
            let config = ShimConfig {
                isolation: recipe.isolation,
                machine: recipe.machine,
                owner,
                volumes: self.inner.volumes.root().to_owned(),
                spare: Some(SpareConfig { key: key.to_owned(), bundle }),
                ..Default::default()
            };
            let spawned = Sandbox::spawn(&self.config().executable, &dir, &config).await;
            let (sandbox, events) = spawned.map_err(|e| failed(&e))?;
            let process = sandbox.process().await.map_err(|e| failed(&e))?;
            Ok(Spare { dir: dir.clone(), sandbox, events, process, namespace, owner })
        };
        let spare = match made.await {
            Ok(spare) => spare,
            Err(e) => {
                let cgroup = self.cgroup_of_spare(&dir);
                let _ = tokio::task::spawn_blocking(move || sweep(&dir, &cgroup)).await;
                self.inner.spares.release(owner);
                return Err(e);
            }
        };
        let prepared = async {
            let network = spare.namespace.try_clone().map_err(|e| failed(&e))?;
            spare.sandbox.prepare(network).await.map_err(|e| {
                let log = std::fs::read_to_string(spare.dir.join(silo_sandbox::files::SHIM_LOG));
                failed(&format!("{e} {}", log.unwrap_or_default().trim()))
            })
        };
        match prepared.await {
            Ok(()) => Ok(spare),
            Err(e) => {
                // Its range of ids is nobody's only when nothing of it runs.
                self.end_spare(spare, END_LIMIT).await;
                Err(e)
            }
        }
    }

    /// Ends spares: their shims see the connection close.
    async fn end_spares(&self, spares: Vec<Spare>) {
        for spare in spares {
            self.end_spare(spare, END_LIMIT).await;
        }
    }

    /// Ends a spare, and kills its shim if that has not ended by itself after `limit`; then its directory and its range of
    /// host ids are nobody's.
    async fn end_spare(&self, spare: Spare, limit: Duration) {
        let Spare { dir, owner, sandbox, events, process, namespace } = spare;
        drop((sandbox, events, namespace));
        let cgroup = self.cgroup_of_spare(&dir);
        let ended = tokio::task::spawn_blocking(move || {
            if !process.wait(limit) {
                process.kill();
                process.wait(END_LIMIT);
            }
            sweep(&dir, &cgroup);
        });
        let _ = ended.await;
        self.inner.spares.release(owner);
    }

    /// Ends all spares, and makes no more of the kinds that there were.
    pub async fn empty_pool(&self) {
        self.end_spares(self.inner.spares.pool.forget(|_| true)).await;
    }

    /// Ends the spares that have layers which are not there any more.
    pub(crate) async fn forget_spares_of_gone_images(&self) {
        let engine = self.clone();
        let gone = blocking(move || {
            Ok(engine.inner.spares.pool.forget(|recipe| {
                let image = recipe.ready.as_ref().map(|ready| &ready.image);
                image.is_some_and(|id| engine.inner.images.chain_id(id).is_err())
                    || recipe.machine.layers.iter().flatten().any(|layer| !layer.is_dir())
            }))
        });
        self.end_spares(gone.await.unwrap_or_default()).await;
    }

    /// The pool as it is.
    pub fn pool(&self) -> PoolState {
        let pool = &self.inner.spares.pool;
        let (ready, making) = pool.show();
        PoolState { most: pool.bounds().all, making, ranges: self.inner.spares.ranges().len(), ready }
    }

    /// The pool as soon as so many spares are ready, or as it is after `limit`.
    pub async fn await_spares(&self, ready: usize, limit: Duration) -> PoolState {
        let mut changes = self.inner.spares.pool.changes();
        let _ = tokio::time::timeout(limit, changes.wait_for(|count| *count >= ready)).await;
        self.pool()
    }

    /// Begins a start with a spare, if one fits; whatever comes of it but a container that is about to run: `None`.
    pub(crate) async fn begin_with_spare(&self, entry: &Arc<Entry>) -> Option<Begun> {
        let spare = self.take_spare(entry).await?;
        let furnished = async {
            let namespace = spare.namespace.try_clone();
            let namespace = namespace
                .map_err(|e| EngineError::internal(format!("the spare's network namespace: {e}")))?;
            self.change(entry, |r| r.id_range = spare.owner)?;
            let (dir, shim) = (self.dir(&entry.id), self.shim_config(&entry.record()));
            let (joined, became) =
                tokio::join!(self.furnish(entry, Some(namespace)), spare.sandbox.become_shim_of(&dir, &shim));
            let joined = joined?;
            if let Err(e) = became {
                self.leave_networks(&entry.id, &joined.adapters);
                return Err(EngineError::internal(e.to_string()));
            }
            Ok(joined)
        };
        let furnished: Result<Joined> = furnished.await;
        match furnished {
            Ok(joined) => {
                let Spare { dir, sandbox, events, owner, .. } = spare;
                self.inner.spares.release(owner);
                // The start finds in the spare's directory what it is had from.
                let rest = Rest { cgroup: self.cgroup_of_spare(&dir), dir };
                Some(Begun { joined, sandbox, events, rest: Some(rest) })
            }
            Err(e) => {
                tracing::warn!("container {}: its spare does not become it: {e}", entry.id);
                // One that is late must not become it any more: another shim is about to.
                self.end_spare(spare, Duration::ZERO).await;
                silo_sandbox::forget_handed_over(&self.dir(&entry.id));
                None
            }
        }
    }

    /// A spare of this container's image, else one that can become any.
    async fn take_spare(&self, entry: &Arc<Entry>) -> Option<Spare> {
        if self.inner.spares.is_off() {
            return None;
        }
        let (engine, record) = (self.clone(), entry.record());
        let keys = blocking(move || {
            let networks = record.spec.networks.iter().all(|e| engine.network_of(e).is_ok());
            let fits = networks && fits(&record, &engine.dir(&record.id).join("top"));
            if fits { engine.spare_keys(&record) } else { Ok(None) }
        });
        let keys = keys.await.unwrap_or_else(|e| {
            tracing::warn!("container {}: which spare it could be: {e}", entry.id);
            None
        })?;
        let pool = &self.inner.spares.pool;
        keys.iter().find_map(|key| pool.take(key))
    }

    /// Of spares that a container can be had from, those first that have most of it.
    fn spare_keys(&self, record: &ContainerRecord) -> Result<Option<Vec<String>>> {
        let mut shim = self.shim_config(record);
        let executable = &self.config().executable;
        if let Some(ready) = self.ready_of(record)? {
            // What was made ready beforehand has a disk of the usual size.
            if record.spec.storage_size != 0 {
                return Ok(None);
            }
            shim.machine.ready = self.ready_machine(record)?;
            return Ok(silo_sandbox::spare_key(executable, &shim, Some(&ready.key)).map(|key| vec![key]));
        }
        let Some(any) = silo_sandbox::spare_key(executable, &shim, None) else { return Ok(None) };
        let chain = self.inner.images.chain_id(&record.image_id).map_err(image::error)?;
        let scratch = silo_sandbox::machine_limit(&shim.machine);
        Ok(Some(vec![format!("{any} {} {scratch}", chain.as_str()), any]))
    }

    /// A container has been started: those that come next are to find spares.
    pub(crate) fn want_spares(&self, entry: &Arc<Entry>) {
        if self.inner.spares.is_off() {
            return;
        }
        let (engine, record) = (self.clone(), entry.record());
        tokio::task::spawn_blocking(move || {
            let keys = match engine.spare_keys(&record) {
                Ok(keys) => keys,
                Err(e) => return tracing::debug!("container {}: no spares: {e}", record.id),
            };
            let Some(keys) = keys else { return };
            let spares = &engine.inner.spares;
            let machine = engine.machine_config(&record);
            let ready = engine.ready_of(&record).ok().flatten();
            let of = |layers, scratch| Recipe {
                isolation: record.isolation,
                machine: silo_sandbox::MachineConfig { layers, scratch, ..machine.clone() },
                ready: ready.clone(),
            };
            match &keys[..] {
                [own] => {
                    let layers = silo_sandbox::layers_of(&engine.dir(&record.id), record.isolation);
                    match (layers, engine.ready_machine(&record)) {
                        (Ok(layers), Ok(of_machine)) => {
                            let mut recipe = of(layers, 0);
                            recipe.machine.ready = of_machine;
                            spares.pool.want(own, recipe, Instant::now());
                        }
                        (Err(e), _) => tracing::debug!("container {}: no spares: {e}", record.id),
                        (_, Err(e)) => tracing::debug!("container {}: no spares: {e}", record.id),
                    }
                }
                [own, any] => {
                    spares.pool.want(any, of(Vec::new(), 0), Instant::now());
                    match silo_sandbox::layers_of(&engine.dir(&record.id), record.isolation) {
                        Ok(layers) if layers.is_empty() => {}
                        // After the other: it is the kind that was asked for.
                        Ok(layers) => spares.pool.want(own, of(layers, machine.scratch), Instant::now()),
                        Err(e) => tracing::debug!("container {}: no spares of its image: {e}", record.id),
                    }
                }
                _ => {}
            }
            spares.wake.notify_one();
        });
    }
}

/// Whether a container can be what a spare becomes: its network namespace and its range of host ids are the spare's.
fn fits(record: &ContainerRecord, top: &Path) -> bool {
    let own_network =
        matches!(record.spec.network, NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_));
    // What is in it has owners of the container's old range.
    let unwritten = std::fs::read_dir(top).map_or(true, |mut found| found.next().is_none());
    own_network && unwritten
}
