//! One supervised process (the container's first, or an exec): its streams, its clients, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use silo_runtime::Stdio;
use silo_sys::process::Wait;

use crate::contract::{Attach, Exit};

use super::client::{Client, QUEUE_LIMIT, Typed};
use super::log::{Log, Stream};
use super::reactor::{Interest, Reactor, StreamKey, Target};

/// Bytes of a read.
const CHUNK: usize = 128 << 10;
/// Size asked of the pipes of standard output and error: fewer wake-ups of both sides.
const PIPE_SIZE: usize = 512 << 10;

/// A process and its streams.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: u32,
    /// `None`: the container's first process.
    pub(super) exec: Option<String>,
    pub(super) pid: i32,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) status: Option<OwnedFd>,
    pub(super) ended: Option<Wait>,
    /// As the asker gave it; see `SandboxState::known`.
    pub(super) note: String,
    /// How it ended, and until when others may still write to its streams.
    pub(super) lingers: Option<(Exit, Instant)>,
    /// A tool on the container's files.
    pub(super) tool: bool,
    /// Its streams come and go over a machine's link: there are no descriptors of them here.
    remote: bool,
    terminal: bool,
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    typed: Vec<u8>,
    close_stdin: bool,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    clients: Vec<Client>,
    log: Option<Log>,
    pub(super) capture: Vec<u8>,
    capture_limit: usize,
    buffer: Vec<u8>,
}

/// What the loop has to tell the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    None,
    Detached,
}

impl Task {
    pub(super) fn new(
        id: u32,
        exec: Option<String>,
        log: Option<Log>,
        capture_limit: usize,
        stdin_once: bool,
    ) -> Self {
        Self {
            id,
            exec,
            pid: 0,
            pidfd: None,
            status: None,
            ended: None,
            note: String::new(),
            lingers: None,
            tool: false,
            remote: false,
            terminal: false,
            stdin: None,
            stdin_once,
            typed: Vec::new(),
            close_stdin: false,
            out: None,
            err: None,
            clients: Vec::new(),
            log,
            capture: Vec::new(),
            capture_limit,
            buffer: Vec::new(),
        }
    }

