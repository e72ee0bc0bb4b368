//! The shim: supervises one sandbox and outlives the daemon. One thread, one loop.
//!
//! Started with a socket to the daemon as standard input and the sandbox's directory as its argument. It listens
//! on a socket of its own for daemons to come, keeps the log, and writes `exit.json` when the container ends.

mod asked;
mod client;
mod execs;
mod host;
#[cfg(test)]
mod hostile;
mod limits;
pub(crate) mod log;
mod machine;
mod prepared;
mod reactor;
mod serve;
mod spare;
mod task;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use silo_runtime::cgroup::Cgroup;
use silo_runtime::protocol::{Answer, Reply, encode};
use silo_runtime::{Bundle, told_status};
use silo_sys::process::{self, Wait};

use crate::contract::{Event, ExecState, Exit, Isolation, ShimConfig, files};
use log::Log;
use reactor::{Interest, Reactor, Target};
use task::{Notice, Task};

/// How long daemons may take to hear of the container's end.
const LINGER: Duration = Duration::from_secs(10);
/// How long clients may take to read what is left after it.
const READING: Duration = Duration::from_secs(3600);

/// Id of the container's first process among the tasks.
const FIRST: u32 = 0;

/// A connection of a daemon.
#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    input: Vec<u8>,
    fds: Vec<OwnedFd>,
    output: Vec<u8>,
    subscribed: bool,
}

/// All state of a shim.
struct Shim {
    dir: PathBuf,
    config: ShimConfig,
    reactor: Reactor,
    signals: OwnedFd,
    /// `None`: a spare that is nobody's yet.
    listener: Option<OwnedFd>,
    /// Device and inode of its socket, as it was made.
    bound: Option<(u64, u64)>,
    connections: HashMap<u64, Connection>,
    tasks: HashMap<u32, Task>,
    /// Clients of execs that were announced and are not started yet.
    early: HashMap<String, Vec<(crate::contract::Attach, OwnedFd)>>,
    /// When they ended.
    ended_execs: VecDeque<(Instant, ExecState)>,
    bundle: Option<Bundle>,
    cgroup: Option<Cgroup>,
    /// The microVM that everything runs in, under `hyperv`.
    machine: Option<host::Host>,
    /// A container that waits for its bundle, until the start.
    prepared: Option<prepared::Ready>,
    /// Of a template, until the start.
    template: Option<OwnedFd>,
    own_network: bool,
    /// Niceness that a spare has when it is somebody's.
    niceness: i32,
    started_ms: i64,
    paused: bool,
    exit: Option<Exit>,
    leave_at: Option<Instant>,
    /// When clients that have not read everything are left.
    read_by: Option<Instant>,
    next: u64,
    next_task: u32,
}

/// Runs the shim for the sandbox in `dir`. Returns when the sandbox has ended.
pub fn main(dir: &Path) -> io::Result<()> {
    let _ = rustix::process::setsid();
    let config: ShimConfig = serde_json::from_slice(&std::fs::read(dir.join(files::SHIM))?)?;
    if config.open_files > 0 {
        // The daemon's is for what it holds of all containers.
        silo_sys::process::set_open_files(Some(config.open_files))?;
    }
    let signals =
        process::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE])?;
    // SAFETY: standard input is the daemon's socket, standard output the memory of a template or nothing, and nothing else
    // in this process uses them.
    let [control, template] = [0, 1].map(|n| unsafe { process::inherit_fd(n) });
    // Their numbers are for standard streams alone: what is opened later must not get them.
    let (control, template) = (away(control)?, away(template)?);
    let template = Some(template).filter(|_| config.isolation == Isolation::Hyperv);
    silo_runtime::become_supervisor(&config.volumes)?;
    let mut shim = Shim::new(dir, config, signals)?;
    shim.template = template;
    shim.reactor.watch(Target::Signals, &shim.signals, Interest { read: true, write: false })?;
    if shim.config.spare.is_none() {
        shim.open()?;
    }
    shim.connect(control)?;
    let result = shim.run();
    // The container may have been started again meanwhile: then another shim listens under this name.
    if shim.bound.is_some() && identity(&shim.config.socket) == shim.bound {
        let _ = std::fs::remove_file(&shim.config.socket);
    }
    result
}

