//! One byte stream between a shim and the agent of its microVM: messages of the task protocol and the bytes of every
//! process's streams, side by side.
//!
//! A frame is a little-endian u32 length of its payload, a byte that says what it is, a little-endian u32 stream number,
//! and the payload. Nobody sends more bytes of a stream than the other side has room for ([`WINDOW`], then what it gave
//! back as credit): a stream that nobody reads holds up no other, and neither side keeps more than that of any stream.

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::protocol::{FrameError, MAX_FRAME};

/// Bytes of a stream that may be under way.
pub const WINDOW: usize = 256 << 10;
/// Bytes of a stream in one frame.
pub const CHUNK: usize = 32 << 10;
/// Streams that may be open at once.
pub const STREAMS: usize = 4096;

const HEADER: usize = 9;
const MESSAGE: u8 = 0;
const DATA: u8 = 1;
const CREDIT: u8 = 2;
const END: u8 = 3;

/// The streams of a task: its number times four and one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Towards the process.
    Stdin = 0,
    /// Away from it; both ways of a terminal's output.
    Stdout = 1,
    /// Away from it.
    Stderr = 2,
}

/// A stream's number on the link.
pub fn stream(task: u32, part: Part) -> u32 {
    task.wrapping_mul(4).wrapping_add(part as u32)
}

/// The task and the part of it that a number stands for.
pub fn parts(stream: u32) -> Option<(u32, Part)> {
    let part = match stream % 4 {
        0 => Part::Stdin,
        1 => Part::Stdout,
        2 => Part::Stderr,
        _ => return None,
    };
    Some((stream / 4, part))
}

/// What comes out of a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<T> {
    /// A message.
    Message(T),
    /// Bytes of a stream; to be answered by credit when they are out of the way.
    Data(u32, Vec<u8>),
    /// So many more bytes may be sent on a stream.
    Credit(u32, usize),
    /// No more bytes come on a stream.
    End(u32),
}

/// One side of the link, without its descriptor: bytes in, bytes out.
#[derive(Debug, Default)]
pub struct Link {
    input: Vec<u8>,
    taken: usize,
    /// Bytes to send.
    pub output: Vec<u8>,
    /// Room that the other side has, of streams that are sent on.
    room: HashMap<u32, usize>,
    /// Bytes that came and were not given back, of streams that are received.
    owed: HashMap<u32, usize>,
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl Link {
    fn frame(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        self.output.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.output.push(kind);
        self.output.extend_from_slice(&stream.to_le_bytes());
        self.output.extend_from_slice(payload);
    }

    /// Queues a message.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        let payload = serde_json::to_vec(message)?;
        if payload.len() > MAX_FRAME {
            return Err(FrameError::TooLong(payload.len()));
        }
        self.frame(MESSAGE, 0, &payload);
        Ok(())
    }

    /// How many bytes of a stream may be sent now, at most [`CHUNK`].
    pub fn room(&self, stream: u32) -> usize {
        self.room.get(&stream).copied().unwrap_or(WINDOW).min(CHUNK)
    }

    /// Queues bytes of a stream, no more than [`Link::room`].
    pub fn data(&mut self, stream: u32, bytes: &[u8]) {
        let room = self.room.entry(stream).or_insert(WINDOW);
        *room = room.saturating_sub(bytes.len());
        self.frame(DATA, stream, bytes);
    }

    /// Bytes of a stream are out of the way.
    pub fn credit(&mut self, stream: u32, bytes: usize) {
        if bytes > 0
            && let Some(owed) = self.owed.get_mut(&stream)
        {
            *owed = owed.saturating_sub(bytes);
            self.frame(CREDIT, stream, &(bytes as u32).to_le_bytes());
        }
    }

    /// No more bytes are sent on a stream.
    pub fn end(&mut self, stream: u32) {
        self.room.remove(&stream);
        self.frame(END, stream, &[]);
    }

    /// A stream is over, whatever was under way.
    pub fn forget(&mut self, stream: u32) {
        self.room.remove(&stream);
        self.owed.remove(&stream);
    }

