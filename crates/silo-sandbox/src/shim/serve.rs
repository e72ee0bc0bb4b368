//! The shim's end of the task protocol: connections, requests, answers.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use oci_spec::runtime::LinuxResources;
use silo_runtime::cgroup::Cgroup;
use silo_runtime::protocol::{Answer, Call, Reply, Request, VERSION, decode, encode};
use silo_runtime::{Bundle, Started};
use silo_sys::process;

use crate::contract::{Attach, Failure, FailureKind, Isolation, SandboxState, Stats};

use super::asked::{Asked, Asker};
use super::reactor::{Interest, Target};
use super::task::Task;
use super::{Connection, FIRST, LINGER, Shim, now_ms};

/// Bytes that may wait for a daemon that does not read; then it is dropped and has to come again.
const OUTPUT_LIMIT: usize = 8 << 20;

pub(super) fn wrong_state(message: &str) -> Failure {
    Failure { kind: FailureKind::WrongState, message: message.to_owned() }
}

pub(super) fn other(error: io::Error) -> Failure {
    Failure { kind: FailureKind::Other, message: error.to_string() }
}

impl Shim {
    pub(super) fn connect(&mut self, fd: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let id = self.next;
        self.next += 1;
        self.reactor.watch(Target::Connection(id), &fd, Interest { read: true, write: false })?;
        let connection =
            Connection { fd, input: Vec::new(), fds: Vec::new(), output: Vec::new(), subscribed: false };
        self.connections.insert(id, connection);
        Ok(())
    }

    pub(super) fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            Ok(fd) => self.connect(fd),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn connection_ready(&mut self, id: u64) {
        self.send(id, &[]);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut buffer = [0u8; 16 << 10];
        match silo_sys::socket::receive(&connection.fd, &mut buffer, &mut connection.fds) {
            Ok(0) => return self.disconnect(id),
            Ok(n) => connection.input.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.disconnect(id),
        }
        while let Some(connection) = self.connections.get_mut(&id) {
            match decode::<Request>(&mut connection.input) {
                Ok(Some(request)) => {
                    let fd = match request.call {
                        Call::Attach(_) | Call::Start | Call::Prepare if !connection.fds.is_empty() => {
                            Some(connection.fds.remove(0))
                        }
                        _ => None,
                    };
                    let number = request.id;
                    let asker = Asker { connection: id, number };
                    // What is asked of a machine is answered when it has answered.
                    if let Some(answer) =
                        self.answer(asker, request.call, fd).unwrap_or_else(|f| Some(Answer::Failed(f)))
                    {
                        self.reply(asker, answer);
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    crate::complain!("a daemon's connection: {e}");
                    return self.disconnect(id);
                }
            }
        }
    }

    pub(super) fn reply(&mut self, asker: Asker, answer: Answer) {
        match encode(&Reply { id: asker.number, answer }) {
            Ok(frame) => self.send(asker.connection, &frame),
            Err(e) => {
                let failure = Failure { kind: FailureKind::Other, message: format!("the answer is {e}") };
                let reply = Reply { id: asker.number, answer: Answer::Failed(failure) };
                if let Ok(frame) = encode(&reply) {
                    self.send(asker.connection, &frame);
                }
            }
        }
    }

    pub(super) fn disconnect_all(&mut self) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        ids.into_iter().for_each(|id| self.disconnect(id));
    }

