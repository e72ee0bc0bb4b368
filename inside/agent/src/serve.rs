//! The agent's end of the task protocol: requests of the shim, processes and their streams, in one thread and one loop.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use silo_runtime::cgroup::Cgroup;
use silo_runtime::link::{Incoming, Link, Part, parts, stream};
use silo_runtime::protocol::{
    Answer, BUNDLE, Boot, Call, Disk, Event, Exit, Failure, FailureKind, Reply, Request, SandboxState,
    VERSION,
};
use silo_runtime::seccomp::Filter;
use silo_runtime::tools::Tool;
use silo_runtime::{Bundle, told_status};
use silo_sys::process::{self, Wait};

use crate::ready::Ready;
use crate::task::Task;
use crate::{boot, network, tool};

/// The container's first process.
const FIRST: u32 = 0;

type Answered = Result<Answer, Failure>;

/// How long the shim may take to tell the time before the machine goes on with what it has.
const CLOCK: Duration = Duration::from_secs(1);
/// The time is asked for again if the answer took longer.
const NEAR: Duration = Duration::from_millis(20);
/// So often at most.
const TRIES: u32 = 5;

/// A question for the time that is under way.
struct Clock {
    asked: Instant,
    tries: u32,
    /// How long the best answer took.
    best: Option<Duration>,
}

/// What a descriptor that is polled is.
#[derive(Clone, Copy)]
enum Watched {
    Port,
    Signals,
    Stdin(u32),
    Output(u32, Part),
}

/// All state of the agent.
pub(crate) struct Agent {
    port: OwnedFd,
    signals: OwnedFd,
    link: Link,
    tasks: HashMap<u32, Task>,
    boot: Option<Boot>,
    bundle: Option<Bundle>,
    cgroup: Option<Cgroup>,
    /// The container's root, of a machine that runs nothing.
    assembled: Option<OwnedFd>,
    paused: bool,
    ended: bool,
    clock: Option<Clock>,
    /// A start that waits for the right time.
    held: Option<u64>,
    /// What runs is a rehearsal.
    rehearsing: bool,
    /// A container that waits for its bundle.
    prepared: Option<Ready>,
    /// Disks that are mounted before the boot.
    mounted: Vec<Disk>,
}

fn other(error: io::Error) -> Failure {
    Failure { kind: FailureKind::Other, message: error.to_string() }
}

fn wrong_state(message: &str) -> Failure {
    Failure { kind: FailureKind::WrongState, message: message.to_owned() }
}

fn now_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

