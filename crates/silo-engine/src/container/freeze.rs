//! A container frozen so that all its changes are on disk.

use std::sync::Arc;

use silo_guest::Flushed;

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result, sandbox_error};
use crate::placement;
use crate::record::Status;

/// How often a container is thawed again that changed something between its flush and its freeze.
const TRIES: u32 = 3;

impl Engine {
    /// Flushes a running container and freezes it, again if it changed something in between; with the last try it stays as
    /// it is. `false`: it has ended meanwhile, and needs neither.
    ///
    /// # Errors
    /// Of the freeze. That of the flush goes to `unflushed`, which says whether it counts.
    pub(crate) async fn flush_and_freeze(
        &self,
        entry: &Arc<Entry>,
        unflushed: impl Fn(EngineError) -> Result<()>,
    ) -> Result<bool> {
        let mut n = 1;
        loop {
            if let Err(e) = self.flush(entry).await {
                unflushed(e)?;
            }
            let Ok(sandbox) = entry.running() else { return Ok(false) };
            match sandbox.freeze(true).await {
                Ok(()) => {}
                Err(_) if sandbox.state().await.map_or(true, |s| s.exit.is_some()) => return Ok(false),
                Err(e) => return Err(sandbox_error(e)),
            }
            let flushed = self.flushed(entry).await;
            if n == TRIES || matches!(flushed, Ok(Flushed::All | Flushed::Failed(_))) {
                return Ok(true);
            }
            sandbox.freeze(false).await.map_err(sandbox_error)?;
            flushed?;
            tracing::debug!("container {}: it has changed between flush and freeze", entry.id);
            n += 1;
        }
    }

    /// Has a container's changes written to disk, to be read. A paused one cannot write any more.
    ///
    /// # Errors
    /// A conflict if the pause came before it had written them.
    pub(crate) async fn write_out(&self, entry: &Arc<Entry>) -> Result<()> {
        if entry.status() != Status::Paused {
            return self.flush(entry).await;
        }
        match self.flushed(entry).await? {
            Flushed::Failed(why) => Err(EngineError::conflict(format!(
                "container {} was paused before it could write what it keeps in memory ({why}): unpause it",
                entry.id
            ))),
            Flushed::All | Flushed::ChangedSince => Ok(()),
        }
    }

    /// What of a frozen container's changes is on disk.
    pub(crate) async fn flushed(&self, entry: &Arc<Entry>) -> Result<Flushed> {
        let os = entry.with(|r| r.os);
        let view = self.flush_report(entry).await?;
        blocking(move || Ok(placement::guest(os)?.flushed(view.path()))).await
    }
}
