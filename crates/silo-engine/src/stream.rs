//! Bytes that one thread writes and a client reads.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::ByteStream;

/// Size of the pieces of a stream.
const PIECE: usize = 128 << 10;

/// Writes into a channel that a client reads, in pieces; whoever has it flushes it at the end.
pub(crate) struct ToChannel {
    to: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.to
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}

/// A stream that `work` writes in a thread of its own.
pub(crate) fn stream(work: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> ByteStream {
    stream_by(move |mut to| work(&mut to).and_then(|()| to.flush()))
}

/// As [`stream`], by work that takes the writer to where it goes on, such as a further thread.
pub(crate) fn stream_by(work: impl FnOnce(ToChannel) -> io::Result<()> + Send + 'static) -> ByteStream {
    let (to, receiver) = mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        if let Err(e) = work(ToChannel { to: to.clone(), buffer: Vec::new() }) {
            let _ = to.blocking_send(Err(e));
        }
    });
    receiver
}