    /// Makes the ends that the process gets, keeping the others.
    pub(super) fn open_streams(
        &mut self,
        terminal: bool,
        stdin: bool,
        stdin_once: bool,
        size: (u16, u16),
    ) -> io::Result<Stdio> {
        use rustix::pipe::{PipeFlags, pipe_with};
        self.stdin_once = stdin_once;
        self.terminal = terminal;
        if terminal {
            return Ok(Stdio::Terminal { size });
        }
        let input = if stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&writer, true)?;
            self.stdin = Some(writer);
            reader
        } else {
            rustix::fs::open(
                "/dev/null",
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?
        };
        let output = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
            Ok((reader, writer))
        };
        let (out, stdout) = output()?;
        let (err, stderr) = output()?;
        self.out = Some(out);
        self.err = Some(err);
        Ok(Stdio::Pipes { stdin: input, stdout, stderr })
    }

    /// Takes the streams of a process that was started for nobody yet. Those of a terminal are made anew.
    pub(super) fn take_streams(&mut self, from: Task, terminal: bool, stdin: bool, stdin_once: bool) {
        (self.terminal, self.stdin_once) = (terminal, stdin_once);
        if !terminal {
            self.stdin = from.stdin.filter(|_| stdin);
            (self.out, self.err) = (from.out, from.err);
        }
    }

    /// What an ended process has written that nobody has read: its beginning.
    pub(super) fn last_words(&mut self) -> String {
        let mut text = vec![0; 1024];
        let read = self.err.as_ref().map_or(0, |fd| rustix::io::read(fd, &mut text[..]).unwrap_or(0));
        String::from_utf8_lossy(&text[..read]).trim().to_owned()
    }

    /// Its streams are a machine's.
    pub(super) fn open_remote(&mut self, terminal: bool, stdin_once: bool) {
        self.remote = true;
        self.terminal = terminal;
        self.stdin_once = stdin_once;
    }

    /// Bytes typed for standard input, at most so many.
    pub(super) fn take_typed(&mut self, most: usize) -> Vec<u8> {
        self.typed.drain(..most.min(self.typed.len())).collect()
    }

    /// Everything typed was taken and nothing more comes; told once.
    pub(super) fn input_ended(&mut self) -> bool {
        self.typed.is_empty() && std::mem::take(&mut self.close_stdin)
    }

    /// Clients take more output.
    pub(super) fn accepts(&self) -> bool {
        !self.clients.iter().any(|c| c.waiting() > QUEUE_LIMIT)
    }

    /// Takes the terminal of a started process.
    pub(super) fn set_terminal(&mut self, master: Option<OwnedFd>) -> io::Result<()> {
        let Some(master) = master else { return Ok(()) };
        rustix::io::ioctl_fionbio(&master, true)?;
        self.stdin = Some(master.try_clone()?);
        self.out = Some(master);
        Ok(())
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        match (&self.out, self.terminal) {
            (Some(terminal), true) => silo_runtime::set_window_size(terminal, rows, cols),
            (None, true) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no terminal")),
        }
    }

    pub(super) fn attach(&mut self, id: u64, fd: OwnedFd, mut attach: Attach) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let read_ahead = std::mem::take(&mut attach.read_ahead);
        let mut client = Client::new(id, fd, attach);
        if client.attach.stdin {
            self.typed.extend_from_slice(&read_ahead);
        }
        client.closing = self.ended.is_some() && self.lingers.is_none();
        self.clients.push(client);
        Ok(())
    }

    /// Tells every client a last sentence and lets it go: the process could not be started.
    pub(super) fn refuse(&mut self, sentence: &str) {
        for client in &mut self.clients {
            let _ = client.output(Stream::Stdout, format!("{sentence}\r\n").as_bytes());
            client.closing = true;
        }
        self.out = None;
        self.err = None;
        self.stdin = None;
    }

    /// Brings what is watched in line with the state.
    pub(super) fn rewatch(&mut self, reactor: &mut Reactor) {
        let full = !self.accepts();
        for (key, fd) in [(StreamKey::Out, &self.out), (StreamKey::Err, &self.err)] {
            let Some(fd) = fd else { continue };
            let target = Target::Output(self.id, key);
            if full {
                reactor.forget(target, fd);
            } else {
                let _ = reactor.watch(target, fd, Interest { read: true, write: false });
            }
        }
        if let Some(fd) = &self.stdin {
            if self.typed.is_empty() {
                reactor.forget(Target::Stdin(self.id), fd);
            } else {
                let _ = reactor.watch(Target::Stdin(self.id), fd, Interest { read: false, write: true });
            }
        }
        let input_full = self.typed.len() > QUEUE_LIMIT;
        let mut gone = Vec::new();
        for client in &self.clients {
            if client.closing && client.waiting() == 0 {
                gone.push(client.id);
                continue;
            }
            let interest = Interest {
                read: !(client.input_ended || client.attach.stdin && input_full),
                write: client.waiting() > 0,
            };
            if reactor.watch(Target::Client(self.id, client.id), &client.fd, interest).is_err() {
                gone.push(client.id);
            }
        }
        for id in gone {
            self.remove_client(reactor, id);
        }
    }

    pub(super) fn remove_client(&mut self, reactor: &mut Reactor, id: u64) {
        if let Some(i) = self.clients.iter().position(|c| c.id == id) {
            let client = self.clients.remove(i);
            reactor.forget(Target::Client(self.id, id), &client.fd);
            // The docker client reads to the end of the stream: tell it although copies of the socket may live on.
            let _ = rustix::net::shutdown(&client.fd, rustix::net::Shutdown::Both);
            if client.attach.stdin && self.stdin_once && !self.clients.iter().any(|c| c.attach.stdin) {
                self.end_stdin(reactor);
            }
        }
    }

    /// Reads one piece of output and deals it out.
    pub(super) fn read_output(&mut self, reactor: &mut Reactor, key: StreamKey) {
        let stream = Stream::from(key);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let slot = if key == StreamKey::Out { &self.out } else { &self.err };
        let result = match slot {
            Some(fd) => rustix::io::read(fd, &mut buffer[..]),
            None => Ok(0),
        };
        match result {
            Ok(n) if n > 0 => self.deal(reactor, stream, &buffer[..n]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // A terminal's master gives EIO once nobody has the slave open.
            _ => self.end_output(reactor, key),
        }
        self.buffer = buffer;
        if self.out.is_none() && self.err.is_none() {
            self.buffer = Vec::new();
        }
    }

    /// Gives a piece of output to the log and everybody attached.
    pub(super) fn deal(&mut self, reactor: &mut Reactor, stream: Stream, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            let time = jiff::Timestamp::now().to_string();
            if let Err(e) = log.append(stream, bytes, &time) {
                crate::complain!("writing the log: {e}");
            }
        }
        let room = self.capture_limit.saturating_sub(self.capture.len());
        self.capture.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let mut gone = Vec::new();
        for client in &mut self.clients {
            if client.output(stream, bytes).is_err() {
                gone.push(client.id);
            }
        }
        for id in gone {
            self.remove_client(reactor, id);
        }
    }

    fn end_output(&mut self, reactor: &mut Reactor, key: StreamKey) {
        let slot = if key == StreamKey::Out { &mut self.out } else { &mut self.err };
        if let Some(fd) = slot.take() {
            reactor.forget(Target::Output(self.id, key), &fd);
        }
    }

    /// Hands the log's buffer to the kernel.
    pub(super) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log
            && let Err(e) = log.flush()
        {
            crate::complain!("writing the log: {e}");
        }
    }

    pub(super) fn write_stdin(&mut self, reactor: &mut Reactor) {
        if self.pid == 0 || self.remote {
            // A machine takes it when it has room. Else kept for the start: clients attach, and may have said everything, before it.
            return;
        }
        while !self.typed.is_empty() {
            let Some(fd) = &self.stdin else {
                self.typed.clear();
                return;
            };
            match rustix::io::write(fd, &self.typed) {
                Ok(n) => {
                    self.typed.drain(..n);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.typed.clear();
                    self.close_stdin = true;
                }
            }
        }
        if self.close_stdin
            && let Some(fd) = self.stdin.take()
        {
            reactor.forget(Target::Stdin(self.id), &fd);
        }
    }

    fn end_stdin(&mut self, reactor: &mut Reactor) {
        // A terminal has no end of input of its own: the program sees ^D or a hang-up.
        if !self.terminal {
            self.close_stdin = true;
            self.write_stdin(reactor);
        }
    }

    /// Something happened on a client's socket.
    pub(super) fn client_ready(
        &mut self,
        reactor: &mut Reactor,
        id: u64,
        read: bool,
        hangup: bool,
    ) -> Notice {
        let Some(client) = self.clients.iter_mut().find(|c| c.id == id) else { return Notice::None };
        if client.flush().is_err() {
            self.remove_client(reactor, id);
            return Notice::None;
        }
        if !read {
            if hangup {
                self.remove_client(reactor, id);
            }
            return Notice::None;
        }
        let mut buffer = [0u8; 32 << 10];
        match rustix::io::read(&client.fd, &mut buffer) {
            Ok(0) => {
                client.input_ended = true;
                if client.attach.stdin && self.stdin_once {
                    self.end_stdin(reactor);
                }
                if hangup {
                    self.remove_client(reactor, id);
                }
                Notice::None
            }
            Ok(n) if client.attach.stdin => match client.typed(&buffer[..n]) {
                Typed::Input(bytes) => {
                    self.typed.extend_from_slice(&bytes);
                    self.write_stdin(reactor);
                    Notice::None
                }
                Typed::Detach(bytes) => {
                    self.typed.extend_from_slice(&bytes);
                    self.write_stdin(reactor);
                    // It leaves, its input does not end.
                    client_leaves(self, reactor, id);
                    Notice::Detached
                }
            },
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Notice::None,
            Err(_) => {
                self.remove_client(reactor, id);
                Notice::None
            }
        }
    }

    /// Its asker alone hears of it.
    pub(super) fn is_probe(&self) -> bool {
        self.capture_limit > 0 || self.tool
    }

    /// Somebody may still write to its streams.
    pub(super) fn has_output(&self) -> bool {
        self.out.is_some() || self.err.is_some()
    }

    /// Takes what is in its streams.
    pub(super) fn take_output(&mut self, reactor: &mut Reactor) {
        for key in [StreamKey::Out, StreamKey::Err] {
            // Bounded: survivors (`--pid host`) could go on writing for ever.
            for _ in 0..(2 * PIPE_SIZE / CHUNK + 64) {
                let open = if key == StreamKey::Out { &self.out } else { &self.err };
                let Some(fd) = open else { break };
                let mut poll = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                if !matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(n) if n > 0) {
                    break;
                }
                self.read_output(reactor, key);
            }
        }
    }

    /// The process has ended: takes what is still in its streams, and closes them.
    pub(super) fn drain(&mut self, reactor: &mut Reactor) {
        self.take_output(reactor);
        for key in [StreamKey::Out, StreamKey::Err] {
            self.end_output(reactor, key);
        }
        if let Some(fd) = self.stdin.take() {
            reactor.forget(Target::Stdin(self.id), &fd);
        }
        if let Some(log) = &mut self.log
            && let Err(e) = log.finish(&jiff::Timestamp::now().to_string())
        {
            crate::complain!("writing the log: {e}");
        }
        for client in &mut self.clients {
            client.closing = true;
        }
        self.rewatch(reactor);
    }

    /// No client waits for bytes any more.
    pub(super) fn settled(&self) -> bool {
        self.clients.is_empty()
    }
}

fn client_leaves(task: &mut Task, reactor: &mut Reactor, id: u64) {
    let once = std::mem::replace(&mut task.stdin_once, false);
    task.remove_client(reactor, id);
    task.stdin_once = once;
}
