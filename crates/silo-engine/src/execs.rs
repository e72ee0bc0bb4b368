//! The execs that there are: in memory while their container runs, and some time after their end.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{EngineError, Result};
use crate::lock::lock;
use crate::record::{ContainerId, ExecRecord};

/// How long an ended exec can still be inspected.
const KEPT: Duration = Duration::from_secs(300);

pub(crate) fn already_run(exec: &str) -> EngineError {
    EngineError::conflict(format!("exec command {exec} has already run"))
}

/// All execs.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    list: Mutex<HashMap<String, Held>>,
    /// Told at each end.
    pub(crate) ended: tokio::sync::Notify,
}

/// An exec, and who waits for it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) record: ExecRecord,
    ended: Option<Instant>,
    pub(crate) waiter: Option<oneshot::Sender<(u32, String)>>,
}

impl Execs {
    pub(crate) fn enter(&self, record: ExecRecord) {
        let mut list = lock(&self.list);
        list.retain(|_, h| h.ended.is_none_or(|e| e.elapsed() < KEPT));
        list.insert(record.id.clone(), Held { record, ended: None, waiter: None });
    }

    /// Enters an exec of a shim's that an earlier daemon has started.
    pub(crate) fn restore(&self, record: ExecRecord) {
        lock(&self.list).insert(record.id.clone(), Held { record, ended: None, waiter: None });
    }

    pub(crate) fn get(&self, id: &str) -> Result<ExecRecord> {
        let list = lock(&self.list);
        let found = match list.get(id) {
            Some(held) => Some(held),
            None if id.len() >= 12 => {
                let mut found = list.iter().filter(|(k, _)| k.starts_with(id)).map(|(_, h)| h);
                found.next().filter(|_| found.next().is_none())
            }
            None => None,
        };
        found
            .map(|h| h.record.clone())
            .ok_or_else(|| EngineError::not_found(format!("No such exec instance: {id}")))
    }

    /// Marks the exec as running, for the one caller that may run it.
    pub(crate) fn claim(&self, id: &str) -> Result<()> {
        match lock(&self.list).get_mut(id) {
            Some(held) if held.record.is_new() => {
                held.record.running = true;
                Ok(())
            }
            _ => Err(already_run(id)),
        }
    }

    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Held)) {
        if let Some(held) = lock(&self.list).get_mut(id) {
            change(held);
        }
    }

    pub(crate) fn end(&self, id: &str, code: u32, output: String) -> Option<ExecRecord> {
        let mut list = lock(&self.list);
        // Ended already: the news of it came twice.
        let held = list.get_mut(id).filter(|h| h.record.running)?;
        held.record.running = false;
        held.record.exit_code = Some(code);
        held.ended = Some(Instant::now());
        self.ended.notify_waiters();
        if let Some(waiter) = held.waiter.take() {
            let _ = waiter.send((code, output));
        }
        Some(held.record.clone())
    }

    /// Everything that still ran in a container has ended with it.
    pub(crate) fn container_ended(&self, container: &ContainerId, code: u32) {
        let running: Vec<String> = lock(&self.list)
            .values()
            .filter(|h| h.record.container == *container && h.record.running)
            .map(|h| h.record.id.clone())
            .collect();
        for id in running {
            self.end(&id, if code == 0 { 137 } else { code }, String::new());
        }
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        lock(&self.list).retain(|_, h| h.record.container != *container);
    }

    pub(crate) fn of(&self, container: &ContainerId) -> Vec<String> {
        let mut ids: Vec<String> = lock(&self.list)
            .values()
            .filter(|h| h.record.container == *container && h.record.exit_code.is_none())
            .map(|h| h.record.id.clone())
            .collect();
        ids.sort();
        ids
    }
}
