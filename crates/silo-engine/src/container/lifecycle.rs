//! `stop`, `kill`, `restart`, `pause`, `unpause`, `resize`, `rename`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use silo_sandbox::{FailureKind, SandboxError};

use crate::engine::{Engine, Entry};
use crate::error::{EngineError, Result, sandbox_error};
use crate::record::Status;
use crate::signal;

/// Seconds between the stop signal and SIGKILL, unless the container or the request says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long the kernel may take for a SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Stops a container: its signal, then SIGKILL. Not running: `NotModified`.
    pub async fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let entry = self.find(name)?;
        let signal = self.stop_signal(&entry, signal)?;
        let _verb = entry.verb.lock().await;
        entry.stop_restarting(true);
        match entry.status() {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                self.note(&entry, |r| {
                    r.state.status = Status::Exited;
                    r.stopped_by_user = true;
                });
                entry.changed.send_modify(|_| {});
                self.inner.events.container(&entry.record(), "stop", &[]);
                return Ok(());
            }
            _ => return Err(EngineError::not_modified("container is already stopped")),
        }
        self.note(&entry, |r| r.stopped_by_user = true);
        self.stop_entry(&entry, signal, timeout).await?;
        self.inner.events.container(&entry.record(), "stop", &[]);
        Ok(())
    }

    pub(crate) fn stop_signal(&self, entry: &Entry, given: Option<&str>) -> Result<i32> {
        match given.filter(|s| !s.is_empty()) {
            Some(text) => signal::parse(text),
            None => match entry.with(|r| r.spec.config.stop_signal.clone()) {
                Some(text) => signal::parse(&text),
                None => Ok(15),
            },
        }
    }

    /// Signal, patience, SIGKILL; the caller holds the verb.
    pub(crate) async fn stop_entry(
        &self,
        entry: &Arc<Entry>,
        signal: i32,
        timeout: Option<i64>,
    ) -> Result<()> {
        let Ok(sandbox) = entry.running() else { return Ok(()) };
        if entry.status() == Status::Paused {
            // A frozen process hears nothing.
            sandbox.freeze(false).await.map_err(sandbox_error)?;
            self.note(entry, |r| r.state.status = Status::Running);
        }
        self.tell_kill(entry, signal);
        match sandbox.signal(None, signal).await {
            Ok(()) | Err(SandboxError::Gone) => {}
            Err(SandboxError::Failed(f)) if f.kind == FailureKind::WrongState => {}
            Err(e) => return Err(sandbox_error(e)),
        }
        let seconds = timeout.or_else(|| entry.with(|r| r.spec.config.stop_timeout)).unwrap_or(STOP_TIMEOUT);
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        if self.await_end(entry, patience).await {
            return Ok(());
        }
        self.kill_entry(entry).await
    }

    /// SIGKILL and its effect; the caller holds the verb.
    pub(crate) async fn kill_entry(&self, entry: &Arc<Entry>) -> Result<()> {
        let Ok(sandbox) = entry.running() else { return Ok(()) };
        self.tell_kill(entry, 9);
        match sandbox.shutdown().await {
            Ok(()) | Err(SandboxError::Gone) => {}
            Err(e) => return Err(sandbox_error(e)),
        }
        if self.await_end(entry, Some(KILL_LIMIT)).await {
            return Ok(());
        }
        Err(EngineError::internal(format!(
            "container {} did not end within {} seconds after SIGKILL",
            entry.id,
            KILL_LIMIT.as_secs()
        )))
    }

    fn tell_kill(&self, entry: &Entry, signal: i32) {
        self.inner.events.container(&entry.record(), "kill", &[("signal", signal.to_string())]);
    }

    /// Waits until the container has no process; `None`: without limit.
    pub(crate) async fn await_end(&self, entry: &Arc<Entry>, limit: Option<Duration>) -> bool {
        let mut changed = entry.changed.subscribe();
        let ended = async {
            while entry.status().is_running() {
                if changed.changed().await.is_err() {
                    break;
                }
            }
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, ended).await.is_ok(),
            None => {
                ended.await;
                true
            }
        }
    }

    /// Stops, if it runs, and starts.
    pub async fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let entry = self.find(name)?;
        let signal = self.stop_signal(&entry, signal)?;
        let _verb = entry.verb.lock().await;
        if matches!(entry.status(), Status::Removing | Status::Dead) {
            return Err(EngineError::conflict("container is marked for removal and cannot be started"));
        }
        entry.stop_restarting(true);
        // `--rm` must survive its own restart.
        entry.restarting.store(true, Ordering::SeqCst);
        let stopped = self.stop_entry(&entry, signal, timeout).await;
        entry.restarting.store(false, Ordering::SeqCst);
        self.note(&entry, |r| {
            r.restart_count = 0;
            r.stopped_by_user = false;
        });
        stopped?;
        entry.stop_restarting(false);
        self.start_entry(&entry).await?;
        self.inner.events.container(&entry.record(), "restart", &[]);
        Ok(())
    }

    /// Sends a signal. One that ends the container is meant: no restart by policy follows SIGKILL or the stop signal.
    pub async fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let number = if signal.is_empty() { 9 } else { signal::parse(signal)? };
        let entry = self.find(name)?;
        let not_running = || {
            EngineError::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                entry.id
            ))
        };
        let sandbox = entry.running().map_err(|_| not_running())?;
        let stop_signal = self.stop_signal(&entry, None)?;
        if number == 9 || number == stop_signal {
            entry.stop_restarting(true);
            self.note(&entry, |r| r.stopped_by_user = true);
        }
        if number == 9 && entry.status() == Status::Paused {
            sandbox.freeze(false).await.map_err(sandbox_error)?;
        }
        self.tell_kill(&entry, number);
        match sandbox.signal(None, number).await {
            Ok(()) => {}
            Err(SandboxError::Failed(f)) if f.kind == FailureKind::WrongState => return Err(not_running()),
            Err(e) => return Err(sandbox_error(e)),
        }
        if number == 9 {
            self.await_end(&entry, Some(KILL_LIMIT)).await;
        }
        Ok(())
    }

    /// Freezes all processes.
    pub async fn pause(&self, name: &str) -> Result<()> {
        let entry = self.find(name)?;
        let _verb = entry.verb.lock().await;
        if entry.status() == Status::Paused {
            return Err(EngineError::conflict(format!("container {} is already paused", entry.id)));
        }
        if entry.status() == Status::Restarting {
            return Err(EngineError::conflict(format!(
                "container {} is restarting, wait until the container is running",
                entry.id
            )));
        }
        // Nothing can be asked of a frozen container: its changes are read from disk.
        let unflushed = |e| {
            tracing::warn!("pausing {}: {e}", entry.id);
            Ok(())
        };
        if !self.flush_and_freeze(&entry, unflushed).await? {
            return Err(EngineError::conflict(format!("container {} is not running", entry.id)));
        }
        self.note(&entry, |r| r.state.status = Status::Paused);
        self.inner.events.container(&entry.record(), "pause", &[]);
        Ok(())
    }

    /// Thaws all processes.
    pub async fn unpause(&self, name: &str) -> Result<()> {
        let entry = self.find(name)?;
        let _verb = entry.verb.lock().await;
        if entry.status() != Status::Paused {
            return Err(EngineError::conflict(format!("container {} is not paused", entry.id)));
        }
        entry.running()?.freeze(false).await.map_err(sandbox_error)?;
        self.note(&entry, |r| r.state.status = Status::Running);
        self.inner.events.container(&entry.record(), "unpause", &[]);
        Ok(())
    }

    /// Sets the size of the container's terminal.
    pub async fn resize(&self, name: &str, rows: u16, cols: u16) -> Result<()> {
        let entry = self.find(name)?;
        let sandbox = entry.running()?;
        sandbox.resize(None, rows, cols).await.map_err(sandbox_error)?;
        let size = [("height", rows.to_string()), ("width", cols.to_string())];
        self.inner.events.container(&entry.record(), "resize", &size);
        Ok(())
    }

    /// Gives another name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        if new_name.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        let entry = self.find(name)?;
        let new_name = super::names::check(new_name)?;
        if entry.with(|r| r.name == new_name) {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        let old = self.change_name(&entry, &new_name)?;
        self.tell_names_again(&entry);
        self.inner.events.container(&entry.record(), "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
