//! After a start of the daemon: takes over containers that run, ends what a crash left half-done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use silo_image::ImageStore;
use silo_network::{Network, NetworkConfig};
use silo_sandbox::{Exit, Sandbox};

use crate::db::Db;
use crate::engine::{Engine, EngineConfig, Entry, blocking, lock, random_id};
use crate::error::{EngineError, Result};
use crate::image;
use crate::record::Status;
use crate::spec::RestartPolicy;
use crate::volume::Volumes;

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
            if let Err(e) = sweeping.inner.network.sweep() {
                tracing::warn!("network: {e}");
            }
            sweeping.sweep_directories();
            Ok(())
        })
        .await?;
        for entry in restart {
            engine.note(&entry, |r| r.state.status = Status::Restarting);
            engine.restart_later(&entry, Duration::ZERO);
        }
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
        let images = ImageStore::open(&config.root).map_err(image::error)?;
        let volumes = Volumes::open(&config.root, &db)?;
        let network =
            Network::open(NetworkConfig { bridge: config.bridge.clone(), subnet: config.subnet.clone() })
                .map_err(|e| EngineError::internal(format!("network: {e}")))?;
        let engine = Self::assemble(config, id, db, images, network, volumes);
        engine.restore()?;
        Ok(engine)
    }

    /// Brings one container's record in line with the world; true: its policy wants it started.
    async fn recover(&self, entry: &Arc<Entry>) -> Result<bool> {
        let record = entry.record();
        match record.state.status {
            Status::Removing | Status::Dead => {
                self.note(entry, |r| r.state.status = Status::Exited);
                let _ = self.remove_entry(entry, false).await;
                return Ok(false);
            }
            Status::Restarting => return Ok(true),
            _ => {}
        }
        let socket = self.socket(&entry.id);
        if let Ok((sandbox, events)) = Sandbox::connect(&socket).await {
            let state = sandbox.state().await;
            match state {
                Ok(state) if state.exit.is_none() && state.pid != 0 && record.state.status.is_running() => {
                    tracing::info!("container {} taken over", entry.id);
                    if let Some(adapter) = &record.adapter {
                        self.inner.network.adopt(adapter);
                        self.inner.network.readopt_ports(&record.id.0, adapter, &record.published);
                    }
                    *lock(&entry.sandbox) = Some(sandbox);
                    self.note(entry, |r| {
                        r.state.status = if state.paused { Status::Paused } else { Status::Running };
                        r.state.pid = state.pid;
                    });
                    self.supervise(entry, events);
                    return Ok(false);
                }
                Ok(state) => {
                    // Ended, or started by a daemon that was killed before it could say so: that start is undone.
                    let _ = sandbox.shutdown().await;
                    let exit = match state.exit {
                        Some(exit) => exit,
                        None => self.exit_without_shim(entry).await,
                    };
                    return Ok(self.found_ended(entry, exit, record.state.status.is_running()));
                }
                Err(_) => {}
            }
        }
        if record.state.status.is_running() {
            let exit = self.exit_without_shim(entry).await;
            return Ok(self.found_ended(entry, exit, true));
        }
        if record.state.status == Status::Created || record.state.status == Status::Exited {
            // A start that a crash cut short may have left processes.
            self.exit_without_shim(entry).await;
        }
        let always = matches!(record.spec.restart, RestartPolicy::Always)
            || (record.spec.restart == RestartPolicy::UnlessStopped && !record.stopped_by_user);
        Ok(always && record.state.started_at.is_some() && record.state.status == Status::Exited)
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
            r.adapter = None;
            r.published.clear();
        });
        let record = entry.record();
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
        for found in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = found.file_name().to_string_lossy().into_owned();
            if self.find(&name).is_err()
                && let Err(e) = std::fs::remove_dir_all(found.path())
            {
                tracing::warn!("removing {}: {e}", found.path().display());
            }
        }
    }
}
