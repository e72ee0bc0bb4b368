//! A container that was brought up before anybody asked for it and waits for its bundle, in a spare's hands.
//!
//! Its directory is the spare's. The start finds it: if the bundle can be had from it, the two directories change what they
//! have of writable layers and it becomes that container; if not, it is ended and the bundle is run as any other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use silo_runtime::cgroup::Cgroup;
use silo_runtime::protocol::Answer;
use silo_runtime::{Bundle, Prepared, Taken};

use crate::contract::{Failure, ShimConfig};

use super::asked::Asker;
use super::reactor::{Interest, Target};
use super::serve::{adopt, other, wrong_state};
use super::task::Task;
use super::{FIRST, Shim, now_ms};

/// Where in a sandbox's directory its writable layers are.
const TOP: &str = "top";

/// See the module.
#[derive(Debug)]
pub(super) struct Ready {
    container: Prepared,
    /// With its streams.
    task: Task,
    /// Who is told when it is ready.
    asker: Option<Asker>,
}

impl Ready {
    pub(super) fn is(&self, pid: i32) -> bool {
        self.container.is(pid)
    }
}

impl Shim {
    /// Brings up the container of the bundle in the spare's directory; answered when it is ready.
    pub(super) fn prepare_bundle(&mut self, asker: Asker) -> Result<Option<Answer>, Failure> {
        let bundle = Bundle::load(&self.dir).map_err(other)?;
        let cgroup = Cgroup::at(bundle.cgroup().map_err(other)?).map_err(other)?;
        let mut task = Task::new(FIRST, None, None, 0, false);
        let stdio = task.open_streams(false, true, false, (0, 0)).map_err(other)?;
        let container = Prepared::start(bundle, cgroup, stdio)?;
        let interest = Interest { read: true, write: false };
        self.reactor.watch(Target::Prepared, container.waiting(), interest).map_err(other)?;
        self.prepared = Some(Ready { container, task, asker: Some(asker) });
        Ok(None)
    }

    /// It says that it is ready, or has ended.
    pub(super) fn prepared_ready(&mut self) {
        let Some(prepared) = &mut self.prepared else { return };
        self.reactor.forget(Target::Prepared, prepared.container.waiting());
        let (word, asker) = (prepared.container.waiting().is_ready(Duration::ZERO), prepared.asker.take());
        let answer = match word {
            Ok(()) => Answer::Done,
            Err(e) => Answer::Failed(other(e)),
        };
        if let Some(asker) = asker {
            self.reply(asker, answer);
        }
    }

    /// It has ended before it was wanted.
    pub(super) fn prepared_gone(&mut self) {
        let Some(mut prepared) = self.prepared.take() else { return };
        self.reactor.forget(Target::Prepared, prepared.container.waiting());
        let said = prepared.task.last_words();
        crate::complain!("the prepared container has ended: {said}");
        if let Some(asker) = prepared.asker.take() {
            self.reply(asker, Answer::Failed(wrong_state(&format!("it has ended: {said}"))));
        }
        self.end_prepared(&prepared);
        if self.listener.is_none() {
            // Nobody's yet: whoever keeps it sees that it is gone.
            self.disconnect_all();
        }
    }

    /// It is not wanted any more.
    pub(super) fn discard_prepared(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.reactor.forget(Target::Prepared, prepared.container.waiting());
            self.end_prepared(&prepared);
        }
    }

    fn end_prepared(&self, prepared: &Ready) {
        if let Err(e) = prepared.container.end() {
            crate::complain!("ending what was prepared: {e}");
        }
    }

    /// Runs the bundle as what was prepared; `None`: it cannot be had from that, which has been ended.
    pub(super) fn take_prepared(
        &mut self,
        bundle: &Bundle,
        cgroup: &Cgroup,
        config: &ShimConfig,
    ) -> Result<Option<i32>, Failure> {
        let Some(Ready { container, .. }) = &self.prepared else { return Ok(None) };
        let was = container.dir().to_owned();
        let fits =
            container.fits(bundle).and_then(|()| exchange(&was, &bundle.dir).map_err(|e| e.to_string()));
        if let Err(why) = fits {
            crate::complain!("not from what was prepared: {why}");
            self.discard_prepared();
            return Ok(None);
        }
        let Some(Ready { container, task: streams, .. }) = self.prepared.take() else { return Ok(None) };
        let stdin = config.stdin && !config.terminal;
        let started = match container.take(bundle, cgroup, stdin, config.console_size)? {
            Taken::Runs(started) => started,
            Taken::Not(why) => {
                crate::complain!("not from what was prepared: {why}");
                exchange(&was, &bundle.dir).map_err(other)?;
                return Ok(None);
            }
        };
        let task = self.tasks.get_mut(&FIRST).ok_or_else(|| wrong_state("no first task"))?;
        task.take_streams(streams, config.terminal, config.stdin, config.stdin_once);
        let pid = adopt(task, started)?;
        self.started_ms = now_ms();
        task.write_stdin(&mut self.reactor);
        Ok(Some(pid))
    }
}

/// Makes the writable layers of the one directory those of the other.
fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let of = |dir: &Path| -> PathBuf { dir.join(TOP) };
    let done = renameat_with(CWD, of(one), CWD, of(other), RenameFlags::EXCHANGE);
    done.map_err(|e| {
        let (one, other) = (of(one), of(other));
        std::io::Error::other(format!("exchanging {} and {}: {e}", one.display(), other.display()))
    })
}
