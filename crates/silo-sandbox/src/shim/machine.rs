//! The shim of a microVM: logs, clients and the daemon's requests are its own as under `process`; processes and their
//! streams are the agent's, asked over the link. Nothing here waits for the machine: an answer is passed on when it comes,
//! and one that does not come in time is a failure.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use silo_runtime::Bundle;
use silo_runtime::cgroup::Cgroup;
use silo_runtime::link::{Part, stream};
use silo_runtime::protocol::{Answer, Call};
use silo_sys::process::Wait;

use crate::contract::{Event, Exit, Failure, FailureKind};
use crate::hyperv::bundle::{COPIES, copies};
use crate::hyperv::machine::{Happened, Plan, Start};
use crate::hyperv::network;
use crate::hyperv::parts::Saved;
use crate::hyperv::template;

use super::asked::{Asked, Asker};
use super::host::{Host, Waiter};
use super::reactor::{Interest, Target};
use super::serve::{interfaces, other, wrong_state};
use super::{FIRST, LINGER, Shim, now_ms};

/// How long a machine may take from nothing to a running program; a cold boot on a loaded host takes seconds.
pub(super) const START: Duration = Duration::from_secs(60);
/// How long a clone of a template may take to become a sandbox before the template is held for broken.
const CLONE: Duration = Duration::from_secs(10);
/// How long a machine that boots may take before it is switched off and another one tried: under TCG, on a loaded host, a
/// kernel's boot hangs once in a while.
const BOOT: Duration = Duration::from_secs(20);
/// How long it may take for any other answer.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// How long a container may take to end after a SIGKILL before its machine is switched off.
const KILL: Duration = Duration::from_secs(10);
/// How long a VMM may take to end once it has closed its port.
const END: Duration = Duration::from_secs(2);
/// Bytes that may wait for an agent that does not read, before it gets no more room to send.
const UNREAD: usize = 64 << 10;
/// Bytes of a sentence of the agent's that are passed on.
const SENTENCE: usize = 4 << 10;

impl Shim {
    pub(super) fn ask_machine(
        &mut self,
        asker: Asker,
        call: Call,
        fd: Option<OwnedFd>,
    ) -> Result<Asked, Failure> {
        match call {
            Call::State | Call::Subscribe | Call::Attach(_) | Call::FlushLog => Ok(Asked::Own(call, fd)),
            Call::Boot(_) | Call::Rehearse(_) | Call::Ready(_) | Call::Mount(_) | Call::Clock(_) => {
                Err(wrong_state("that is asked of a machine"))
            }
            Call::Prepare | Call::Become { .. } => Err(wrong_state("that is asked of a spare")),
            Call::Start => self.start_machine(asker, fd).map(|()| Asked::Later),
            Call::Exec { exec, process, stdin, stdin_once, size, capture, note } => {
                if self.paused {
                    return Err(wrong_state("the container is paused"));
                }
                self.running()?;
                let mut task = self.exec_task(exec, capture as usize, stdin_once, note)?;
                task.open_remote(process.terminal() == Some(true), stdin_once);
                let id = task.id;
                self.tasks.insert(id, task);
                let exec = id.to_string();
                let call =
                    Call::Exec { exec, process, stdin, stdin_once, size, capture: 0, note: String::new() };
                self.pass_on(call, Waiter::Exec(asker, id)).map(|()| Asked::Later)
            }
            Call::Tool { exec, tool } => {
                self.running()?;
                let mut task = self.exec_task(exec, 0, true, String::new())?;
                task.tool = true;
                task.open_remote(false, true);
                let id = task.id;
                self.tasks.insert(id, task);
                let call = Call::Tool { exec: id.to_string(), tool };
                self.pass_on(call, Waiter::Exec(asker, id)).map(|()| Asked::Later)
            }
            Call::Signal { exec, signal } => {
                let exec = self.number_of(exec.as_deref())?;
                if !(0..=64).contains(&signal) {
                    let message = format!("there is no signal {signal}");
                    return Err(Failure { kind: FailureKind::Invalid, message });
                }
                let kill = exec.is_none() && signal == libc::SIGKILL;
                let call = Call::Signal { exec, signal };
                if kill {
                    self.switch_off_in(KILL);
                    return self.pass_on(call, Waiter::Kill(asker)).map(|()| Asked::Later);
                }
                // Whoever sends one waits for what comes of it, and not for a guest that hangs.
                self.pass_on(call, Waiter::Nobody).map(|()| Asked::Now(Answer::Done))
            }
            Call::Resize { exec, rows, cols } => {
                let exec = self.number_of(exec.as_deref())?;
                self.pass_on(Call::Resize { exec, rows, cols }, Waiter::Plain(asker)).map(|()| Asked::Later)
            }
            Call::Pause | Call::Resume => {
                let paused = matches!(call, Call::Pause);
                self.pass_on(call, Waiter::Plain(asker))?;
                self.paused = paused;
                Ok(Asked::Later)
            }
            Call::Stats => self.pass_on(call, Waiter::Stats(asker)).map(|()| Asked::Later),
            Call::Refresh(_) => {
                let bundle = self.bundle.as_ref().ok_or_else(|| wrong_state("it is not running"))?;
                let files = copies(bundle, COPIES).map_err(other)?;
                self.pass_on(Call::Refresh(files), Waiter::Plain(asker)).map(|()| Asked::Later)
            }
            Call::Networks(wanted) => {
                self.running()?;
                let networks = network::carry_on(Some(wanted)).map_err(other)?;
                self.pass_on(Call::Networks(networks), Waiter::Plain(asker)).map(|()| Asked::Later)
            }
            Call::Update(resources) => self.update_machine(asker, &resources).map(|()| Asked::Later),
            Call::Pids => self.pass_on(call, Waiter::Plain(asker)).map(|()| Asked::Later),
            Call::Shutdown => {
                if self.machine.is_none() || self.exit.is_some() {
                    self.leave_at = Some(Instant::now());
                    return Ok(Asked::Now(Answer::Done));
                }
                self.switch_off_in(KILL);
                let waiter = match self.config.files_of {
                    Some(_) => Waiter::Written(asker),
                    None => Waiter::Kill(asker),
                };
                self.pass_on(Call::Shutdown, waiter).map(|()| Asked::Later)
            }
        }
    }

