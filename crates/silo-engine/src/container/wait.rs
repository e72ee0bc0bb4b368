//! `wait`: until a container stops, ends its next run, or is gone.

use std::future::Future;

use crate::engine::Engine;
use crate::error::Result;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (now, or from some time on).
    NotRunning,
    /// Its next run ends.
    NextExit,
    /// It is gone.
    Removed,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOutcome {
    /// 32 bits wide.
    pub exit_code: u32,
    /// Why it could not be started.
    pub error: Option<String>,
}

impl Engine {
    /// Waits. The outer error is an unknown name; the future ends when the condition holds.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitOutcome> + Send + 'static + use<>> {
        let entry = self.find(name)?;
        // Looked at now, so that a start right after this call is not missed.
        let mut changed = entry.changed.subscribe();
        let before = changed.borrow().ended;
        Ok(async move {
            loop {
                let now = changed.borrow_and_update().clone();
                let done = match condition {
                    WaitCondition::NotRunning => !entry.status().is_running() || now.removed,
                    WaitCondition::NextExit => now.ended > before || now.removed,
                    WaitCondition::Removed => now.removed,
                };
                if done || changed.changed().await.is_err() {
                    let (code, failed) = (entry.with(|r| r.state.exit_code), now.error);
                    let exit_code = if now.ended > before { now.exit_code } else { code };
                    // As dockerd: who waits for the removal hears of what went wrong with that only.
                    let error = failed.filter(|_| condition != WaitCondition::Removed);
                    return WaitOutcome { exit_code, error };
                }
            }
        })
    }
}
