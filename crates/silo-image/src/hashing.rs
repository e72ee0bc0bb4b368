//! Hashes what is read in a thread of its own.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Bytes that are read, and handed to the hasher, at once.
const BLOCK: usize = 256 << 10;
/// Blocks that the hasher may be behind.
const BEHIND: usize = 16;

/// Sends what passes to a thread that hashes it.
pub(crate) struct Tee<R> {
    hasher: Hasher,
    pipe: Pipe<R>,
}

struct Pipe<R> {
    inner: R,
    to: SyncSender<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    at: usize,
    /// Blocks that were sent, the oldest first: those that the hasher is done with are used again.
    sent: VecDeque<Arc<Vec<u8>>>,
}

impl<R: Read> Pipe<R> {
    fn fill(&mut self) -> io::Result<()> {
        let old = std::mem::take(&mut self.block);
        if old.capacity() > 0 {
            self.sent.push_back(old);
        }
        let used = self.sent.pop_front_if(|block| Arc::get_mut(block).is_some());
        let mut block = used.and_then(Arc::into_inner).unwrap_or_default();
        block.resize(BLOCK, 0);
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        block.truncate(filled);
        (self.block, self.at) = (Arc::new(block), 0);
        if filled > 0 {
            let sent = self.to.send(self.block.clone());
            sent.map_err(|_| io::Error::other("hashing the layer failed"))?;
        }
        Ok(())
    }
}

impl<R: Read> Tee<R> {
    pub(crate) fn new(inner: R) -> Self {
        let (to, hasher) = hasher();
        Self { hasher, pipe: Pipe { inner, to, block: Arc::default(), at: 0, sent: VecDeque::new() } }
    }

    /// Digest and length of what was read.
    pub(crate) fn finish(self) -> io::Result<(Digest, u64)> {
        drop(self.pipe);
        self.hasher.join().map_err(|_| io::Error::other("the thread that hashes panicked"))
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.read(buffer)
    }
}

impl<R: Read> Read for Pipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.fill()?;
        }
        let n = buffer.len().min(self.block.len() - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

type Hasher = JoinHandle<(Digest, u64)>;

fn hasher() -> (SyncSender<Arc<Vec<u8>>>, Hasher) {
    let (sender, receiver) = sync_channel::<Arc<Vec<u8>>>(BEHIND);
    let thread = std::thread::spawn(move || {
        let mut hash = Sha256::new();
        let mut size = 0;
        for piece in receiver {
            hash.update(&*piece);
            size += piece.len() as u64;
        }
        (Digest::from_hash(&hash.finalize()), size)
    });
    (sender, thread)
}