    fn running(&self) -> Result<(), Failure> {
        let started = self.tasks.get(&FIRST).is_some_and(|t| t.pid != 0);
        if started && self.exit.is_none() { Ok(()) } else { Err(wrong_state("it is not running")) }
    }

    /// The agent's name of a task.
    fn number_of(&self, exec: Option<&str>) -> Result<Option<String>, Failure> {
        self.running()?;
        let Some(name) = exec else { return Ok(None) };
        let found = self.tasks.values().find(|t| t.exec.as_deref() == Some(name) && t.ended.is_none());
        found.map(|t| Some(t.id.to_string())).ok_or_else(|| wrong_state(&format!("there is no exec {name}")))
    }

    /// Removes the cgroup of a machine that has been switched off; the next run of the container may have it by now.
    pub(super) fn leave_cgroup(&self) {
        if let (Some(cgroup), Some(host)) = (&self.cgroup, &self.machine)
            && let Err(e) = cgroup.hand_over(&host.machine.pids().collect::<Vec<_>>())
        {
            crate::complain!("{e}");
        }
    }

    fn switch_off_in(&mut self, time: Duration) {
        if let Some(host) = &mut self.machine {
            host.off_at.get_or_insert(Instant::now() + time);
        }
    }

    fn pass_on(&mut self, call: Call, waiter: Waiter) -> Result<(), Failure> {
        let host = self.machine.as_mut().filter(|_| self.exit.is_none());
        let host = host.ok_or_else(|| wrong_state("it is not running"))?;
        let id = host.machine.ask(call).map_err(other)?;
        host.pending.insert(id, (waiter, Instant::now() + ANSWER));
        Ok(())
    }

    fn start_machine(&mut self, asker: Asker, network: Option<OwnedFd>) -> Result<(), Failure> {
        if self.bundle.is_some() {
            return Err(wrong_state("it was started before"));
        }
        let result = self.boot_machine(asker, network);
        if let Err(failure) = &result {
            self.start_failed(failure);
        }
        result
    }

