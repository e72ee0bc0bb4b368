//! The stream a guest's messages come by: whole messages in, whole messages out, whichever thread asks.

use std::io::{self, BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::nodes::lock;
use super::wire::{HEADER_IN, length};

/// Short messages come several to a read.
const BUFFER: usize = 64 << 10;

/// A connection.
pub(super) struct Link {
    /// `None` once the stream has ended or lost its framing.
    reader: Mutex<Option<BufReader<UnixStream>>>,
    writer: Mutex<()>,
    socket: UnixStream,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Link> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(false)?;
        let reader = BufReader::with_capacity(BUFFER, socket.try_clone()?);
        Ok(Link { reader: Mutex::new(Some(reader)), writer: Mutex::new(()), socket })
    }

    /// Reads the next message into `into`, whose length is that of the longest one. `None`: the guest has ended.
    ///
    /// # Errors
    /// InvalidData: this cannot be a message, and no later one can be found; UnexpectedEof: it ends within.
    pub(super) fn next<'m>(&self, into: &'m mut [u8]) -> io::Result<Option<&'m [u8]>> {
        let mut guard = lock(&self.reader);
        let Some(reader) = guard.as_mut() else { return Ok(None) };
        let result = read_message(reader, into);
        if !matches!(result, Ok(Some(_))) {
            *guard = None;
        }
        Ok(result?.map(|len| &into[..len]))
    }

    /// Sends a whole message; messages of other threads do not mix with it.
    pub(super) fn send(&self, mut message: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.writer);
        while !message.is_empty() {
            match rustix::net::send(&self.socket, message, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => message = &message[n..],
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Ends it for every thread, one that waits in [`Link::send`] too.
    pub(super) fn close(&self) {
        // An error says that it has ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn read_message(reader: &mut BufReader<UnixStream>, into: &mut [u8]) -> io::Result<Option<usize>> {
    let at_end = loop {
        match reader.fill_buf() {
            Ok(bytes) => break bytes.is_empty(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    };
    if at_end {
        return Ok(None);
    }
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let head = into.get_mut(..HEADER_IN).ok_or(io::ErrorKind::InvalidInput)?;
    reader.read_exact(head)?;
    let len = length(head).ok_or_else(|| invalid("a message of the guest has no possible length"))?;
    let rest = into.get_mut(HEADER_IN..len).ok_or(io::ErrorKind::InvalidInput)?;
    reader.read_exact(rest)?;
    Ok(Some(len))
}