/// The descriptor under a number above the standard streams', and nothing in its place.
fn away(fd: OwnedFd) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let moved = rustix::io::fcntl_dupfd_cloexec(&fd, 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    process::duplicate_onto(&null, fd.into_raw_fd())?;
    Ok(moved)
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path)
        .map_err(|e| io::Error::new(e.kind(), format!("listening on {}: {e}", path.display())))?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Shim {
    fn new(dir: &Path, config: ShimConfig, signals: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            reactor: Reactor::new()?,
            signals,
            listener: None,
            bound: None,
            connections: HashMap::new(),
            tasks: HashMap::new(),
            early: HashMap::new(),
            ended_execs: VecDeque::new(),
            bundle: None,
            cgroup: None,
            machine: None,
            prepared: None,
            template: None,
            own_network: false,
            niceness: 0,
            started_ms: 0,
            paused: false,
            exit: None,
            leave_at: None,
            read_by: None,
            next: 1,
            next_task: 1,
            config,
        })
    }

    /// It is a sandbox's from now on: listens for daemons, keeps the log.
    fn open(&mut self) -> io::Result<()> {
        let log = self.config.log.clone().map(Log::open).transpose()?;
        self.tasks.insert(FIRST, Task::new(FIRST, None, log, 0, self.config.stdin_once));
        let listener = listen(&self.config.socket)?;
        self.bound = identity(&self.config.socket);
        self.reactor.watch(Target::Listener, &listener, Interest { read: true, write: false })?;
        self.listener = Some(listener);
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let next = [self.leave_at, self.patience(), self.machine_patience()].into_iter().flatten().min();
            let limit = next.map(|at| at.saturating_duration_since(Instant::now()));
            for ready in self.reactor.wait(limit)? {
                match ready.target {
                    Target::Signals => self.signal()?,
                    Target::Listener => self.accept()?,
                    Target::Connection(id) => self.connection_ready(id),
                    Target::Machine => self.machine_ready(),
                    Target::Prepared => self.prepared_ready(),
                    Target::Output(task, key) => {
                        if let Some(task) = self.tasks.get_mut(&task) {
                            task.read_output(&mut self.reactor, key);
                        }
                    }
                    Target::Stdin(task) => {
                        if let Some(task) = self.tasks.get_mut(&task) {
                            task.write_stdin(&mut self.reactor);
                        }
                    }
                    Target::Client(task, client) => {
                        if let Some(task) = self.tasks.get_mut(&task) {
                            let notice =
                                task.client_ready(&mut self.reactor, client, ready.read, ready.hangup);
                            let _ = ready.write;
                            if notice == Notice::Detached {
                                let exec = task.exec.clone();
                                self.tell(&Event::Detached { exec });
                            }
                        }
                    }
                }
            }
            self.end_execs(false);
            self.machine_pump();
            for task in self.tasks.values_mut() {
                task.flush_log();
                task.rewatch(&mut self.reactor);
            }
            self.tasks.retain(|id, task| {
                *id == FIRST || task.ended.is_none() || task.lingers.is_some() || !task.settled()
            });
            let unwanted = self.bundle.is_none() || self.config.files_of.is_some();
            if unwanted && self.connections.is_empty() {
                self.discard_prepared();
                self.destroy_cgroup();
                return Ok(());
            }
            if self.may_leave() {
                return Ok(());
            }
        }
    }

    /// The container has ended and everybody has been told, or has had the time to be: a daemon [`LINGER`], a client that
    /// still has its connection [`READING`] (somebody pages through the output).
    fn may_leave(&mut self) -> bool {
        let Some(at) = self.leave_at else { return false };
        let told = self.connections.values().all(|c| c.output.is_empty());
        let settled = self.tasks.values().all(Task::settled);
        if told && settled {
            return true;
        }
        let now = Instant::now();
        if now < at {
            return false;
        }
        if settled || now >= *self.read_by.get_or_insert(now + READING) {
            return true;
        }
        self.leave_at = Some(now + LINGER);
        false
    }

    fn signal(&mut self) -> io::Result<()> {
        while process::take_signal(&self.signals).is_some() {}
        while let Some((pid, wait)) = process::reap() {
            self.reaped(pid, wait);
        }
        Ok(())
    }

    fn reaped(&mut self, pid: i32, wait: Wait) {
        if self.machine.as_ref().is_some_and(|m| m.is(pid)) {
            return self.machine_gone(wait);
        }
        if self.prepared.as_ref().is_some_and(|p| p.is(pid)) {
            return self.prepared_gone();
        }
        // Adopted orphans of the container are reaped and forgotten.
        let Some(id) = self.tasks.values().find(|t| t.pid == pid && t.ended.is_none()).map(|t| t.id) else {
            return;
        };
        if id == FIRST {
            self.first_ended(wait);
            return;
        }
        self.exec_reaped(id, wait);
    }

    fn first_ended(&mut self, wait: Wait) {
        let Some(task) = self.tasks.get_mut(&FIRST) else { return };
        let code = code_of(task, wait);
        let oom_killed = self.cgroup.as_ref().is_some_and(|c| c.oom_kills() > 0);
        self.container_ended(Exit { code, oom_killed, at_ms: now_ms(), error: String::new() }, wait);
    }

    fn container_ended(&mut self, exit: Exit, wait: Wait) {
        if let Some(task) = self.tasks.get_mut(&FIRST) {
            task.ended = Some(wait);
            task.drain(&mut self.reactor);
        }
        if let Err(e) = self.record_exit(&exit) {
            crate::complain!("writing {}: {e}", files::EXIT);
        }
        // Before it is told: the next start uses the cgroup again. A machine's memory takes a while to be taken apart, and
        // nobody has to wait for that: it is handed over below.
        if self.machine.is_none() {
            self.destroy_cgroup();
        }
        // Execs of a container without a pid namespace of its own have been killed with the cgroup.
        while let Some((pid, wait)) = process::reap() {
            self.reaped(pid, wait);
        }
        if self.config.top.is_some() {
            crate::top::leave_top(&self.dir);
        }
        self.end_execs(true);
        self.exit = Some(exit.clone());
        self.leave_at = Some(Instant::now() + LINGER);
        self.tell(&Event::Exited(exit));
        if self.machine.is_some() {
            self.leave_cgroup();
        }
    }

    fn destroy_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup
            && let Err(e) = cgroup.destroy()
        {
            crate::complain!("{e}");
        }
    }

    fn record_exit(&self, exit: &Exit) -> io::Result<()> {
        silo_sys::atomic_file::write_with(
            &self.dir.join(files::EXIT),
            &serde_json::to_vec(exit)?,
            0o600,
            false,
        )
    }

    /// Sends an event to everybody who asked for events; whether there is somebody.
    fn tell(&mut self, event: &Event) -> bool {
        let Ok(frame) = encode(&Reply { id: 0, answer: Answer::Event(event.clone()) }) else { return false };
        let ids: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.subscribed).map(|(id, _)| *id).collect();
        for id in &ids {
            self.send(*id, &frame);
        }
        !ids.is_empty()
    }
}

fn code_of(task: &mut Task, wait: Wait) -> u32 {
    task.status.take().and_then(told_status).unwrap_or_else(|| wait.code())
}