    fn boot_machine(&mut self, asker: Asker, network: Option<OwnedFd>) -> Result<(), Failure> {
        let files_only = self.config.files_of.is_some();
        let bundle = Bundle::load(self.config.files_of.as_deref().unwrap_or(&self.dir)).map_err(other)?;
        match network {
            Some(network) => silo_sys::mount::setns(&network, libc::CLONE_NEWNET).map_err(other)?,
            None if files_only => silo_sys::mount::unshare(libc::CLONE_NEWNET).map_err(other)?,
            None => return Err(wrong_state("a machine needs a network namespace of its own")),
        }
        self.own_network = true;
        let cgroup = Cgroup::at(bundle.cgroup().map_err(other)?).map_err(other)?;
        let terminal = bundle.process().map_err(other)?.terminal() == Some(true);
        let plan = Plan::new(Start {
            config: &self.config.machine,
            bundle: &bundle,
            owner: self.config.owner,
            stdin: self.config.stdin,
            size: self.config.console_size,
            files_only,
        });
        self.bundle = Some(bundle);
        self.cgroup = Some(cgroup);
        if let Some(task) = self.tasks.get_mut(&FIRST) {
            task.open_remote(terminal, self.config.stdin_once);
        }
        let plan = plan.map_err(other)?;
        if let Some(asked) = self.take_machine(&plan) {
            return self.await_machine(asker, plan, asked, true);
        }
        let saved = template::saved(&self.config.machine, self.template.take());
        self.launch_machine(asker, plan, saved, true)
    }

    /// `again`: if it does not become the sandbox in time, another is tried.
    fn launch_machine(
        &mut self,
        asker: Asker,
        plan: Plan,
        saved: Option<Saved>,
        again: bool,
    ) -> Result<(), Failure> {
        let cloned = saved.is_some();
        let (machine, boot, start) = match plan.launch(saved) {
            Err(e) if cloned => {
                self.discard_template(&e.to_string());
                plan.launch(None)
            }
            result => result,
        }
        .map_err(other)?;
        let mut host = Host::new(machine);
        // One that was discarded above is not there any more.
        host.cloned = cloned && self.config.machine.template.is_some();
        self.machine = Some(host);
        self.await_machine(asker, plan, (boot, start), again)
    }

    /// A machine was asked to become the sandbox.
    fn await_machine(
        &mut self,
        asker: Asker,
        plan: Plan,
        (boot, start): (u64, Option<u64>),
        again: bool,
    ) -> Result<(), Failure> {
        let Some(host) = &mut self.machine else { return Err(wrong_state("there is no machine")) };
        if let Some(cgroup) = &self.cgroup {
            for pid in host.machine.pids() {
                cgroup.settle(pid).map_err(other)?;
            }
            host.limits = plan.limits().clone();
            cgroup.update(&host.limits.host).map_err(other)?;
        }
        let now = Instant::now();
        let boot_by = now
            + match (host.cloned || host.spare, again) {
                (true, _) => CLONE,
                (false, true) => BOOT,
                (false, false) => START,
            };
        match start {
            Some(start) => {
                host.pending.insert(boot, (Waiter::Boot(asker), boot_by));
                host.pending.insert(start, (Waiter::Start(asker), now + START));
            }
            None => {
                host.pending.insert(boot, (Waiter::Files(asker), boot_by));
            }
        }
        (host.plan, host.again) = (Some(plan), again);
        Ok(())
    }

    fn discard_template(&mut self, why: &str) {
        if let Some(dir) = self.config.machine.template.take() {
            crate::complain!(
                "template {}: {why}; the machine boots, the template is made anew",
                dir.display()
            );
            template::discard(&dir);
        }
    }

    /// Nothing of it stays; clients learn of it from the start request's answer.
    fn start_failed(&mut self, failure: &Failure) {
        crate::complain!("start: {failure}");
        if let Some(host) = &mut self.machine {
            host.machine.switch_off();
            host.pending.clear();
            host.plan = None;
        }
        self.destroy_cgroup();
        if let Some(task) = self.tasks.get_mut(&FIRST) {
            task.drain(&mut self.reactor);
        }
        self.leave_at = Some(Instant::now() + LINGER);
    }

    /// When something of the machine's has to be done.
    pub(super) fn machine_patience(&self) -> Option<Instant> {
        let host = self.machine.as_ref()?;
        host.pending.values().map(|(_, until)| *until).chain(host.off_at).chain(host.end_by).min()
    }

