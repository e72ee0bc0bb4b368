//! `silo system down`: everything of Silo's networks goes from the host. The next start of the daemon makes it again.

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::joined::network_error;

impl Engine {
    /// Takes bridges, adapters, rules and name servers away. Containers that run are stopped by `force`, else they forbid
    /// it. Those with a restart policy start again with the daemon.
    pub async fn take_down(&self, force: bool) -> Result<()> {
        let running: Vec<_> = self.entries().into_iter().filter(|e| e.status().is_running()).collect();
        if !running.is_empty() && !force {
            let mut names: Vec<String> = running.iter().map(|e| e.with(|r| r.name.clone())).collect();
            names.sort();
            return Err(EngineError::conflict(format!(
                "containers are running: {}; stop them first, or use --force",
                names.join(", ")
            )));
        }
        for entry in self.entries() {
            entry.stop_restarting(true);
            entry.changed.send_modify(|_| {});
        }
        let mut stopping = tokio::task::JoinSet::new();
        for entry in running {
            let engine = self.clone();
            stopping.spawn(async move {
                let _verb = entry.verb.lock().await;
                let signal = engine.stop_signal(&entry, None)?;
                engine.stop_entry(&entry, signal, None).await
            });
        }
        while let Some(stopped) = stopping.join_next().await {
            stopped.map_err(|e| EngineError::internal(format!("a task panicked: {e}")))??;
        }
        self.empty_pool().await;
        self.settle(SETTLE_LIMIT).await;
        let engine = self.clone();
        blocking(move || engine.inner.networks.teardown().map_err(network_error)).await
    }

    /// Has the daemon end.
    pub fn end(&self) {
        self.inner.end.notify_one();
    }

    /// Waits for that.
    pub async fn ended_by_itself(&self) {
        self.inner.end.notified().await;
    }
}

/// How long adapters of what was stopped may take to go.
const SETTLE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
