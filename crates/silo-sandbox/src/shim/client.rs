//! One attached client: what it is sent, what it types, when it has gone.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use crate::contract::Attach;

use super::log::Stream;

/// Bytes that may wait for a client before its container has to.
pub(super) const QUEUE_LIMIT: usize = 1 << 20;

/// A client's socket and how it is attached.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) fd: OwnedFd,
    pub(super) attach: Attach,
    queue: Vec<u8>,
    sent: usize,
    /// How much of the detach keys has been typed.
    matched: usize,
    /// It has ended its own output; it may still read.
    pub(super) input_ended: bool,
    /// Nothing more will be queued: close when the queue is empty.
    pub(super) closing: bool,
}

/// What became of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// For standard input.
    Input(Vec<u8>),
    /// The detach keys; what came before them is for standard input.
    Detach(Vec<u8>),
}

impl Client {
    pub(super) fn new(id: u64, fd: OwnedFd, attach: Attach) -> Self {
        Self { id, fd, attach, queue: Vec::new(), sent: 0, matched: 0, input_ended: false, closing: false }
    }

    /// Bytes waiting.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Sends a piece of output, or keeps what the socket does not take now. An error means that the client is gone.
    pub(super) fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let wanted = match stream {
            Stream::Stdout => self.attach.stdout,
            Stream::Stderr => self.attach.stderr,
        };
        if !wanted || self.closing {
            return Ok(());
        }
        let mut header = [stream as u8, 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        let header: &[u8] = if self.attach.framed { &header } else { &[] };
        let mut written = 0;
        if self.waiting() == 0 {
            written = match rustix::io::writev(&self.fd, &[IoSlice::new(header), IoSlice::new(bytes)]) {
                Ok(n) => n,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
                Err(e) => return Err(e.into()),
            };
        }
        if written < header.len() {
            self.queue.extend_from_slice(&header[written..]);
            self.queue.extend_from_slice(bytes);
        } else {
            self.queue.extend_from_slice(&bytes[written - header.len()..]);
        }
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.waiting() > 0 {
            match rustix::io::write(&self.fd, &self.queue[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.queue.clear();
        self.queue.shrink_to(64 << 10);
        self.sent = 0;
        Ok(())
    }

    /// Looks for the detach keys in typed bytes. Keys begun and not finished go on as input (as dockerd does).
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let keys = &self.attach.detach_keys;
        if keys.is_empty() {
            return Typed::Input(bytes.to_vec());
        }
        let mut input = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == keys[self.matched] {
                self.matched += 1;
                if self.matched == keys.len() {
                    return Typed::Detach(input);
                }
            } else {
                input.extend_from_slice(&keys[..self.matched]);
                self.matched = usize::from(byte == keys[0]);
                if self.matched == 0 {
                    input.push(byte);
                } else if keys.len() == 1 {
                    return Typed::Detach(input);
                }
            }
        }
        Typed::Input(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(keys: &[u8]) -> Client {
        let (a, _) = std::os::unix::net::UnixStream::pair().unwrap();
        Client::new(1, a.into(), Attach { detach_keys: keys.to_vec(), ..Default::default() })
    }

    #[test]
    fn detach_keys_across_reads_and_false_starts() {
        let mut c = client(&[16, 17]);
        assert_eq!(c.typed(b"ab"), Typed::Input(b"ab".to_vec()));
        assert_eq!(c.typed(&[16]), Typed::Input(vec![]));
        assert_eq!(c.typed(b"c"), Typed::Input(vec![16, b'c']));
        assert_eq!(c.typed(&[16, 16]), Typed::Input(vec![16]));
        assert_eq!(c.typed(&[17, b'x']), Typed::Detach(vec![]));
    }

    #[test]
    fn a_client_that_does_not_read_is_queued_and_nothing_is_lost() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        let mut c = Client::new(1, a.into(), Attach { stdout: true, framed: true, ..Default::default() });
        let piece = vec![7u8; 100_000];
        for _ in 0..8 {
            c.output(Stream::Stdout, &piece).unwrap();
        }
        assert!(c.waiting() > 0);
        let reader = std::thread::spawn(move || {
            let mut b = b;
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut b, &mut all).unwrap();
            all
        });
        while c.waiting() > 0 {
            let mut fds = [rustix::event::PollFd::new(&c.fd, rustix::event::PollFlags::OUT)];
            rustix::event::poll(&mut fds, None).unwrap();
            c.flush().unwrap();
        }
        drop(c);
        let all = reader.join().unwrap();
        assert_eq!(all.len(), 8 * 100_008);
        assert_eq!(&all[..8], [1, 0, 0, 0, 0, 1, 0x86, 0xa0]);
    }
}