    /// Bytes have come, or can be sent, on the link.
    pub(super) fn machine_ready(&mut self) {
        let Some(host) = &mut self.machine else { return };
        match host.machine.receive() {
            Ok(all) => {
                for happened in all {
                    self.machine_happened(happened);
                }
            }
            Err(e) => {
                host.deaf = true;
                self.reactor.forget(Target::Machine, host.machine.port());
                // A VMM that is ending says how by its exit code.
                if e.kind() == std::io::ErrorKind::UnexpectedEof {
                    host.end_by = Some(Instant::now() + END);
                    return;
                }
                crate::complain!("the machine's link: {e}");
                host.machine.switch_off();
            }
        }
    }

    pub(super) fn machine_happened(&mut self, happened: Happened) {
        match happened {
            Happened::Room => {}
            // Of a rehearsal.
            Happened::Output(..) if self.bundle.is_none() => {}
            Happened::Output(id, part, bytes) => {
                if let Some(host) = &mut self.machine {
                    *host.owed.entry((id, part)).or_default() += bytes.len();
                }
                if let Some(task) = self.tasks.get_mut(&id) {
                    let stream = if part == Part::Stderr {
                        super::log::Stream::Stderr
                    } else {
                        super::log::Stream::Stdout
                    };
                    task.deal(&mut self.reactor, stream, &bytes);
                }
            }
            Happened::Answer(id, answer) => {
                let Some((waiter, _)) = self.machine.as_mut().and_then(|h| h.pending.remove(&id)) else {
                    return;
                };
                self.machine_answered(waiter, answer);
            }
            Happened::Event(Event::Exited(exit)) => {
                let wait = Wait::Exited(exit.code as i32);
                self.machine_ended(Exit { error: String::new(), ..exit }, wait);
            }
            Happened::Event(Event::ExecExited { exec, exit, .. }) => {
                let id = exec.parse().unwrap_or(FIRST);
                if let Some(task) = self.tasks.get_mut(&id).filter(|t| t.id != FIRST && t.ended.is_none()) {
                    task.ended = Some(Wait::Exited(exit.code as i32));
                    let exit = Exit { at_ms: now_ms(), error: String::new(), ..exit };
                    task.lingers = Some((exit, Instant::now()));
                    self.end_execs(false);
                    if let Some(host) = &mut self.machine {
                        for part in [Part::Stdin, Part::Stdout, Part::Stderr] {
                            host.owed.remove(&(id, part));
                            host.machine.link().forget(stream(id, part));
                        }
                    }
                }
            }
            Happened::Event(Event::Detached { .. }) => {}
        }
    }