    /// Takes what was read from the descriptor.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next whole frame; `None`: more must be read first. An error says that the other side does not keep to this
    /// protocol: nothing more of it is to be believed.
    pub fn take<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<Option<Incoming<T>>> {
        let found = self.parse();
        if matches!(found, Ok(None)) && self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
            self.input.shrink_to(WINDOW);
        }
        found
    }

    fn parse<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<Option<Incoming<T>>> {
        let rest = &self.input[self.taken..];
        let Some(head) = rest.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (kind, stream) = (head[4], u32::from_le_bytes([head[5], head[6], head[7], head[8]]));
        let most = match kind {
            MESSAGE => MAX_FRAME,
            DATA => CHUNK,
            CREDIT => 4,
            END => 0,
            other => return Err(invalid(format!("a frame of kind {other}"))),
        };
        if length > most {
            return Err(invalid(format!(
                "a frame of kind {kind} with {length} bytes, at most {most} are allowed"
            )));
        }
        let Some(payload) = rest.get(HEADER..HEADER + length) else { return Ok(None) };
        let incoming = match kind {
            MESSAGE => Incoming::Message(serde_json::from_slice(payload)?),
            DATA => {
                let known = self.owed.len();
                if known >= STREAMS && !self.owed.contains_key(&stream) {
                    return Err(invalid("too many streams"));
                }
                let owed = self.owed.entry(stream).or_default();
                *owed += length;
                if *owed > WINDOW {
                    return Err(invalid(format!("stream {stream} sends more than it may")));
                }
                Incoming::Data(stream, payload.to_vec())
            }
            CREDIT => {
                let bytes =
                    <[u8; 4]>::try_from(payload).map_err(|_| invalid("a credit without its number"))?;
                let bytes = u32::from_le_bytes(bytes) as usize;
                if let Some(room) = self.room.get_mut(&stream) {
                    *room = room.saturating_add(bytes).min(WINDOW);
                }
                Incoming::Credit(stream, bytes)
            }
            _ => {
                self.owed.remove(&stream);
                Incoming::End(stream)
            }
        };
        self.taken += HEADER + length;
        Ok(Some(incoming))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(from: &mut Link, to: &mut Link) -> Vec<Incoming<String>> {
        let mut seen = Vec::new();
        for byte in std::mem::take(&mut from.output) {
            to.received(&[byte]);
            while let Some(incoming) = to.take().unwrap() {
                seen.push(incoming);
            }
        }
        seen
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (mut a, mut b) = (Link::default(), Link::default());
        a.send(&"hello").unwrap();
        a.data(5, b"bytes");
        a.end(5);
        let seen = pass(&mut a, &mut b);
        assert_eq!(
            seen,
            [Incoming::Message("hello".into()), Incoming::Data(5, b"bytes".to_vec()), Incoming::End(5)]
        );
    }

    #[test]
    fn nobody_sends_more_than_there_is_room_for() {
        let (mut a, mut b) = (Link::default(), Link::default());
        let mut sent = 0;
        while a.room(1) > 0 {
            let piece = vec![0; a.room(1)];
            sent += piece.len();
            a.data(1, &piece);
        }
        assert_eq!(sent, WINDOW);
        assert_eq!(a.room(2), CHUNK);
        pass(&mut a, &mut b);
        b.credit(1, 10);
        assert_eq!(pass(&mut b, &mut a), [Incoming::Credit(1, 10)]);
        assert_eq!(a.room(1), 10);
        // Who does not care is found out.
        a.data(1, &[0; 11]);
        b.received(&std::mem::take(&mut a.output));
        assert!(b.take::<String>().is_err());
    }

    #[test]
    fn hostile_frames_are_errors() {
        for frame in [
            [255, 255, 255, 255, 0, 0, 0, 0, 0].as_slice(),
            &[0, 0, 0, 0, 9, 0, 0, 0, 0],
            &[1, 0, 0, 0, 3, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 1],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, b'x'],
        ] {
            let mut link = Link::default();
            link.received(frame);
            assert!(link.take::<String>().is_err(), "{frame:?}");
        }
    }
}
