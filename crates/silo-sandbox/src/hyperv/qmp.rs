//! Orders to a running VMM (QEMU Machine Protocol, docs/interop/qmp-spec): one at a time, with a limit of time.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the VMM may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one.
const LONGEST: usize = 1 << 20;

/// The connection.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    input: Vec<u8>,
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl Qmp {
    /// Greets a VMM at the other end of a socket.
    pub(super) fn connect(socket: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        let mut qmp = Self { stream, input: Vec::new() };
        let greeting = qmp.message()?;
        if greeting["QMP"].is_null() {
            return Err(invalid(format!("no greeting of a VMM: {greeting}")));
        }
        qmp.order("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives an order; what it returned.
    pub(super) fn order(&mut self, name: &str, arguments: Value) -> io::Result<Value> {
        self.order_with(name, arguments, None)
    }

    /// As [`Qmp::order`], with a descriptor.
    pub(super) fn order_with(
        &mut self,
        name: &str,
        arguments: Value,
        fd: Option<&OwnedFd>,
    ) -> io::Result<Value> {
        let text = format!("{}\n", json!({"execute": name, "arguments": arguments}));
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        let mut rest = text.as_bytes();
        let sent = silo_sys::socket::send(&self.stream, rest, &fds)?;
        rest = &rest[sent..];
        io::Write::write_all(&mut &self.stream, rest)?;
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            let mut answer = self.message()?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!(
                    "{name}: {}",
                    error["desc"].as_str().unwrap_or("refused")
                )));
            }
            // Everything else is an event.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name}: the VMM does not answer")))
    }

    /// Has memory that is shared with a file left out of what is saved and restored.
    pub(super) fn leave_memory_out(&mut self) -> io::Result<()> {
        let capability = json!({"capability": "x-ignore-shared", "state": true});
        self.order("migrate-set-capabilities", json!({"capabilities": [capability]})).map(drop)
    }

    /// Forgets what has come unasked: nobody else does, and the VMM keeps what it cannot send.
    pub(super) fn forget_events(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok((n @ 1.., _)) =
            rustix::net::recv(&self.stream, &mut buffer, rustix::net::RecvFlags::DONTWAIT)
        {
            self.input.extend_from_slice(&buffer[..n]);
            // What follows the last whole one.
            let end = self.input.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            self.input.drain(..end);
        }
    }

    fn message(&mut self) -> io::Result<Value> {
        loop {
            if let Some(end) = self.input.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.input.len() > LONGEST {
                return Err(invalid("a VMM that sends no end of line"));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the VMM has ended")),
                n => self.input.extend_from_slice(&buffer[..n]),
            }
        }
    }
}