    fn machine_answered(&mut self, waiter: Waiter, answer: Answer) {
        let answer = match answer {
            Answer::Failed(failure) => Answer::Failed(bounded(failure)),
            other => other,
        };
        match (waiter, answer) {
            (Waiter::Start(asker), Answer::Failed(failure)) => {
                self.start_failed(&failure);
                self.reply(asker, Answer::Failed(failure));
            }
            (Waiter::Boot(asker) | Waiter::Files(asker), Answer::Failed(mut failure)) => {
                if let Some(plan) = self.machine.as_mut().and_then(|h| h.plan.take()) {
                    for path in plan.distrust(&failure.message) {
                        failure.message += &format!("; {} is made anew at the next start", path.display());
                    }
                }
                self.start_failed(&failure);
                self.reply(asker, Answer::Failed(failure));
            }
            (Waiter::Boot(_), _) => {
                if let Some(host) = &mut self.machine {
                    host.plan = None;
                }
            }
            (Waiter::Written(asker), answer) => {
                // It is gone when its asker hears of it: the disk may be another machine's then.
                self.machine_ended(Exit::default(), Wait::Exited(0));
                self.reply(asker, answer);
            }
            (Waiter::Start(asker), Answer::Started { .. }) | (Waiter::Files(asker), Answer::Done) => {
                if let Some(host) = &mut self.machine {
                    host.plan = None;
                }
                self.started_ms = now_ms();
                self.limit_running();
                let pid = self.machine.as_ref().map_or(0, |h| h.machine.pid());
                if let Some(task) = self.tasks.get_mut(&FIRST) {
                    task.pid = pid;
                }
                self.reply(asker, Answer::Started { pid });
            }
            (Waiter::Exec(asker, id), answer) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    match &answer {
                        Answer::Started { pid } => task.pid = *pid,
                        Answer::Failed(failure) => {
                            task.refuse(&format!("OCI runtime exec failed: {failure}"));
                            task.ended = Some(Wait::Exited(126));
                        }
                        _ => {}
                    }
                }
                self.reply(asker, answer);
            }
            (Waiter::Stats(asker), Answer::Stats(mut stats)) => {
                let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
                let adapters = network::adapters();
                stats.networks =
                    interfaces(&text).into_iter().filter(|(name, _)| adapters.contains(name)).collect();
                self.reply(asker, Answer::Stats(stats));
            }
            (Waiter::Rehearsal(asker), Answer::Done) if self.lacks_disks() => {
                if let Err(e) = self.mount_disks(asker) {
                    self.reply(asker, Answer::Failed(other(e)));
                }
            }
            (Waiter::Rehearsal(asker) | Waiter::Mount(asker), answer) => {
                let waiting = self.machine.as_mut().and_then(|host| host.waiting.as_mut());
                let rested = waiting.map_or(Ok(()), |waiting| waiting.rest(&self.dir));
                self.reply(asker, rested.map_or_else(|e| Answer::Failed(other(e)), |()| answer));
            }
            (Waiter::Update(asker, before), answer) => self.update_answered(asker, *before, answer),
            (Waiter::Nobody, _) => {}
            (Waiter::Kill(asker) | Waiter::Plain(asker), answer @ (Answer::Done | Answer::Pids(_))) => {
                self.reply(asker, answer);
            }
            (Waiter::Kill(asker) | Waiter::Plain(asker) | Waiter::Stats(asker), Answer::Failed(failure)) => {
                self.reply(asker, Answer::Failed(failure))
            }
            (
                Waiter::Start(asker)
                | Waiter::Files(asker)
                | Waiter::Kill(asker)
                | Waiter::Plain(asker)
                | Waiter::Stats(asker),
                _,
            ) => self.reply(asker, Answer::Failed(wrong_state("its virtual machine answers something else"))),
        }
    }

    /// The container has ended, by itself or with its machine.
    fn machine_ended(&mut self, exit: Exit, wait: Wait) {
        if self.exit.is_some() || self.started_ms == 0 {
            return;
        }
        let failure = wrong_state("the container has ended");
        if let Some(host) = &mut self.machine {
            host.over = true;
            host.off_at = None;
            host.machine.switch_off();
            let waiting: Vec<_> = host.pending.drain().map(|(_, (waiter, _))| waiter).collect();
            for waiter in waiting {
                let answer = match waiter {
                    Waiter::Kill(_) => Answer::Done,
                    _ => Answer::Failed(failure.clone()),
                };
                self.machine_answered(waiter, answer);
            }
        }
        let exit = Exit { at_ms: now_ms(), ..exit };
        // Nobody is left to tell of their end.
        let execs: Vec<u32> =
            self.tasks.values().filter(|t| t.id != FIRST && t.ended.is_none()).map(|t| t.id).collect();
        for id in execs {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.ended = Some(Wait::Signaled(libc::SIGKILL));
                let exit = Exit { code: 137, at_ms: now_ms(), ..Default::default() };
                task.lingers = Some((exit, Instant::now()));
            }
        }
        self.container_ended(exit, wait);
    }

    /// The VMM has ended.
    pub(super) fn machine_gone(&mut self, wait: Wait) {
        let Some(host) = &mut self.machine else { return };
        host.deaf = true;
        self.reactor.forget(Target::Machine, host.machine.port());
        if host.over {
            return;
        }
        let words = host.machine.last_words();
        let killed = host.killed || host.off_at.take().is_some();
        let (cloned, late, spare) = (host.cloned, host.late, host.spare);
        let again = host.plan.take().filter(|_| (cloned || late || spare) && !killed);
        let said = if words.is_empty() { words } else { format!(": {words}") };
        let error = match wait {
            _ if killed => "it was killed while it started".to_owned(),
            // Its only way to end by itself: `panic=-1`, `-no-reboot`.
            Wait::Exited(0) => {
                "its virtual machine ended: its kernel or the agent in it has crashed".to_owned()
            }
            Wait::Exited(code) => format!("its virtual machine ended (QEMU: exit code {code}{said})"),
            Wait::Signaled(signal) => format!("its virtual machine was killed (QEMU: signal {signal}{said})"),
        };
        if self.started_ms == 0 {
            let starting: Vec<Waiter> = host.pending.drain().map(|(_, (waiter, _))| waiter).collect();
            let asker = starting.iter().find_map(|w| match w {
                Waiter::Start(asker)
                | Waiter::Files(asker)
                | Waiter::Rehearsal(asker)
                | Waiter::Mount(asker) => Some(*asker),
                _ => None,
            });
            if self.bundle.is_none() {
                crate::complain!("{error}");
                if self.listener.is_some() {
                    // It is a container's, whose start has another cloned; that one has a disk of its own.
                    crate::forget_handed_over(&self.dir);
                    self.machine = None;
                    return;
                }
                // A spare that is nobody's: its daemon sees the connection close.
                self.leave_at = Some(Instant::now());
            }
            let Some(asker) = asker else { return };
            let failure = match again {
                Some(plan) => {
                    let mut saved = None;
                    if spare {
                        crate::complain!("start: a machine that was made ready: {error}; another is cloned");
                        saved = template::saved(&self.config.machine, self.template.take());
                    } else if cloned {
                        self.discard_template(&error);
                    } else {
                        complain!("start: its virtual machine does not boot, another one is tried");
                    }
                    self.machine = None;
                    self.launch_machine(asker, plan, saved, cloned || spare).err()
                }
                None => Some(wrong_state(&format!("{error}, see {}", crate::contract::files::SHIM_LOG))),
            };
            let Some(failure) = failure else { return };
            self.start_failed(&failure);
            self.reply(asker, Answer::Failed(failure));
            for waiter in starting {
                if let Waiter::Kill(asker) | Waiter::Plain(asker) = waiter {
                    self.reply(asker, Answer::Done);
                }
            }
            return;
        }
        let error = if killed { String::new() } else { error };
        let exit = Exit { code: 137, error, ..Default::default() };
        self.machine_ended(exit, Wait::Signaled(libc::SIGKILL));
    }

    /// Moves what can be moved: input to the machine, room back to it, requests whose time is over to their end.
    pub(super) fn machine_pump(&mut self) {
        let now = Instant::now();
        let Some(host) = &mut self.machine else { return };
        if host.end_by.take_if(|at| *at <= now).is_some() {
            host.machine.switch_off();
        }
        if host.off_at.take_if(|at| *at <= now).is_some() {
            host.killed = true;
            host.machine.switch_off();
        }
        for task in self.tasks.values_mut().filter(|t| t.pid != 0 && t.ended.is_none()) {
            let number = stream(task.id, Part::Stdin);
            loop {
                let bytes = task.take_typed(host.machine.link().room(number));
                if bytes.is_empty() {
                    break;
                }
                host.machine.link().data(number, &bytes);
            }
            if task.input_ended() {
                host.machine.link().end(number);
            }
        }
        let tasks = &self.tasks;
        let takes = |id: &u32| tasks.get(id).is_none_or(super::task::Task::accepts);
        let reads = host.machine.link().output.len() < UNREAD;
        let given: Vec<_> = host.owed.extract_if(|(id, _), _| reads && takes(id)).collect();
        for ((id, part), bytes) in given {
            host.machine.link().credit(stream(id, part), bytes);
        }
        host.machine.forget_events();
        if self.exit.is_none() && !host.deaf {
            let _ = host.machine.flush();
            let interest = Interest { read: true, write: host.machine.has_output() };
            let _ = self.reactor.watch(Target::Machine, host.machine.port(), interest);
        }
        let late: Vec<u64> =
            host.pending.iter().filter(|(_, (_, until))| *until <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some((waiter, _)) = self.machine.as_mut().and_then(|h| h.pending.remove(&id)) else {
                continue;
            };
            if let (Waiter::Boot(_), Some(host)) =
                (&waiter, self.machine.as_mut().filter(|h| h.again && h.plan.is_some()))
            {
                // Its end is the occasion to try again.
                host.late = true;
                host.machine.switch_off();
                continue;
            }
            let failure = wrong_state("its virtual machine does not answer");
            self.machine_answered(waiter, Answer::Failed(failure));
        }
    }
}

/// A sentence of the agent's, as long as one may be.
fn bounded(mut failure: Failure) -> Failure {
    failure.message.truncate(failure.message.floor_char_boundary(SENTENCE));
    failure
}
