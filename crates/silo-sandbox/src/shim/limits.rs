//! A running machine's limits: of its processes, of its disks and in it, changed together or not at all.

use std::time::Instant;

use oci_spec::runtime::LinuxResources;
use silo_runtime::protocol::{Answer, Call};

use crate::contract::Failure;
use crate::hyperv::limits::Shares;

use super::Shim;
use super::asked::Asker;
use super::host::Waiter;
use super::machine::ANSWER;
use super::serve::{other, wrong_state};

impl Shim {
    /// Asks the machine last: what it refuses is taken back from the others.
    pub(super) fn update_machine(&mut self, asker: Asker, resources: &LinuxResources) -> Result<(), Failure> {
        let disk = silo_sys::block::disk_of(&self.dir).map_err(other)?;
        let limits = Shares::of(resources, disk);
        let inside = limits.inside.clone();
        let before = self.keep(limits)?;
        let host = self.machine.as_mut().ok_or_else(|| wrong_state("it is not running"))?;
        match host.machine.ask(Call::Update(Box::new(inside))) {
            Ok(id) => {
                let waiter = Waiter::Update(asker, Box::new(before));
                host.pending.insert(id, (waiter, Instant::now() + ANSWER));
                Ok(())
            }
            Err(e) => {
                self.keep_again(before);
                Err(other(e))
            }
        }
    }

    pub(super) fn update_answered(&mut self, asker: Asker, before: Shares, answer: Answer) {
        let answer = match answer {
            Answer::Done => Answer::Done,
            Answer::Failed(failure) => Answer::Failed(failure),
            _ => Answer::Failed(wrong_state("its virtual machine answers something else")),
        };
        if matches!(answer, Answer::Failed(_)) {
            self.keep_again(before);
        }
        self.reply(asker, answer);
    }

    /// Limits the machine's processes as those of a running container: while it started they had what they needed.
    pub(super) fn limit_running(&mut self) {
        if self.config.files_of.is_some() {
            return;
        }
        if let (Some(cgroup), Some(host)) = (&self.cgroup, &self.machine)
            && let Err(e) = cgroup.update(&host.limits.of_running())
        {
            crate::complain!("limiting the machine: {e}");
        }
    }

    /// The host's and the VMM's share; what was kept before.
    fn keep(&mut self, limits: Shares) -> Result<Shares, Failure> {
        let (cgroup, host) = match (&self.cgroup, &mut self.machine) {
            (Some(cgroup), Some(host)) if self.exit.is_none() => (cgroup, host),
            _ => return Err(wrong_state("it is not running")),
        };
        cgroup.update(&limits.of_running()).map_err(other)?;
        if limits.rates != host.limits.rates
            && let Err(e) = host.machine.throttle(&limits.rates)
        {
            let _ = host.machine.throttle(&host.limits.rates);
            if let Err(e) = cgroup.update(&host.limits.of_running()) {
                crate::complain!("taking limits back: {e}");
            }
            return Err(other(e));
        }
        Ok(std::mem::replace(&mut host.limits, limits))
    }

    fn keep_again(&mut self, before: Shares) {
        if let Err(e) = self.keep(before) {
            crate::complain!("taking limits back: {e}");
        }
    }
}
