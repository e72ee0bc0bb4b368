//! The engine's end of a tool on the files of a container in a machine: bytes to it, bytes and its end from it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use silo_runtime::protocol::{Call, Failure, FailureKind, ToolEnd};
use silo_runtime::tools::Tool;

use crate::client::{Sandbox, io_error};
use crate::contract::{Attach, SandboxError};

/// How long a tool may take for the next bytes, or to take some.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of standard error that are kept: the last.
const WORDS: usize = 64 << 10;
/// Of a piece of output: the stream's number, three zeros, big-endian length.
const HEADER: usize = 8;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// A tool at work. Blocking: for threads that may wait. Reads as the tool's output, whose end is an error if the tool has
/// failed, then and at every later read; [`failure`](ToolStream::failure) tells a tool's own failure from another. Dropped
/// before its end, it has the tool killed.
#[derive(Debug)]
pub struct ToolStream {
    socket: UnixStream,
    /// Bytes of a piece of output that are still to come.
    left: usize,
    words: Vec<u8>,
    end: Option<Result<(), Failure>>,
    sandbox: Sandbox,
    exec: String,
    runtime: tokio::runtime::Handle,
}

impl Sandbox {
    /// Uses a tool on the container's files; `exec` is a name for it, unique in the sandbox.
    pub async fn tool(&self, exec: String, tool: Tool) -> Result<ToolStream, SandboxError> {
        let failed = || io_error("connecting a tool");
        let (ours, theirs) = UnixStream::pair().map_err(failed())?;
        ours.set_read_timeout(Some(SILENCE)).map_err(failed())?;
        ours.set_write_timeout(Some(SILENCE)).map_err(failed())?;
        let attach = Attach {
            exec: Some(exec.clone()),
            stdin: tool.has_input(),
            stdout: true,
            stderr: true,
            framed: true,
            ..Default::default()
        };
        self.attach(attach, theirs.into()).await?;
        self.started(Call::Tool { exec: exec.clone(), tool }, None).await?;
        Ok(ToolStream {
            socket: ours,
            left: 0,
            words: Vec::new(),
            end: None,
            sandbox: self.clone(),
            exec,
            runtime: tokio::runtime::Handle::current(),
        })
    }
}

/// A tool's input; what it does not want any more is swallowed.
struct Input<'s> {
    socket: &'s UnixStream,
    wanted: bool,
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.wanted {
            match (&mut self.socket).write_all(bytes) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(silent(e)),
                Err(_) => self.wanted = false,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn other(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Other, message: message.into() }
}

fn silent(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "the container's machine does not answer")
        }
        _ => error,
    }
}

impl ToolStream {
    /// A failure of the tool's own, among the errors of reading.
    pub fn failure(error: &io::Error) -> Option<&Failure> {
        error.get_ref()?.downcast_ref()
    }

    /// Gives the tool its input, all of it. A tool that ends before takes no more of it: that is no error here.
    ///
    /// # Errors
    /// Of reading `input`; of a tool that takes nothing for a minute.
    pub fn send(&mut self, input: &mut dyn Read) -> io::Result<()> {
        self.send_by(|to| io::copy(input, to).map(drop))
    }

    /// The same, of what `work` writes.
    pub fn send_by<E>(&mut self, work: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), E> {
        let mut to = io::BufWriter::with_capacity(64 << 10, Input { socket: &self.socket, wanted: true });
        work(&mut to)?;
        // What is refused now is told by the tool's end.
        let _ = to.flush();
        drop(to);
        let _ = self.socket.shutdown(Shutdown::Write);
        Ok(())
    }

    /// Reads what is left, and tells how it has ended.
    pub fn finish(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    /// The head of the next piece; `None`: there is none.
    fn head(&mut self) -> io::Result<Option<(u8, usize)>> {
        let mut head = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match self.socket.read(&mut head[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The shim lets go of a client with what it had not read of it.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset && filled == 0 => return Ok(None),
                Err(e) => return Err(silent(e)),
            }
        }
        let [stream, _, _, _, length @ ..] = head;
        Ok(Some((stream, u32::from_be_bytes(length) as usize)))
    }

    fn hear(&mut self, length: usize) -> io::Result<()> {
        let mut piece = Vec::new();
        (&self.socket).take(length as u64).read_to_end(&mut piece).map_err(silent)?;
        if piece.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.words.extend_from_slice(&piece);
        let surplus = self.words.len().saturating_sub(WORDS);
        self.words.drain(..surplus);
        Ok(())
    }

    /// What its last words say.
    fn ended(&self) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&self.words);
        let last = text.lines().next_back().unwrap_or_default();
        match serde_json::from_str::<ToolEnd>(last) {
            Ok(ToolEnd { failure: None }) => Ok(()),
            Ok(ToolEnd { failure: Some(failure) }) => Err(failure),
            Err(_) if last.is_empty() => Err(other("the container's machine has ended meanwhile")),
            Err(_) => Err(other(format!("a tool in the container's machine has died: {last}"))),
        }
    }
}

impl Read for ToolStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0).map_err(io::Error::other);
            }
            if self.left > 0 {
                let most = self.left.min(buffer.len());
                return match self.socket.read(&mut buffer[..most]) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => {
                        self.left -= n;
                        Ok(n)
                    }
                    Err(e) => Err(silent(e)),
                };
            }
            match self.head()? {
                None => self.end = Some(self.ended()),
                Some((STDOUT, length)) => self.left = length,
                Some((STDERR, length)) => self.hear(length)?,
                Some((stream, _)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("output {stream}")));
                }
            }
        }
    }
}

impl Drop for ToolStream {
    fn drop(&mut self) {
        if self.end.is_none() {
            let (sandbox, exec) = (self.sandbox.clone(), std::mem::take(&mut self.exec));
            self.runtime.spawn(async move {
                let _ = sandbox.signal(Some(&exec), libc::SIGKILL).await;
            });
        }
    }
}
