//! After a start of the daemon: takes over containers that run, ends what a crash left half-done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use silo_image::ImageStore;
use silo_network::Networks;
use silo_sandbox::{Events, Exit, Sandbox, SandboxError, SandboxState, VERSION};

use crate::build_records::BuildCache;
use crate::db::{Db, Table};
use crate::engine::{Engine, EngineConfig, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::image;
use crate::lock::lock;
use crate::record::Status;
use crate::spec::RestartPolicy;
use crate::volumes::Volumes;

/// Pause between two questions to a shim that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A shim that answers.
struct Alive {
    sandbox: Sandbox,
    events: Events,
    state: SandboxState,
}

impl Engine {
    /// Opens everything below `config.root` and takes over what runs. One engine a root at a time.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let engine = blocking(move || Self::open_blocking(config)).await?;
        let entries = engine.entries();
        let mut restart = Vec::new();
        for entry in entries {
            if engine.recover(&entry).await? {
                restart.push(entry);
            }
        }
        let sweeping = engine.clone();
        blocking(move || {
            if let Err(e) = sweeping.inner.networks.sweep() {
                tracing::warn!("network: {e}");
            }
            sweeping.sweep_volumes();
            sweeping.sweep_directories();
            sweeping.sweep_cache_mounts();
            sweeping.sweep_secrets();
            sweeping.sweep_copies(&sweeping.config().run);
            sweeping.sweep_spares();
            // This version may write others.
            sweeping.sweep_ready(&|_| false);
            sweeping.forget_chains();
            Ok(())
        })
        .await?;
        for entry in engine.entries().into_iter().filter(|e| e.with(|r| r.networks_changing)) {
            let engine = engine.clone();
            // A guest that does not answer holds up nobody.
            tokio::spawn(async move { engine.finish_changing_networks(&entry).await });
        }
        for entry in restart {
            engine.restart_now(&entry);
        }
        engine.keep_spares();
        Ok(engine)
    }

    fn open_blocking(config: EngineConfig) -> Result<Self> {
        let make = |dir: &Path, mode: u32| -> Result<()> {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(dir)
                .map_err(|e| EngineError::internal(format!("making {}: {e}", dir.display())))
        };
        make(&config.root, 0o711)?;
        make(&config.root.join("containers"), 0o711)?;
        make(&config.run, 0o711)?;
        make(&config.run.join("s"), 0o700)?;
        let db = Db::open(&config.root.join("silo.db"))?;
        let id = db.setting("engine-id", random_id)?;
        let mut cache = Ok(BuildCache::default());
        let images = ImageStore::open(&config.root, |images| cache = BuildCache::open(&db, images))
            .map_err(image::error)?;
        let cache = cache?;
        let volumes = Volumes::open(&config.root, &db)?;
        let networks = Networks::open(config.networks.clone())
            .map_err(|e| EngineError::internal(format!("network: {e}")))?;
        let engine = Self::assemble(config, id, db, images, networks, volumes, cache);
        engine.tell_mounts()?;
        engine.restore_networks()?;
        engine.restore()?;
        Ok(engine)
    }

    /// Brings one container's record in line with the world; true: its policy wants it started.
    async fn recover(&self, entry: &Arc<Entry>) -> Result<bool> {
        let record = entry.record();
        let status = record.state.status;
        if matches!(status, Status::Removing | Status::Dead) {
            self.note(entry, |r| r.state.status = Status::Exited);
            let _ = self.remove_entry(entry, record.removes_volumes).await;
            return Ok(false);
        }
        if record.spec.of_build {
            // Who built is gone.
            if let Ok(Some(alive)) = self.reach(entry).await {
                let _ = alive.sandbox.shutdown().await;
            }
            self.exit_without_shim(entry).await;
            self.note(entry, |r| {
                r.state.status = Status::Exited;
                r.state.pid = 0;
                r.adapters.clear();
            });
            let _ = self.remove_entry(entry, true).await;
            return Ok(false);
        }
        self.sweep_copies(&self.dir(&entry.id));
        match self.reach(entry).await {
            Ok(found) => Ok(self.settle_with(entry, found).await),
            Err(why) => {
                // It lives and cannot be spoken to now: nothing of it is touched, and it is asked again.
                tracing::error!("container {}: its shim does not answer and is left alone: {why}", entry.id);
                self.recover_later(entry);
                Ok(false)
            }
        }
    }

    /// As [`Engine::recover`], from what was found of the shim (`None`: there is none).
    async fn settle_with(&self, entry: &Arc<Entry>, found: Option<Alive>) -> bool {
        let record = entry.record();
        let status = record.state.status;
        let restarts = status == Status::Restarting;
        match found {
            Some(alive) if alive.state.exit.is_none() && alive.state.pid != 0 && status.is_running() => {
                self.take_over(entry, alive).await;
                false
            }
            Some(Alive { sandbox, state, .. }) => {
                // Ended, or started by a daemon that was killed before it could say so: that start is undone.
                let _ = sandbox.shutdown().await;
                let exit = match state.exit {
                    Some(exit) => exit,
                    None => self.exit_without_shim(entry).await,
                };
                self.found_ended(entry, exit, status.is_running()) || restarts
            }
            None if status.is_running() => {
                let exit = self.exit_without_shim(entry).await;
                self.found_ended(entry, exit, true)
            }
            None => {
                // A start that a crash cut short may have left processes.
                self.exit_without_shim(entry).await;
                let always = matches!(record.spec.restart, RestartPolicy::Always)
                    || (record.spec.restart == RestartPolicy::UnlessStopped && !record.stopped_by_user);
                restarts || always && record.state.started_at.is_some() && status == Status::Exited
            }
        }
    }

    /// Asks a container's shim who it is; `None`: there is none. The error says why one that is there does not answer as
    /// it should.
    async fn reach(&self, entry: &Entry) -> std::result::Result<Option<Alive>, String> {
        let asked = async {
            let (sandbox, events) = Sandbox::connect(&self.socket(&entry.id)).await?;
            let state = sandbox.state().await?;
            Ok(Alive { sandbox, events, state })
        };
        match asked.await {
            Ok(alive) if alive.state.version > VERSION || alive.state.version + 1 < VERSION => Err(format!(
                "it speaks version {} of the task protocol, this daemon {VERSION} and the one before",
                alive.state.version
            )),
            Ok(alive) => Ok(Some(alive)),
            Err(SandboxError::Gone) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn take_over(&self, entry: &Arc<Entry>, alive: Alive) {
        let Alive { sandbox, events, state } = alive;
        tracing::info!("container {} taken over", entry.id);
        let record = entry.record();
        self.readopt_networks(&record, state.shim_pid);
        // A commit that a crash cut short has left it frozen; nobody paused it.
        let frozen_by_us = state.paused && record.state.status == Status::Running;
        if frozen_by_us && let Err(e) = sandbox.freeze(false).await {
            tracing::warn!("container {}: thawing it: {e}", entry.id);
        }
        self.adopt_volumes(&record);
        self.restore_execs(entry, &state);
        *lock(&entry.sandbox) = Some(sandbox);
        self.note(entry, |r| {
            r.state.status = if state.paused && !frozen_by_us { Status::Paused } else { Status::Running };
            r.state.pid = state.pid;
        });
        self.supervise(entry, events);
    }

    fn recover_later(&self, entry: &Arc<Entry>) {
        let (engine, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            loop {
                // A shim that hangs tells nobody when it no longer does.
                tokio::time::sleep(ASK_AGAIN).await;
                let _verb = entry.verb.lock().await;
                let Ok(found) = engine.reach(&entry).await else { continue };
                if engine.settle_with(&entry, found).await {
                    engine.restart_now(&entry);
                }
                return;
            }
        });
    }

    fn restart_now(&self, entry: &Arc<Entry>) {
        self.note(entry, |r| r.state.status = Status::Restarting);
        self.restart_later(entry, Duration::ZERO);
    }

    /// A container that was running before and has ended meanwhile; true: it is to be started again.
    fn found_ended(&self, entry: &Arc<Entry>, exit: Exit, was_running: bool) -> bool {
        if !was_running {
            return false;
        }
        self.note(entry, |r| {
            r.state.status = Status::Exited;
            r.state.pid = 0;
            r.state.exit_code = exit.code;
            r.state.oom_killed = exit.oom_killed;
            r.state.error.clone_from(&exit.error);
            r.state.finished_at = Timestamp::from_millisecond(exit.at_ms).ok();
            r.adapters.clear();
            r.published.clear();
        });
        let record = entry.record();
        self.release_volumes(&record);
        self.network_events(&record, "disconnect");
        self.inner.events.left(&record);
        self.inner.events.container(&record, "die", &[("exitCode", exit.code.to_string())]);
        let restart = match record.spec.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => !record.stopped_by_user,
            RestartPolicy::OnFailure { max_retries } => {
                exit.code != 0
                    && !record.stopped_by_user
                    && (max_retries == 0 || record.restart_count < max_retries)
            }
        };
        if !restart && record.spec.auto_remove {
            let (engine, entry) = (self.clone(), entry.clone());
            tokio::spawn(async move {
                let _ = engine.remove_entry(&entry, true).await;
            });
        }
        restart
    }

    /// Directories of containers that are not in the database.
    fn sweep_directories(&self) {
        let dir = self.config().root.join("containers");
        // By the keys of the table, not by what could be read of it.
        let known = match self.inner.db.keys(Table::Containers) {
            Ok(known) => known,
            Err(e) => return tracing::error!("left-over directories stay: {e}"),
        };
        for found in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = found.file_name().to_string_lossy().into_owned();
            if !known.contains(&name)
                && let Err(e) = std::fs::remove_dir_all(found.path())
            {
                tracing::warn!("removing {}: {e}", found.path().display());
            }
        }
    }
}