impl Agent {
    pub(crate) fn new(port: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&port, true)?;
        let signals = process::signal_fd(&[libc::SIGCHLD, libc::SIGPIPE])?;
        Ok(Self {
            port,
            signals,
            link: Link::default(),
            tasks: HashMap::new(),
            boot: None,
            bundle: None,
            cgroup: None,
            assembled: None,
            paused: false,
            ended: false,
            clock: None,
            held: None,
            rehearsing: false,
            prepared: None,
            mounted: Vec::new(),
        })
    }

    /// Serves until the shim is gone or does not keep to the protocol.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        // Tells that this machine is ready to become a sandbox.
        self.tell(Answer::State(SandboxState { version: VERSION, ..Default::default() }))?;
        loop {
            self.write()?;
            for (watched, flags) in self.wait()? {
                match watched {
                    Watched::Port if flags.contains(PollFlags::IN) => self.read()?,
                    // Nobody has the other end: a moment of a restore, or the end of everything, which the VMM brings.
                    Watched::Port => {}
                    Watched::Signals => {
                        while process::take_signal(&self.signals).is_some() {}
                        self.reap();
                    }
                    Watched::Stdin(id) => {
                        if let Some(task) = self.tasks.get_mut(&id) {
                            task.write(&mut self.link);
                        }
                    }
                    Watched::Output(id, part) => {
                        if let Some(task) = self.tasks.get_mut(&id) {
                            task.read(&mut self.link, part);
                        }
                    }
                }
            }
            self.tell_ends()?;
            if self.clock.as_ref().is_some_and(|c| c.asked.elapsed() >= CLOCK) {
                self.clock = None;
                self.start_held()?;
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<(Watched, PollFlags)>> {
        let mut port = PollFlags::IN;
        port.set(PollFlags::OUT, !self.link.output.is_empty());
        let mut fds =
            vec![(Watched::Port, &self.port, port), (Watched::Signals, &self.signals, PollFlags::IN)];
        for task in self.tasks.values() {
            if let (Some(fd), false) = (&task.stdin, task.typed.is_empty()) {
                fds.push((Watched::Stdin(task.id), fd, PollFlags::OUT));
            }
            for part in [Part::Stdout, Part::Stderr] {
                if let Some(fd) = task.output(&self.link, part) {
                    fds.push((Watched::Output(task.id, part), fd, PollFlags::IN));
                }
            }
        }
        let ends = self.tasks.values().filter_map(|t| t.ended.as_ref()).map(|(_, until)| *until);
        let until = ends.chain(self.clock.as_ref().map(|c| c.asked + CLOCK)).min();
        let limit = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let found = polled.iter().map(PollFd::revents).zip(&fds);
        Ok(found.filter(|(flags, _)| !flags.is_empty()).map(|(flags, (w, ..))| (*w, flags)).collect())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.link.output.len() {
            match rustix::io::write(&self.port, &self.link.output[sent..]) {
                Ok(n) => sent += n,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.link.output.drain(..sent);
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; 64 << 10];
        match rustix::io::read(&self.port, &mut buffer) {
            Ok(n) => self.link.received(&buffer[..n]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        while let Some(incoming) = self.link.take::<Request>()? {
            match incoming {
                Incoming::Message(Request { call: Call::Start, id }) if self.clock.is_some() => {
                    self.held = Some(id);
                }
                Incoming::Message(Request { call: Call::Clock(now), .. }) => self.clock_told(now)?,
                Incoming::Message(Request { id, call: Call::Rehearse(wanted) }) => {
                    self.rehearse(id, *wanted)?;
                }
                Incoming::Message(Request { id, call }) => {
                    let boots = matches!(call, Call::Boot(_));
                    let answer = self.answer(call);
                    if boots && answer.is_ok() {
                        self.ask_clock(0, None)?;
                    }
                    let answer = answer.unwrap_or_else(Answer::Failed);
                    self.link.send(&Reply { id, answer }).map_err(io::Error::other)?;
                }
                Incoming::Data(number, bytes) => match self.stdin_of(number) {
                    Some(id) => {
                        if let Some(task) = self.tasks.get_mut(&id) {
                            task.input(&mut self.link, bytes);
                        }
                    }
                    None => self.link.credit(number, bytes.len()),
                },
                Incoming::End(number) => {
                    if let Some(task) = self.stdin_of(number).and_then(|id| self.tasks.get_mut(&id)) {
                        task.input_ends(&mut self.link);
                    }
                }
                Incoming::Credit(..) => {}
            }
        }
        Ok(())
    }

    fn ask_clock(&mut self, tries: u32, best: Option<Duration>) -> io::Result<()> {
        self.clock = Some(Clock { asked: Instant::now(), tries: tries + 1, best });
        self.tell(Answer::ClockAsked)
    }

    /// The shim has told the time: it is that of the middle between question and answer, and the less lies between the
    /// better.
    fn clock_told(&mut self, now: u64) -> io::Result<()> {
        let Some(Clock { asked, tries, best }) = self.clock.take() else { return Ok(()) };
        let took = asked.elapsed();
        let better = best.is_none_or(|best| took < best);
        if better {
            boot::clock(now.saturating_add(took.as_nanos() as u64 / 2))?;
        }
        if took > NEAR && tries < TRIES {
            return self.ask_clock(tries, if better { Some(took) } else { best });
        }
        self.start_held()
    }

    fn start_held(&mut self) -> io::Result<()> {
        let Some(id) = self.held.take() else { return Ok(()) };
        let answer = self.start().unwrap_or_else(Answer::Failed);
        if self.rehearsing {
            return match answer {
                Answer::Started { .. } => {
                    // Told at its end.
                    self.held = Some(id);
                    Ok(())
                }
                answer => self.rehearsed(id, answer),
            };
        }
        self.link.send(&Reply { id, answer }).map_err(io::Error::other)
    }

    fn rehearse(&mut self, id: u64, wanted: Boot) -> io::Result<()> {
        if let Some(prepared) = &self.prepared {
            let answer = prepared.rehearse().map_or_else(Answer::Failed, |()| Answer::Done);
            return self.link.send(&Reply { id, answer }).map_err(io::Error::other);
        }
        self.rehearsing = true;
        match self.boot(wanted) {
            Ok(_) => {
                self.held = Some(id);
                self.ask_clock(0, None)
            }
            Err(failure) => self.rehearsed(id, Answer::Failed(failure)),
        }
    }

    /// Nothing of a rehearsal stays.
    fn rehearsed(&mut self, id: u64, answer: Answer) -> io::Result<()> {
        let (boot, cgroup) = (self.boot.take(), self.cgroup.take());
        self.tasks.clear();
        (self.bundle, self.rehearsing, self.ended) = (None, false, false);
        let undone = boot.map_or(Ok(()), |boot| crate::rehearsal::undo(&boot));
        let undone = undone.and_then(|()| cgroup.map_or(Ok(()), |cgroup| cgroup.destroy()));
        let answer = match undone {
            Err(e) => Answer::Failed(other(e)),
            Ok(()) => answer,
        };
        self.link.send(&Reply { id, answer }).map_err(io::Error::other)
    }

    fn stdin_of(&self, number: u32) -> Option<u32> {
        parts(number)
            .filter(|(id, part)| *part == Part::Stdin && self.tasks.contains_key(id))
            .map(|(id, _)| id)
    }

    fn tell(&mut self, answer: Answer) -> io::Result<()> {
        self.link.send(&Reply { id: 0, answer }).map_err(io::Error::other)
    }

    fn answer(&mut self, call: Call) -> Answered {
        match call {
            Call::State => Ok(Answer::State(SandboxState { version: VERSION, ..Default::default() })),
            Call::Boot(wanted) => self.boot(*wanted),
            Call::Ready(wanted) => {
                self.mount(wanted.disks.clone())?;
                self.prepared = Some(Ready::bring_up(*wanted)?);
                Ok(Answer::Done)
            }
            Call::Mount(disks) => self.mount(disks),
            Call::Clock(_) | Call::Rehearse(_) => Err(wrong_state("nobody has asked for the time")),
            Call::Start => self.start(),
            Call::Exec { exec, process, stdin, size, .. } => self.exec(&exec, &process, stdin, size),
            Call::Tool { exec, tool } => self.tool(&exec, &tool),
            Call::Signal { exec, signal } => {
                let task = self.task(exec.as_deref())?;
                silo_runtime::signal(task.pidfd.as_ref(), signal).map(|()| Answer::Done)
            }
            Call::Resize { exec, rows, cols } => {
                let task = self.task(exec.as_deref())?;
                match (&task.out, task.terminal) {
                    (Some(fd), true) => silo_runtime::set_window_size(fd, rows, cols).map_err(other)?,
                    (None, true) => {}
                    _ => return Err(wrong_state("it has no terminal")),
                }
                Ok(Answer::Done)
            }
            Call::Pause => self.freeze(true),
            Call::Resume => self.freeze(false),
            Call::Update(resources) => {
                self.cgroup()?.update(&resources).map_err(other)?;
                Ok(Answer::Done)
            }
            Call::Networks(wanted) => {
                network::change(&wanted).map_err(other)?;
                Ok(Answer::Done)
            }
            Call::Refresh(files) => boot::renew(&files).map(|()| Answer::Done).map_err(other),
            Call::Stats => {
                let mut stats = self.cgroup()?.stats();
                // What there is bounds what is not limited.
                stats.memory_limit = stats.memory_limit.min(rustix::system::sysinfo().totalram);
                Ok(Answer::Stats(Box::new(stats)))
            }
            Call::Pids => self.cgroup()?.pids().map(Answer::Pids).map_err(other),
            Call::Shutdown => {
                if let Some(pidfd) = self.tasks.get(&FIRST).and_then(|t| t.pidfd.as_ref()) {
                    let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
                } else {
                    // A machine that was booted for its files: the disk is what stays of it.
                    rustix::fs::sync();
                }
                Ok(Answer::Done)
            }
            Call::Subscribe | Call::Attach(_) | Call::FlushLog | Call::Prepare | Call::Become { .. } => {
                Err(wrong_state("that is the shim's to answer"))
            }
        }
    }

    fn task(&self, exec: Option<&str>) -> Result<&Task, Failure> {
        let id = exec.map_or(Some(FIRST), |e| e.parse().ok());
        id.and_then(|id| self.tasks.get(&id)).ok_or_else(|| wrong_state("it is not running"))
    }

    fn cgroup(&self) -> Result<&Cgroup, Failure> {
        self.cgroup.as_ref().filter(|_| !self.ended).ok_or_else(|| wrong_state("it is not running"))
    }

    fn mount(&mut self, disks: Vec<Disk>) -> Answered {
        if self.boot.is_some() || self.prepared.is_some() {
            return Err(wrong_state("this machine is a sandbox already"));
        }
        for disk in disks {
            boot::mount(&disk).map_err(other)?;
            self.mounted.push(disk);
        }
        Ok(Answer::Done)
    }

    fn boot(&mut self, mut wanted: Boot) -> Answered {
        if self.boot.is_some() {
            return Err(wrong_state("this machine is a sandbox already"));
        }
        if let Some(gone) = self.mounted.iter().find(|disk| !wanted.disks.contains(disk)) {
            return Err(wrong_state(&format!("disk {} is mounted and not the sandbox's", gone.serial)));
        }
        if let Some(prepared) = self.prepared.take() {
            self.prepared = prepared.for_boot(&mut wanted)?;
        }
        let result = boot::boot(&wanted, &self.mounted);
        self.boot = Some(wanted);
        result.map(|()| Answer::Done).map_err(other)
    }

    /// The bundle that this machine was booted for, once; and whether its first process has input, and its terminal's size.
    fn take_bundle(&mut self) -> Result<(Bundle, bool, (u16, u16)), Failure> {
        let wanted = self.boot.as_mut().ok_or_else(|| wrong_state("this machine is no sandbox yet"))?;
        let (Some(spec), Some(rootfs)) = (wanted.spec.take(), wanted.rootfs.take()) else {
            return Err(wrong_state("it was started before"));
        };
        let filter = wanted.filter.as_ref().map(Filter::unpack);
        let bundle = Bundle { dir: Path::new(BUNDLE).to_owned(), spec: *spec, rootfs, filter };
        Ok((bundle, wanted.stdin, wanted.size))
    }

    fn start(&mut self) -> Answered {
        let (bundle, stdin, size) = self.take_bundle()?;
        let cgroup = Cgroup::at(bundle.cgroup().map_err(other)?).map_err(other)?;
        let terminal = bundle.process().map_err(other)?.terminal() == Some(true);
        let mut task = Task::new(FIRST, terminal);
        let taken = match self.prepared.take() {
            Some(prepared) => prepared.take(&mut task, &bundle, &cgroup, stdin, size)?,
            None => None,
        };
        let started = match taken {
            Some(started) => started,
            None => {
                let stdio = task.open_streams(stdin, size).map_err(other)?;
                silo_runtime::start(&bundle, &cgroup, stdio)?
            }
        };
        let pid = started.pid;
        task.started(started).map_err(other)?;
        self.tasks.insert(FIRST, task);
        (self.bundle, self.cgroup) = (Some(bundle), Some(cgroup));
        Ok(Answer::Started { pid })
    }

    fn exec(
        &mut self,
        name: &str,
        process: &oci_spec::runtime::Process,
        stdin: bool,
        size: (u16, u16),
    ) -> Answered {
        let id = self.fresh(name)?;
        if self.paused {
            return Err(wrong_state("the container is paused"));
        }
        let bundle = self.bundle.as_ref().ok_or_else(|| wrong_state("it is not running"))?;
        let first = self.tasks.get(&FIRST).and_then(|t| t.pidfd.as_ref());
        let first = first.ok_or_else(|| wrong_state("it is not running"))?;
        let mut task = Task::new(id, process.terminal() == Some(true));
        let stdio = task.open_streams(stdin, size).map_err(other)?;
        let started = silo_runtime::exec(bundle, first, self.cgroup()?, process, stdio, false)?;
        let pid = started.pid;
        task.started(started).map_err(other)?;
        self.tasks.insert(id, task);
        Ok(Answer::Started { pid })
    }

    /// The number of an exec that is to be.
    fn fresh(&self, name: &str) -> Result<u32, Failure> {
        let id: u32 = name.parse().map_err(|_| wrong_state("the name of an exec is a number here"))?;
        if id == FIRST || self.tasks.contains_key(&id) {
            return Err(wrong_state("there is such an exec already"));
        }
        Ok(id)
    }

    fn tool(&mut self, name: &str, tool: &Tool) -> Answered {
        let id = self.fresh(name)?;
        let root = self.root()?;
        let bundle = self.bundle.as_ref().ok_or_else(|| wrong_state("it is not running"))?;
        let uppers = tool::uppers(bundle);
        let pids = match tool {
            Tool::Processes { .. } => self.cgroup()?.pids().map_err(other)?,
            _ => Vec::new(),
        };
        let mut task = Task::new(id, false);
        task.tool = true;
        let stdio = task.open_streams(tool.has_input(), (0, 0)).map_err(other)?;
        let started = tool::spawn(tool, &tool::Container { root, uppers, pids }, stdio).map_err(other)?;
        let pid = started.pid;
        task.started(started).map_err(other)?;
        self.tasks.insert(id, task);
        Ok(Answer::Started { pid })
    }

    /// The container's root: the running one's own, or one assembled where nothing runs.
    fn root(&mut self) -> Result<OwnedFd, Failure> {
        use rustix::fs::{Mode, OFlags};
        if let Some(first) = self.tasks.get(&FIRST) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(format!("/proc/{}/root", first.pid), flags, Mode::empty());
            return root.map_err(|e| other(e.into()));
        }
        if self.ended {
            return Err(wrong_state("it has ended"));
        }
        let root = match self.assembled.take() {
            Some(root) => root,
            None => {
                let (bundle, ..) = self.take_bundle()?;
                let root = silo_runtime::assemble(&bundle);
                self.bundle = Some(bundle);
                root.map_err(other)?
            }
        };
        let copy = root.try_clone().map_err(other)?;
        self.assembled = Some(root);
        Ok(copy)
    }

    fn freeze(&mut self, frozen: bool) -> Answered {
        self.cgroup()?.freeze(frozen).map_err(other)?;
        self.paused = frozen;
        Ok(Answer::Done)
    }

    fn reap(&mut self) {
        while let Some((pid, wait)) = process::reap() {
            // Orphans of the container are reaped and forgotten.
            let Some(task) = self.tasks.values_mut().find(|t| t.pid == pid && t.ended.is_none()) else {
                continue;
            };
            let code = task.status.take().and_then(told_status).unwrap_or_else(|| Wait::code(wait));
            let exit = Exit { code, at_ms: now_ms(), ..Default::default() };
            task.end(exit);
        }
    }

    /// Tells the end of processes whose streams have ended too, or had their time to.
    fn tell_ends(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let over = |t: &Task| t.ended.as_ref().is_some_and(|(_, until)| t.is_silent() || *until <= now);
        let ids: Vec<u32> = self.tasks.values().filter(|t| over(t)).map(|t| t.id).collect();
        for id in ids {
            let Some(mut task) = self.tasks.remove(&id) else { continue };
            let Some((mut exit, _)) = task.ended.take() else { continue };
            for part in [Part::Stdin, Part::Stdout, Part::Stderr] {
                self.link.forget(stream(id, part));
            }
            let event = if id == FIRST {
                self.ended = true;
                exit.oom_killed = self.cgroup.as_ref().is_some_and(|c| c.oom_kills() > 0);
                // The machine goes with it; the disk is what stays of this run.
                rustix::fs::sync();
                if self.rehearsing
                    && let Some(asked) = self.held.take()
                {
                    self.rehearsed(asked, Answer::Done)?;
                    continue;
                }
                Event::Exited(exit)
            } else {
                Event::ExecExited { exec: id.to_string(), exit, output: String::new() }
            };
            self.tell(Answer::Event(event))?;
        }
        Ok(())
    }
}
