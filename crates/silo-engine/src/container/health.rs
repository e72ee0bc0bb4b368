//! Health checks: a probe at intervals while a container runs; the state changes after so many failures in a row.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::engine::{Engine, Entry};
use crate::placement;
use crate::record::{ContainerRecord, HealthProbe, Status};
use crate::spec::Healthcheck;

/// Results kept.
const KEPT: usize = 5;

fn duration(nanoseconds: i64, default: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|n| *n > 0).map_or(default, Duration::from_nanos)
}

/// The command of a check, if there is one.
fn command(record: &ContainerRecord, check: &Healthcheck) -> Option<Vec<String>> {
    let (kind, rest) = check.test.split_first()?;
    match kind.as_str() {
        "CMD" => Some(rest.to_vec()),
        "CMD-SHELL" => {
            let shell = match record.spec.config.shell.as_slice() {
                [] => placement::guest(record.os).ok()?.default_shell(),
                shell => shell.to_vec(),
            };
            Some(shell.into_iter().chain(rest.iter().cloned()).collect())
        }
        _ => None,
    }
}

/// Starts the probing of a container that has just started (or was taken over), if it has a check.
pub(crate) fn watch_health(engine: &Engine, entry: &Arc<Entry>) {
    let record = entry.record();
    let Some(check) = record.spec.config.healthcheck.clone() else { return };
    let Some(command) = command(&record, &check) else { return };
    let (engine, entry, started) = (engine.clone(), entry.clone(), record.state.started_at);
    tokio::spawn(async move {
        let interval = duration(check.interval, Duration::from_secs(30));
        let start_interval = duration(check.start_interval, Duration::from_secs(5));
        let start_period = duration(check.start_period, Duration::ZERO);
        let timeout = duration(check.timeout, Duration::from_secs(30));
        let retries = u32::try_from(check.retries).ok().filter(|r| *r > 0).unwrap_or(3);
        let mut changed = entry.changed.subscribe();
        loop {
            let starting = started
                .is_some_and(|s| Timestamp::now().duration_since(s).unsigned_abs() < start_period)
                && entry.with(|r| r.health.as_ref().is_some_and(|h| h.status == "starting"));
            let pause = tokio::time::sleep(if starting { start_interval } else { interval });
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    change = changed.changed() => {
                        if change.is_err() {
                            return;
                        }
                    }
                }
                if ended(&entry, started) {
                    return;
                }
            }
            if ended(&entry, started) {
                return;
            }
            if entry.status() == Status::Paused {
                continue;
            }
            let start = Timestamp::now();
            let result = engine.probe(&entry, command.clone(), timeout).await;
            if ended(&entry, started) {
                return;
            }
            let (exit_code, output) = match result {
                Ok(Some((code, output))) => (i64::from(code), output),
                Ok(None) => (-1, format!("Health check exceeded timeout ({})", show(timeout))),
                Err(e) => (-1, e.message),
            };
            let probe = HealthProbe { start, end: Timestamp::now(), exit_code, output };
            engine.probed(&entry, probe, retries, starting);
        }
    });
}

fn ended(entry: &Entry, started: Option<Timestamp>) -> bool {
    entry.with(|r| !r.state.status.is_running() || r.state.started_at != started)
}

/// As Go prints a duration of whole seconds or milliseconds.
fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

impl Engine {
    fn probed(&self, entry: &Arc<Entry>, probe: HealthProbe, retries: u32, forgiving: bool) {
        let healthy = probe.exit_code == 0;
        let told = self.note(entry, |r| {
            let health = r.health.get_or_insert_default();
            let before = health.status.clone();
            health.log.push(probe);
            if health.log.len() > KEPT {
                health.log.remove(0);
            }
            if healthy {
                health.failing_streak = 0;
                health.status = "healthy".into();
            } else if !forgiving {
                health.failing_streak += 1;
                if health.failing_streak >= retries {
                    health.status = "unhealthy".into();
                }
            }
            (before != health.status).then(|| health.status.clone())
        });
        if let Some(status) = told {
            self.inner.events.container(&entry.record(), &format!("health_status: {status}"), &[]);
        }
    }
}
