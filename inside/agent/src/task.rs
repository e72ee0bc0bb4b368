//! One process that the shim asked for: its streams, between descriptors here and numbers on the link.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use silo_runtime::link::{Link, Part, stream};
use silo_runtime::protocol::Exit;
use silo_runtime::{Started, Stdio};

/// Bytes that may wait for the port before processes have to wait.
pub(crate) const QUEUE: usize = 1 << 20;

/// How long what an exec has left behind may still write to its streams.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a tool's output, which has an end, may take to be read to it.
const READING: Duration = Duration::from_secs(3600);

/// A process and its streams.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: u32,
    pub(crate) pid: i32,
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) status: Option<OwnedFd>,
    pub(crate) terminal: bool,
    /// One of the agent's own tools.
    pub(crate) tool: bool,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) typed: Vec<u8>,
    stdin_ends: bool,
    pub(crate) out: Option<OwnedFd>,
    pub(crate) err: Option<OwnedFd>,
    /// How it ended, and until when others may still write to its streams.
    pub(crate) ended: Option<(Exit, Instant)>,
}

impl Task {
    pub(crate) fn new(id: u32, terminal: bool) -> Self {
        Self {
            id,
            pid: 0,
            pidfd: None,
            status: None,
            terminal,
            tool: false,
            stdin: None,
            typed: Vec::new(),
            stdin_ends: false,
            out: None,
            err: None,
            ended: None,
        }
    }

    /// Takes the streams of a process that was started for nobody yet. Those of a terminal are made anew.
    pub(crate) fn take_streams(&mut self, from: Task, stdin: bool) {
        if !self.terminal {
            self.stdin = from.stdin.filter(|_| stdin);
            (self.out, self.err) = (from.out, from.err);
        }
    }

    /// Makes the ends that the process gets, keeping the others.
    pub(crate) fn open_streams(&mut self, stdin: bool, size: (u16, u16)) -> io::Result<Stdio> {
        use rustix::fs::{Mode, OFlags};
        use rustix::pipe::{PipeFlags, pipe_with};
        if self.terminal {
            return Ok(Stdio::Terminal { size });
        }
        let input = if stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&writer, true)?;
            self.stdin = Some(writer);
            reader
        } else {
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        };
        let output = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            Ok((reader, writer))
        };
        let (out, stdout) = output()?;
        let (err, stderr) = output()?;
        (self.out, self.err) = (Some(out), Some(err));
        Ok(Stdio::Pipes { stdin: input, stdout, stderr })
    }

    pub(crate) fn started(&mut self, started: Started) -> io::Result<()> {
        self.pid = started.pid;
        self.pidfd = Some(started.pidfd);
        self.status = started.status;
        if let Some(master) = started.terminal {
            rustix::io::ioctl_fionbio(&master, true)?;
            self.stdin = Some(master.try_clone()?);
            self.out = Some(master);
        }
        Ok(())
    }

    /// Its process has ended.
    pub(crate) fn end(&mut self, exit: Exit) {
        let patience = if self.tool { READING } else { PATIENCE };
        self.ended = Some((exit, Instant::now() + patience));
    }

    /// Takes bytes for standard input.
    pub(crate) fn input(&mut self, link: &mut Link, bytes: Vec<u8>) {
        if self.stdin.is_none() {
            link.credit(stream(self.id, Part::Stdin), bytes.len());
            return;
        }
        self.typed.extend_from_slice(&bytes);
        self.write(link);
    }

    /// No more bytes come for standard input. A terminal has no such end.
    pub(crate) fn input_ends(&mut self, link: &mut Link) {
        if !self.terminal {
            self.stdin_ends = true;
            self.write(link);
        }
    }

    /// Writes what waits for standard input.
    pub(crate) fn write(&mut self, link: &mut Link) {
        let number = stream(self.id, Part::Stdin);
        while let (Some(fd), false) = (&self.stdin, self.typed.is_empty()) {
            match rustix::io::write(fd, &self.typed) {
                Ok(n) => {
                    self.typed.drain(..n);
                    link.credit(number, n);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    link.credit(number, self.typed.len());
                    self.typed.clear();
                    self.stdin = None;
                }
            }
        }
        if self.stdin_ends {
            self.stdin = None;
        }
    }

    /// The descriptor of an output that may be read now.
    pub(crate) fn output(&self, link: &Link, part: Part) -> Option<&OwnedFd> {
        let fd = if part == Part::Stdout { self.out.as_ref() } else { self.err.as_ref() };
        fd.filter(|_| link.room(stream(self.id, part)) > 0 && link.output.len() < QUEUE)
    }

    /// Reads one piece of output; whether there was one.
    pub(crate) fn read(&mut self, link: &mut Link, part: Part) -> bool {
        let number = stream(self.id, part);
        let slot = if part == Part::Stdout { &mut self.out } else { &mut self.err };
        let Some(fd) = slot else { return false };
        let mut buffer = vec![0u8; link.room(number)];
        match rustix::io::read(&*fd, &mut buffer) {
            Ok(n) if n > 0 => {
                link.data(number, &buffer[..n]);
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            // A terminal's master gives EIO once nobody has the slave open.
            _ => {
                *slot = None;
                link.end(number);
                false
            }
        }
    }

    /// Nobody writes to its streams any more.
    pub(crate) fn is_silent(&self) -> bool {
        self.out.is_none() && self.err.is_none()
    }
}
