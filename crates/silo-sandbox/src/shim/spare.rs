//! A shim as a spare: made ready before anybody asks for it, then the shim of one sandbox.
//!
//! ```text
//! spawned ── Prepare ──> making itself ready ── answered ──> ready ── Become ──> a shim before its Start
//!    └────────── the daemon's connection closes ──────────────┴──> gone, with all that it has made
//! ```
//! What is made ready is its isolation's matter: a machine ([`machine`](super::machine)), or processes of a bundle that lies in
//! the spare's directory. The start that follows finds it in the shim and goes on with it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use silo_runtime::protocol::Answer;

use crate::contract::{Failure, Isolation, ShimConfig, files};
use crate::hyperv::machine::{Plan, wait_ready};
use crate::hyperv::template;

use super::Shim;
use super::asked::Asker;
use super::host::{Host, Waiter};
use super::machine::{ANSWER, START};
use super::reactor::Target;
use super::serve::{other, wrong_state};

/// By how much nicer is what makes itself ready while containers start and run.
const BEHIND: i32 = 10;

impl Shim {
    /// `None`: it is answered when it is ready.
    pub(super) fn prepare(
        &mut self,
        asker: Asker,
        network: Option<OwnedFd>,
    ) -> Result<Option<Answer>, Failure> {
        if self.config.spare.is_none() || self.own_network {
            return Err(wrong_state("this is no spare that is to be made ready"));
        }
        let network = network.ok_or_else(|| wrong_state("a spare needs a network namespace of its own"))?;
        silo_sys::mount::setns(&network, libc::CLONE_NEWNET).map_err(other)?;
        self.own_network = true;
        self.niceness = rustix::process::getpriority_process(None).unwrap_or(0);
        match self.config.isolation {
            Isolation::Hyperv => {
                // Inherited by all that is started meanwhile.
                let _ = rustix::process::setpriority_process(None, self.niceness.saturating_add(BEHIND));
                self.prepare_machine(asker)
            }
            // The bundle's own cgroup says how much it may take.
            Isolation::Process => self.prepare_bundle(asker),
        }
    }

    /// Becomes the shim of the sandbox in `dir`.
    pub(super) fn become_shim_of(&mut self, dir: &Path) -> Result<(), Failure> {
        if self.config.spare.is_none() || !self.own_network {
            return Err(wrong_state("this is no spare that is ready"));
        }
        let become_it = || -> std::io::Result<ShimConfig> {
            let config: ShimConfig = serde_json::from_slice(&std::fs::read(dir.join(files::SHIM))?)?;
            if config.isolation != self.config.isolation {
                return Err(std::io::Error::other("a sandbox of another isolation"));
            }
            if let Some(waiting) = self.machine.as_ref().and_then(|host| host.waiting.as_ref()) {
                waiting.hand_over(&self.dir, dir)?;
            }
            let log = std::fs::File::options().create(true).append(true).open(dir.join(files::SHIM_LOG))?;
            silo_sys::process::duplicate_onto(&log, 2)?;
            Ok(config)
        };
        let mut config = become_it().map_err(other)?;
        // What it was made of stays.
        config.machine.template = self.config.machine.template.take();
        config.machine.host = std::mem::take(&mut self.config.machine.host);
        (self.config, self.dir) = (config, dir.to_owned());
        let _ = rustix::process::setpriority_process(None, self.niceness);
        if let Some(host) = &self.machine {
            host.machine.go_ahead(self.niceness);
        }
        self.open().map_err(other)
    }

    /// Of a spare: the machine that a start is to find.
    fn prepare_machine(&mut self, asker: Asker) -> Result<Option<Answer>, Failure> {
        // A clone is made of it if the spare fails its container.
        let memory = self.template.as_ref().map(OwnedFd::try_clone).transpose().map_err(other)?;
        let saved = template::saved(&self.config.machine, memory)
            .ok_or_else(|| wrong_state("there is no template to make a machine ready from"))?;
        let (machine, waiting, rehearsal) =
            wait_ready(&self.config.machine, self.config.owner, &self.dir, saved).map_err(other)?;
        let mut host = Host::new(machine);
        (host.spare, host.waiting) = (true, Some(waiting));
        host.pending.insert(rehearsal, (Waiter::Rehearsal(asker), Instant::now() + START));
        self.machine = Some(host);
        Ok(None)
    }

    /// Its container's disks are known and not there yet.
    pub(super) fn lacks_disks(&self) -> bool {
        let waiting = self.machine.as_ref().and_then(|host| host.waiting.as_ref());
        !self.config.machine.layers.is_empty() && waiting.is_some_and(|waiting| !waiting.is_mounted())
    }

    pub(super) fn mount_disks(&mut self, asker: Asker) -> std::io::Result<()> {
        let Some(Host { machine, waiting: Some(waiting), pending, .. }) = &mut self.machine else {
            return Ok(());
        };
        let asked = waiting.mount(machine, &self.config.machine, &self.dir)?;
        pending.insert(asked, (Waiter::Mount(asker), Instant::now() + ANSWER));
        Ok(())
    }

    /// The machine that was made ready becomes the sandbox; `None`: there is none, or it failed at that.
    pub(super) fn take_machine(&mut self, plan: &Plan) -> Option<(u64, Option<u64>)> {
        let host = self.machine.as_mut()?;
        let asked = host.waiting.take().map(|waiting| plan.take(&mut host.machine, waiting))?;
        if let Err(e) = &asked {
            crate::complain!("start: a machine that was made ready: {e}; another is cloned");
            self.reactor.forget(Target::Machine, host.machine.port());
            self.machine = None;
        }
        asked.ok()
    }
}
