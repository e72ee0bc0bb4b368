//! `attach`: hands a client's socket to the shim, or keeps it until there is one.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use silo_sandbox::Attach;

use crate::engine::Engine;
use crate::error::{EngineError, Result, sandbox_error};
use crate::lock::lock;
use crate::record::Status;

/// Keys that detach when the client names none: Ctrl-P Ctrl-Q.
const DEFAULT_KEYS: &[u8] = &[16, 17];

/// How long a client may take for a piece of the log that it asked to see first.
const REPLAY_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What a client wants of the streams.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// What was written before, first.
    pub logs: bool,
    /// What is written from now on.
    pub stream: bool,
    /// Give input.
    pub stdin: bool,
    /// See output.
    pub stdout: bool,
    /// See errors.
    pub stderr: bool,
    /// Output without frames although there is no terminal.
    pub raw: bool,
    /// As `ctrl-p,ctrl-q`; empty: that.
    pub detach_keys: String,
}

/// Parses `ctrl-a,b,ctrl-@`.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(DEFAULT_KEYS.to_vec());
    }
    text.split(',')
        .map(|key| {
            let code = match key.as_bytes() {
                [one] => Some(*one),
                _ => key.to_lowercase().strip_prefix("ctrl-").and_then(|c| match c.as_bytes() {
                    [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
                    [b'@'] => Some(0),
                    [b'['] => Some(27),
                    [b'\\'] => Some(28),
                    [b']'] => Some(29),
                    [b'^'] => Some(30),
                    [b'_'] => Some(31),
                    _ => None,
                }),
            };
            code.ok_or_else(|| {
                EngineError::invalid(format!(
                    "Invalid detach keys ({text}) provided: Unknown character: '{key}'"
                ))
            })
        })
        .collect()
}

impl Engine {
    /// Whether a client may attach now; tells if there is a terminal.
    pub fn attach_check(&self, name: &str, options: &AttachOptions) -> Result<bool> {
        detach_keys(&options.detach_keys)?;
        let entry = self.find(name)?;
        match entry.status() {
            Status::Paused => Err(EngineError::conflict(format!(
                "container {} is paused, unpause the container before attach",
                entry.id
            ))),
            Status::Restarting => Err(EngineError::conflict(format!(
                "container {} is restarting, wait until the container is running",
                entry.id
            ))),
            Status::Removing | Status::Dead => {
                Err(EngineError::conflict(format!("container {} is being removed", entry.id)))
            }
            _ => Ok(entry.with(|r| r.spec.config.tty)),
        }
    }

    /// Attaches a client whose connection is `io`; `read_ahead` was read from it already.
    pub async fn attach(
        &self,
        name: &str,
        options: AttachOptions,
        io: OwnedFd,
        read_ahead: Bytes,
    ) -> Result<()> {
        let entry = self.find(name)?;
        let record = entry.record();
        let attach = Attach {
            exec: None,
            stdin: options.stdin && record.spec.config.open_stdin && options.stream,
            stdout: options.stdout && options.stream,
            stderr: options.stderr && options.stream,
            framed: !record.spec.config.tty && !options.raw,
            detach_keys: if record.spec.config.tty { detach_keys(&options.detach_keys)? } else { Vec::new() },
            read_ahead: read_ahead.to_vec(),
        };
        let mut io = io;
        if options.logs {
            io = self.replay(name, &options, io).await?;
        }
        self.inner.events.container(&record, "attach", &[]);
        match entry.sandbox() {
            Some(sandbox) if options.stream => sandbox.attach(attach, io).await.map_err(sandbox_error),
            _ if options.stream && record.state.status == Status::Created
                || entry.verb.try_lock().is_err() =>
            {
                lock(&entry.early).push((attach, io));
                // The start may have passed in between.
                if let Some(sandbox) = entry.sandbox() {
                    let early = std::mem::take(&mut *lock(&entry.early));
                    for (attach, io) in early {
                        sandbox.attach(attach, io).await.map_err(sandbox_error)?;
                    }
                }
                Ok(())
            }
            _ if options.stream && !record.state.status.is_running() => {
                lock(&entry.early).push((attach, io));
                Ok(())
            }
            // Nothing will come: the client sees the end of its stream.
            _ => Ok(()),
        }
    }

    /// Announces a client whose attach is being answered, so that a start waits until [`Engine::attach`] has it.
    pub fn announce(&self, name: &str) -> Result<Announced> {
        let entry = self.find(name)?;
        entry.attaching.send_modify(|count| *count += 1);
        Ok(Announced(entry))
    }

    /// Writes the log to a client, before anything else.
    async fn replay(&self, name: &str, options: &AttachOptions, io: OwnedFd) -> Result<OwnedFd> {
        use tokio::io::AsyncWriteExt;
        let failed = |e: std::io::Error| EngineError::internal(format!("writing the log to a client: {e}"));
        let stream = std::os::unix::net::UnixStream::from(io);
        stream.set_nonblocking(true).map_err(failed)?;
        let mut stream = tokio::net::UnixStream::from_std(stream).map_err(failed)?;
        let wanted = super::logs::LogOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            raw: options.raw,
            ..Default::default()
        };
        let mut log = self.logs(name, wanted).await?;
        while let Some(piece) = log.bytes.recv().await {
            let piece = piece.map_err(|e| EngineError::internal(format!("reading the log: {e}")))?;
            let written = tokio::time::timeout(REPLAY_LIMIT, stream.write_all(&piece)).await;
            written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(failed)?;
        }
        Ok(stream.into_std().map_err(failed)?.into())
    }
}

/// A client on its way; see [`Engine::announce`].
pub struct Announced(std::sync::Arc<crate::engine::Entry>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.attaching.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-a,x,ctrl-[").unwrap(), [1, b'x', 27]);
        assert!(detach_keys("ctrl-11").unwrap_err().message.contains("ctrl-11"));
    }
}
