//! A machine in its shim's hands: what is under way with it, and who waits for what.

use std::collections::HashMap;
use std::time::Instant;

use silo_runtime::link::Part;

use crate::hyperv::limits::Shares;
use crate::hyperv::machine::{Machine, Plan, Waiting};

use super::asked::Asker;

/// A machine and what is under way with it.
pub(super) struct Host {
    pub(super) machine: Machine,
    pub(super) pending: HashMap<u64, (Waiter, Instant)>,
    /// Its link is over.
    pub(super) deaf: bool,
    /// The container's end is known: the VMM's is no news.
    pub(super) over: bool,
    /// When it is switched off.
    pub(super) off_at: Option<Instant>,
    /// By when a VMM that has closed its port must have ended.
    pub(super) end_by: Option<Instant>,
    /// It was, because somebody wanted the container to end.
    pub(super) killed: bool,
    /// Until it has become the sandbox.
    pub(super) plan: Option<Plan>,
    /// It is a clone of a template: until it has become the sandbox, its end is the template's fault.
    pub(super) cloned: bool,
    /// It was made ready before: until it has become the sandbox, a clone takes its place if it ends.
    pub(super) spare: bool,
    /// Of one that is nobody's yet.
    pub(super) waiting: Option<Waiting>,
    /// Another is tried if it does not become the sandbox in time.
    pub(super) again: bool,
    /// It did not.
    pub(super) late: bool,
    /// Bytes dealt out and not given back yet.
    pub(super) owed: HashMap<(u32, Part), usize>,
    /// The container's limits as they are kept.
    pub(super) limits: Shares,
}

impl Host {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            pending: HashMap::new(),
            deaf: false,
            over: false,
            off_at: None,
            end_by: None,
            killed: false,
            plan: None,
            cloned: false,
            spare: false,
            waiting: None,
            again: false,
            late: false,
            owed: HashMap::new(),
            limits: Shares::default(),
        }
    }

    pub(super) fn is(&self, pid: i32) -> bool {
        self.machine.pid() == pid
    }

    #[cfg(test)]
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Streams whose bytes are kept account of.
    #[cfg(test)]
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Bytes that wait for the agent.
    #[cfg(test)]
    pub(super) fn waiting_output(&mut self) -> usize {
        self.machine.link().output.len()
    }
}

/// Who waits for an answer.
pub(super) enum Waiter {
    /// The first half of a start; its failure is the start's.
    Boot(Asker),
    Start(Asker),
    /// It was booted for its files: that is all of its start.
    Files(Asker),
    Exec(Asker, u32),
    /// The machine's answer is the asker's.
    Plain(Asker),
    /// The container's end is an answer too.
    Kill(Asker),
    /// It rehearses.
    Rehearsal(Asker),
    /// It mounts the disks of the container to come.
    Mount(Asker),
    /// It was answered.
    Nobody,
    /// Booted for its files, it has written them and may go.
    Written(Asker),
    Stats(Asker),
    /// With what is to be kept again if the machine refuses it.
    Update(Asker, Box<Shares>),
}
