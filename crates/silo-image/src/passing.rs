//! Bytes that one thread writes and another reads, in constant memory.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes that pass at once.
const PIECE: usize = 256 << 10;
/// Pieces that the reader may be behind.
const BEHIND: usize = 8;

type Piece = io::Result<Vec<u8>>;

/// The writer's end. Dropped without [`Writing::end`] the reader gets an error.
pub(crate) struct Writing {
    to: SyncSender<Piece>,
    piece: Vec<u8>,
    written: u64,
}

/// The reader's end.
pub(crate) struct Reading {
    from: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

/// Both ends.
pub(crate) fn passing() -> (Writing, Reading) {
    let (to, from) = sync_channel(BEHIND);
    let writing = Writing { to, piece: Vec::new(), written: 0 };
    (writing, Reading { from, piece: Vec::new(), at: 0, ended: false })
}

impl Writing {
    /// Bytes that were written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    fn pass(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// All is written.
    pub(crate) fn end(mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.pass()?;
        }
        // An empty piece is the end.
        self.to.send(Ok(Vec::new())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        self.written += n as u64;
        if self.piece.len() == PIECE {
            self.pass()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "its writer failed");
            self.piece = self.from.recv().map_err(|_| cut())??;
            self.at = 0;
            self.ended = self.piece.is_empty();
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_writer_that_fails_is_noticed() {
        let (mut writing, mut reading) = passing();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        std::thread::scope(|s| {
            let read = s.spawn(|| {
                let mut all = Vec::new();
                reading.read_to_end(&mut all).map(|_| all)
            });
            writing.write_all(&bytes).unwrap();
            assert_eq!(writing.written(), 3_000_000);
            writing.end().unwrap();
            assert_eq!(read.join().unwrap().unwrap(), bytes);
        });
        let (mut writing, mut reading) = passing();
        writing.write_all(b"a").unwrap();
        drop(writing);
        assert!(reading.read(&mut [0]).is_err());
    }
}
