//! The end of work that nobody waits for any more: requests under way are broken off.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::registry::error::{RegistryError, Result};

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    agents: Vec<ureq::Agent>,
    children: Vec<Cancel>,
}

/// Shared by all that work on one request. A handle: cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<(Mutex<State>, Condvar)>);

impl Cancel {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything; what waits returns at once.
    pub fn cancel(&self) {
        let (agents, children) = {
            let mut state = self.state();
            state.cancelled = true;
            (std::mem::take(&mut state.agents), std::mem::take(&mut state.children))
        };
        self.0.1.notify_all();
        for child in children {
            child.cancel();
        }
        for agent in agents {
            agent.shutdown();
        }
    }

    /// A part of the work that may be ended alone, and ends with the whole.
    pub(crate) fn child(&self) -> Self {
        let child = Self::default();
        let mut state = self.state();
        if state.cancelled {
            child.state().cancelled = true;
        }
        state.children.push(child.clone());
        child
    }

    /// An error once it is cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.state().cancelled { Err(RegistryError::Cancelled) } else { Ok(()) }
    }

    /// Waits, or ends at once with an error.
    pub fn wait(&self, time: Duration) -> Result<()> {
        let state = self.state();
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, time, |s| !s.cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        if state.cancelled { Err(RegistryError::Cancelled) } else { Ok(()) }
    }

    /// Breaks off an agent's requests when it is cancelled.
    pub(crate) fn watch(&self, agent: &ureq::Agent) {
        let mut state = self.state();
        if state.cancelled {
            drop(state);
            agent.clone().shutdown();
        } else {
            state.agents.push(agent.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_it_is_cancelled() {
        let cancel = Cancel::default();
        assert!(cancel.check().is_ok() && cancel.wait(Duration::from_millis(1)).is_ok());
        let other = cancel.clone();
        let start = std::time::Instant::now();
        let thread = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        let child = cancel.child();
        let own = cancel.child();
        own.cancel();
        assert!(cancel.check().is_ok() && child.check().is_ok());
        cancel.cancel();
        assert!(child.check().is_err() && cancel.child().check().is_err());
        assert!(matches!(thread.join().unwrap(), Err(RegistryError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(30) && cancel.check().is_err());
    }
}