    fn disconnect(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id) {
            self.reactor.forget(Target::Connection(id), &connection.fd);
        }
    }

    /// Queues a frame and sends as much as the socket takes.
    pub(super) fn send(&mut self, id: u64, frame: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.output.extend_from_slice(frame);
        while !connection.output.is_empty() {
            match silo_sys::socket::send(&connection.fd, &connection.output, &[]) {
                Ok(n) => {
                    connection.output.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && connection.output.len() < OUTPUT_LIMIT => {
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.disconnect(id),
            }
        }
        let interest = Interest { read: true, write: !connection.output.is_empty() };
        let _ = self.reactor.watch(Target::Connection(id), &connection.fd, interest);
    }

    /// `None`: the answer comes later.
    fn answer(&mut self, asker: Asker, call: Call, fd: Option<OwnedFd>) -> Result<Option<Answer>, Failure> {
        let call = match call {
            Call::Prepare => return self.prepare(asker, fd),
            Call::Become { dir } => return self.become_shim_of(&dir).map(|()| Some(Answer::Done)),
            call => call,
        };
        if self.config.isolation == Isolation::Hyperv {
            return match self.ask_machine(asker, call, fd)? {
                Asked::Later => Ok(None),
                Asked::Now(answer) => Ok(Some(answer)),
                Asked::Own(call, fd) => self.own_answer(asker, call, fd).map(Some),
            };
        }
        self.own_answer(asker, call, fd).map(Some)
    }

    fn own_answer(&mut self, asker: Asker, call: Call, fd: Option<OwnedFd>) -> Result<Answer, Failure> {
        match call {
            Call::State => Ok(Answer::State(self.state())),
            Call::Subscribe => {
                if let Some(c) = self.connections.get_mut(&asker.connection) {
                    c.subscribed = true;
                }
                Ok(Answer::Done)
            }
            Call::Boot(_) | Call::Rehearse(_) | Call::Ready(_) | Call::Mount(_) | Call::Clock(_) => {
                Err(wrong_state("that is asked of a machine"))
            }
            Call::Prepare | Call::Become { .. } => Err(wrong_state("that is asked of a spare")),
            Call::Start => self.start(fd).map(|pid| Answer::Started { pid }),
            Call::Attach(attach) => {
                let fd = fd.ok_or_else(|| wrong_state("an attach request without a socket"))?;
                self.attach(attach, fd).map(|()| Answer::Done)
            }
            Call::Exec { exec, process, stdin, stdin_once, size, capture, note } => {
                let task = self.exec_task(exec, capture as usize, stdin_once, note)?;
                self.exec(task, &process, stdin, stdin_once, size).map(|pid| Answer::Started { pid })
            }
            Call::Tool { .. } => Err(wrong_state("its files are the host's: there are no tools on them")),
            Call::Signal { exec, signal } => {
                let task = self.task(exec.as_deref())?;
                silo_runtime::signal(task.pidfd.as_ref(), signal).map(|()| Answer::Done)
            }
            Call::Resize { exec, rows, cols } => {
                self.task(exec.as_deref())?.resize(rows, cols).map_err(other)?;
                Ok(Answer::Done)
            }
            Call::Pause => self.freeze(true),
            Call::Resume => self.freeze(false),
            Call::Update(resources) => self.update(&resources),
            // They are the container's.
            Call::Refresh(_) => Ok(Answer::Done),
            Call::Networks(_) => Err(wrong_state("that is asked of a machine")),
            Call::Stats => self.stats().map(|s| Answer::Stats(Box::new(s))),
            Call::Pids => self.cgroup()?.pids().map(Answer::Pids).map_err(other),
            Call::FlushLog => {
                self.tasks.values_mut().for_each(Task::flush_log);
                Ok(Answer::Done)
            }
            Call::Shutdown => {
                match self.tasks.get(&FIRST).and_then(|t| t.pidfd.as_ref()) {
                    Some(pidfd) => {
                        let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
                        if self.paused {
                            self.freeze(false)?;
                        }
                    }
                    None => self.leave_at = Some(Instant::now()),
                }
                Ok(Answer::Done)
            }
        }
    }

    fn state(&self) -> SandboxState {
        SandboxState {
            version: VERSION,
            shim_pid: rustix::process::getpid().as_raw_nonzero().get(),
            pid: self.tasks.get(&FIRST).map_or(0, |t| t.pid),
            started_ms: self.started_ms,
            exit: self.exit.clone(),
            paused: self.paused,
            execs: self.tasks.values().filter(|t| t.ended.is_none()).filter_map(|t| t.exec.clone()).collect(),
            known: Some(self.known_execs()),
        }
    }

    fn task(&self, exec: Option<&str>) -> Result<&Task, Failure> {
        self.tasks
            .values()
            .find(|t| t.exec.as_deref() == exec)
            .ok_or_else(|| wrong_state(&format!("there is no exec {}", exec.unwrap_or_default())))
    }

    pub(super) fn cgroup(&self) -> Result<&Cgroup, Failure> {
        self.cgroup.as_ref().filter(|_| self.exit.is_none()).ok_or_else(|| wrong_state("it is not running"))
    }

    fn start(&mut self, network: Option<OwnedFd>) -> Result<i32, Failure> {
        if self.bundle.is_some() {
            return Err(wrong_state("it was started before"));
        }
        let bundle = Bundle::load(&self.dir).map_err(other)?;
        if let Some(network) = network {
            silo_sys::mount::setns(&network, libc::CLONE_NEWNET).map_err(other)?;
            self.own_network = true;
        }
        let cgroup = Cgroup::at(bundle.cgroup().map_err(other)?).map_err(other)?;
        if let Some(top) = &self.config.top {
            crate::top::mount_top(&self.dir, top).map_err(other)?;
        }
        let config = self.config.clone();
        let result = self.run_first(&bundle, &cgroup, &config);
        if let Err(failure) = &result {
            if let Err(e) = cgroup.destroy() {
                crate::complain!("{e}");
            }
            if let Some(task) = self.tasks.get_mut(&FIRST) {
                // Clients learn of it from the start request's answer.
                task.drain(&mut self.reactor);
            }
            crate::complain!("start: {failure}");
            self.leave_at = Some(Instant::now() + LINGER);
        }
        self.bundle = Some(bundle);
        self.cgroup = Some(cgroup);
        result
    }

    fn run_first(
        &mut self,
        bundle: &Bundle,
        cgroup: &Cgroup,
        config: &crate::contract::ShimConfig,
    ) -> Result<i32, Failure> {
        if let Some(pid) = self.take_prepared(bundle, cgroup, config)? {
            return Ok(pid);
        }
        let task = self.tasks.get_mut(&FIRST).ok_or_else(|| wrong_state("no first task"))?;
        let stdio = task
            .open_streams(config.terminal, config.stdin, config.stdin_once, config.console_size)
            .map_err(other)?;
        let started = silo_runtime::start(bundle, cgroup, stdio)?;
        let pid = adopt(task, started)?;
        self.started_ms = now_ms();
        task.write_stdin(&mut self.reactor);
        Ok(pid)
    }

    fn attach(&mut self, attach: Attach, fd: OwnedFd) -> Result<(), Failure> {
        let id = self.next;
        self.next += 1;
        let known = self.tasks.values_mut().find(|t| t.exec == attach.exec);
        match (known, attach.exec.clone()) {
            (Some(task), _) => {
                let result = task.attach(id, fd, attach).map_err(other);
                task.write_stdin(&mut self.reactor);
                result
            }
            (None, Some(exec)) => {
                self.early.entry(exec).or_default().push((attach, fd));
                Ok(())
            }
            (None, None) => Err(wrong_state("no first task")),
        }
    }

    fn freeze(&mut self, frozen: bool) -> Result<Answer, Failure> {
        self.cgroup()?.freeze(frozen).map_err(other)?;
        self.paused = frozen;
        Ok(Answer::Done)
    }

    fn update(&mut self, resources: &LinuxResources) -> Result<Answer, Failure> {
        self.cgroup()?.update(resources).map_err(other)?;
        Ok(Answer::Done)
    }

    fn stats(&self) -> Result<Stats, Failure> {
        let mut stats = self.cgroup()?.stats();
        if self.own_network {
            stats.networks = interfaces(&std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default());
        }
        Ok(stats)
    }
}

pub(super) fn adopt(task: &mut Task, started: Started) -> Result<i32, Failure> {
    task.pid = started.pid;
    task.pidfd = Some(started.pidfd);
    task.status = started.status;
    task.set_terminal(started.terminal).map_err(other)?;
    Ok(started.pid)
}

/// `/proc/net/dev`: name, then eight receive and eight transmit counters.
pub(super) fn interfaces(text: &str) -> Vec<(String, [u64; 8])> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, rest)| {
            let n: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let name = name.trim();
            (name != "lo" && n.len() >= 12)
                .then(|| (name.to_owned(), [n[0], n[1], n[2], n[3], n[8], n[9], n[10], n[11]]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        assert_eq!(interfaces(text), [("eth0".to_owned(), [10, 2, 3, 4, 50, 6, 7, 8])]);
    }
}
