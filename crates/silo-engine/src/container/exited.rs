//! What follows a container's end: its state, its network, its restart, its removal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use silo_sandbox::{Event, Events, Exit};

use crate::engine::{Engine, Entry, blocking};
use crate::lock::lock;
use crate::record::Status;
use crate::spec::RestartPolicy;

/// How long an ended run's adapter has to go by itself.
const BY_ITSELF: Duration = Duration::from_millis(300);
/// First pause before a restart by policy; doubles with each run shorter than [`STABLE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run this long resets the pause.
const STABLE: Duration = Duration::from_secs(10);

impl Engine {
    /// Listens to a running container's shim until its end.
    pub(crate) fn supervise(&self, entry: &Arc<Entry>, mut events: Events) {
        crate::container::watch_health(self, entry);
        let (engine, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Exited(exit) => {
                        engine.ended(&entry, exit).await;
                        return;
                    }
                    Event::ExecExited { exec, exit, output } => {
                        engine.exec_ended(&entry, &exec, exit.code, output)
                    }
                    Event::Detached { .. } => {
                        let record = entry.record();
                        engine.inner.events.container(&record, "detach", &[]);
                    }
                }
            }
            // The shim is gone without a word: it was killed, or it has written its last one to a file.
            let exit = engine.exit_without_shim(&entry).await;
            engine.ended(&entry, exit).await;
        });
    }

    /// How a container ended whose shim is gone; kills what the shim has left.
    pub(crate) async fn exit_without_shim(&self, entry: &Arc<Entry>) -> Exit {
        let (dir, cgroup, socket) = (self.dir(&entry.id), self.cgroup(&entry.id), self.socket(&entry.id));
        let cleaned = blocking(move || {
            if let Err(e) = silo_sandbox::clean_up_after(&cgroup, &socket) {
                tracing::warn!("cleaning up after a shim: {e}");
            }
            Ok(silo_sandbox::recorded_exit(&dir))
        });
        cleaned.await.ok().flatten().unwrap_or_else(|| Exit {
            code: 137,
            at_ms: Timestamp::now().as_millisecond(),
            error: "the container's shim was killed".to_owned(),
            oom_killed: false,
        })
    }

    /// The container has ended.
    pub(crate) async fn ended(&self, entry: &Arc<Entry>, exit: Exit) {
        let record = entry.record();
        if !record.state.status.is_running() {
            return;
        }
        if !record.published.is_empty() {
            self.unpublish(&entry.id).await;
        }
        if !record.adapters.is_empty() {
            // They go with their namespace, that is with the shim, and the kernel does that in its own time. To order it
            // would hold the kernel's network lock for tens of milliseconds, for which the next start would wait.
            self.begin_leaving(entry, &record.adapters);
            let (engine, entry) = (self.clone(), entry.clone());
            engine.inner.leaving.send_modify(|count| *count += 1);
            tokio::spawn(async move {
                tokio::time::sleep(BY_ITSELF).await;
                let this = engine.clone();
                let left = tokio::task::spawn_blocking(move || this.finish_leaving(&entry)).await;
                engine.inner.leaving.send_modify(|count| *count -= 1);
                if let Err(e) = left {
                    tracing::error!("taking an adapter away: {e}");
                }
            });
        }
        let (engine, of) = (self.clone(), record.clone());
        let _ = blocking(move || {
            engine.release_volumes(&of);
            Ok(())
        })
        .await;
        self.inner.execs.container_ended(&entry.id, exit.code);
        *lock(&entry.sandbox) = None;
        let finished = Timestamp::from_millisecond(exit.at_ms).unwrap_or_else(|_| Timestamp::now());
        let restart = self.restart_after(entry, exit.code);
        self.note(entry, |r| {
            r.state.status = if restart.is_some() { Status::Restarting } else { Status::Exited };
            r.state.pid = 0;
            r.state.exit_code = exit.code;
            r.state.oom_killed = exit.oom_killed;
            r.state.error.clone_from(&exit.error);
            r.state.finished_at = Some(finished);
            r.adapters.clear();
            r.published.clear();
            if restart.is_some() {
                r.restart_count += 1;
            }
        });
        let record = entry.record();
        if exit.oom_killed {
            self.inner.events.container(&record, "oom", &[]);
        }
        self.network_events(&record, "disconnect");
        self.inner.events.left(&record);
        let lasted = record.state.started_at.map_or(0, |s| finished.duration_since(s).as_secs().max(0));
        self.inner.events.container(
            &record,
            "die",
            &[("exitCode", exit.code.to_string()), ("execDuration", lasted.to_string())],
        );
        entry.changed.send_modify(|p| {
            p.ended += 1;
            p.exit_code = exit.code;
            p.error = None;
        });
        if let Some(pause) = restart {
            self.restart_later(entry, pause);
        } else if record.spec.auto_remove && !entry.restarting.load(Ordering::SeqCst) {
            let (engine, entry) = (self.clone(), entry.clone());
            tokio::spawn(async move {
                if let Err(e) = engine.remove_entry(&entry, true).await {
                    tracing::warn!("removing container {}: {e}", entry.id);
                }
            });
        }
    }

    /// The pause before a restart by policy, if there is to be one.
    fn restart_after(&self, entry: &Entry, code: u32) -> Option<Duration> {
        if entry.no_restart.load(Ordering::SeqCst) {
            return None;
        }
        let record = entry.record();
        let wanted = match record.spec.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max_retries } => {
                code != 0 && (max_retries == 0 || record.restart_count < max_retries)
            }
        };
        if !wanted {
            return None;
        }
        let lasted = record.state.started_at.map(|s| Timestamp::now().duration_since(s).unsigned_abs());
        if lasted.is_none_or(|l| l >= STABLE) {
            return Some(FIRST_PAUSE);
        }
        Some(FIRST_PAUSE.saturating_mul(1 << record.restart_count.min(12)).min(LONGEST_PAUSE))
    }

    pub(crate) fn restart_later(&self, entry: &Arc<Entry>, pause: Duration) {
        let (engine, entry) = (self.clone(), entry.clone());
        tokio::spawn(async move {
            let mut changed = entry.changed.subscribe();
            let give_up = async {
                while !entry.no_restart.load(Ordering::SeqCst) {
                    if changed.changed().await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = give_up => return,
            }
            let _verb = entry.verb.lock().await;
            if entry.status() != Status::Restarting || entry.no_restart.load(Ordering::SeqCst) {
                return;
            }
            let count = entry.with(|r| r.restart_count);
            if let Err(e) = engine.start_entry(&entry).await {
                tracing::warn!("restarting container {}: {e}", entry.id);
                return;
            }
            engine.note(&entry, |r| r.restart_count = count);
        });
    }
}
