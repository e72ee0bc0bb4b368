//! Execs of a shim: their start, the end of their output, and what a daemon that comes later hears of them.

use std::time::{Duration, Instant};

use oci_spec::runtime::Process;
use silo_sys::process::Wait;

use crate::contract::{Event, ExecState, Exit, Failure};

use super::serve::{adopt, other, wrong_state};
use super::task::Task;
use super::{FIRST, Shim, code_of, now_ms};

/// How long what an exec has left behind may still write to its streams (dockerd's time). It is told to be ended after
/// that, with all its output.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an ended exec is remembered (as long as the daemon does).
const KEPT: Duration = Duration::from_secs(300);
/// Ended execs remembered.
const MOST: usize = 64;
/// Bytes of notes that a state has room for: it is one frame.
const NOTES: usize = 1 << 20;

impl Shim {
    /// A new exec with the clients that came before it.
    pub(super) fn exec_task(
        &mut self,
        exec: String,
        capture: usize,
        stdin_once: bool,
        note: String,
    ) -> Result<Task, Failure> {
        let clients = self.early.remove(&exec).unwrap_or_default();
        let mut task = Task::new(self.next_task, Some(exec), None, capture, stdin_once);
        self.next_task += 1;
        task.note = note;
        for (attach, fd) in clients {
            let client = self.next;
            self.next += 1;
            task.attach(client, fd, attach).map_err(other)?;
        }
        Ok(task)
    }

    pub(super) fn exec(
        &mut self,
        mut task: Task,
        process: &Process,
        stdin: bool,
        stdin_once: bool,
        size: (u16, u16),
    ) -> Result<i32, Failure> {
        let result = self.run_exec(&mut task, process, stdin, stdin_once, size);
        if let Err(failure) = &result {
            task.refuse(&format!("OCI runtime exec failed: {failure}"));
            task.ended = Some(Wait::Exited(126));
        }
        task.write_stdin(&mut self.reactor);
        task.rewatch(&mut self.reactor);
        self.tasks.insert(task.id, task);
        result
    }

    fn run_exec(
        &mut self,
        task: &mut Task,
        process: &Process,
        stdin: bool,
        stdin_once: bool,
        size: (u16, u16),
    ) -> Result<i32, Failure> {
        let cgroup = self.cgroup()?;
        if self.paused {
            return Err(wrong_state("the container is paused"));
        }
        let bundle = self.bundle.as_ref().ok_or_else(|| wrong_state("it is not running"))?;
        let first = self
            .tasks
            .get(&FIRST)
            .and_then(|t| t.pidfd.as_ref())
            .ok_or_else(|| wrong_state("it is not running"))?;
        let terminal = process.terminal() == Some(true);
        let stdio = task.open_streams(terminal, stdin, stdin_once, size).map_err(other)?;
        let started = silo_runtime::exec(bundle, first, cgroup, process, stdio, false)?;
        adopt(task, started)
    }

    /// An exec's process has ended. Others that it has started may still have its streams.
    pub(super) fn exec_reaped(&mut self, id: u32, wait: Wait) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let exit = Exit { code: code_of(task, wait), at_ms: now_ms(), ..Default::default() };
        task.ended = Some(wait);
        task.take_output(&mut self.reactor);
        task.lingers = Some((exit, Instant::now() + PATIENCE));
        self.end_execs(false);
    }

    /// When the next one that lingers has to end.
    pub(super) fn patience(&self) -> Option<Instant> {
        self.tasks.values().filter_map(|t| t.lingers.as_ref()).map(|(_, until)| *until).min()
    }

    /// Tells the end of execs that nobody writes for any more, or not in time; with `all` of every ended one.
    pub(super) fn end_execs(&mut self, all: bool) {
        let now = Instant::now();
        let over =
            |t: &Task| t.lingers.as_ref().is_some_and(|(_, until)| all || !t.has_output() || *until <= now);
        let ids: Vec<u32> = self.tasks.values().filter(|t| over(t)).map(|t| t.id).collect();
        for id in ids {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let Some((exit, _)) = task.lingers.take() else { continue };
            task.drain(&mut self.reactor);
            let exec = task.exec.clone().unwrap_or_default();
            let output = String::from_utf8_lossy(&task.capture).into_owned();
            let (pid, note, probe) = (task.pid, std::mem::take(&mut task.note), task.is_probe());
            let told = self.tell(&Event::ExecExited { exec: exec.clone(), exit: exit.clone(), output });
            if !probe {
                self.ended_execs.retain(|(at, _)| at.elapsed() < KEPT);
                if self.ended_execs.len() == MOST {
                    self.ended_execs.pop_front();
                }
                self.ended_execs.push_back((now, ExecState { exec, pid, exit: Some(exit), told, note }));
            }
        }
    }

    /// Execs that run or lingered and those that ended not long ago.
    pub(super) fn known_execs(&self) -> Vec<ExecState> {
        let running = self.tasks.values().filter(|t| t.ended.is_none() || t.lingers.is_some());
        let running = running.filter(|t| !t.is_probe()).filter_map(|t| {
            let (pid, note) = (t.pid, t.note.clone());
            Some(ExecState { exec: t.exec.clone()?, pid, note, ..Default::default() })
        });
        let recent = self.ended_execs.iter().filter(|(at, _)| at.elapsed() < KEPT).map(|(_, e)| e.clone());
        let mut known: Vec<ExecState> = running.chain(recent).collect();
        let mut room = NOTES;
        for exec in &mut known {
            match room.checked_sub(exec.note.len()) {
                Some(left) => room = left,
                None => exec.note.clear(),
            }
        }
        known
    }
}
