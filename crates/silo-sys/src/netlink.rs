//! Netlink: messages built field by field, and a socket that sends several at once and reads what the kernel answers.
//!
//! Layout and flags are those of `linux/netlink.h` (RFC 3549): a 16-byte header, a fixed structure that depends on the
//! message's type, then attributes (length, type, payload), each part padded to four bytes, in the host's byte order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// How long the kernel may take to answer; it answers from within the sending call, except for dumps.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel fills at most 32 KiB of a dump at once.
const RECEIVE: usize = 32 * 1024;

/// Fail when the object exists already (`NLM_F_EXCL`).
pub const EXCLUSIVE: u16 = 0x200;
/// Make the object when it is missing (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;
/// Put in place of an equal object (`NLM_F_REPLACE`).
pub const REPLACE: u16 = 0x100;

/// A message to the kernel.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of a type with extra flags; `fixed` is the structure that this type begins with.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut message = Self { bytes };
        message.raw(fixed);
        message
    }

    /// Appends bytes that are no attribute (the structure that opens some nested attributes).
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(payload);
        self.close(start);
        self
    }

    /// Appends a 32-bit number.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a text with the NUL that the kernel wants.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// Appends an attribute whose payload are the attributes (and raw bytes) that `fill` appends.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind | NESTED);
        fill(self);
        self.close(start);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        // Attributes made here are names, addresses and numbers: far below 64 KiB.
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn finish(&mut self, sequence: u32, flags: u16) {
        let length = self.bytes.len() as u32;
        let flags = flags | u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A netlink socket, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Socket {
    /// Opens one for links, addresses and routes (`NETLINK_ROUTE`).
    pub fn open() -> io::Result<Self> {
        Self::of_protocol(None) // 0 is NETLINK_ROUTE
    }

    /// Opens one for packet filters and connection tracking (`NETLINK_NETFILTER`).
    pub fn open_netfilter() -> io::Result<Self> {
        Self::of_protocol(Some(netlink::NETFILTER))
    }

    fn of_protocol(protocol: Option<net::Protocol>) -> io::Result<Self> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(PATIENCE))?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE].into_boxed_slice() })
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends the messages in one system call and waits for all answers. The kernel works through all of them, also after
    /// a failure. The results stand in the order of the messages.
    pub fn apply(&mut self, messages: &mut [Message]) -> io::Result<Vec<io::Result<()>>> {
        // The kernel takes no empty packet (ENODATA).
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut packet = Vec::new();
        for message in messages.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence, ACK);
            packet.extend_from_slice(&message.bytes);
        }
        self.send(&packet)?;
        let mut results: Vec<Option<io::Result<()>>> = messages.iter().map(|_| None).collect();
        while results.iter().any(Option::is_none) {
            let n = self.receive()?;
            for reply in replies(&self.buffer[..n]) {
                let place = reply.sequence.wrapping_sub(first) as usize;
                if let (TYPE_ERROR, Some(slot)) = (reply.kind, results.get_mut(place)) {
                    *slot = Some(reply.error());
                }
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Has netfilter apply all messages of a subsystem or none (`linux/netfilter/nfnetlink.h`, batches). The error is that of
    /// the first message that failed.
    pub fn transaction(&mut self, subsystem: u8, messages: &mut [Message]) -> io::Result<()> {
        let mark = |kind| Message::new(kind, 0, &[0, 0, 0, subsystem]);
        let (mut begin, mut end) = (mark(BATCH_BEGIN), mark(BATCH_END));
        let first = self.sequence.wrapping_add(1);
        // Begin and end are not acknowledged by all kernels.
        begin.finish(first, 0);
        let mut packet = begin.bytes;
        self.sequence = first;
        for message in messages.iter_mut() {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence, ACK);
            packet.extend_from_slice(&message.bytes);
        }
        self.sequence = self.sequence.wrapping_add(1);
        end.finish(self.sequence, 0);
        packet.extend_from_slice(&end.bytes);
        self.send(&packet)?;
        let (mut answered, mut result) = (0, Ok(()));
        while answered < messages.len() {
            let n = self.receive()?;
            for reply in replies(&self.buffer[..n]).filter(|r| r.kind == TYPE_ERROR) {
                match reply.sequence.wrapping_sub(first) as usize {
                    // The whole of it failed: there are no other answers.
                    0 => return reply.error(),
                    place if place <= messages.len() => {
                        answered += 1;
                        result = result.and(reply.error());
                    }
                    _ => {}
                }
            }
        }
        result
    }

    /// Sends one message and waits for its answer.
    pub fn change(&mut self, message: Message) -> io::Result<()> {
        self.apply(&mut [message])?.pop().unwrap_or(Ok(()))
    }

    /// Asks for one object and returns the payload (fixed structure and attributes) of the answer.
    pub fn get(&mut self, mut message: Message) -> io::Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        message.finish(self.sequence, 0);
        self.send(&message.bytes)?;
        loop {
            let n = self.receive()?;
            for reply in replies(&self.buffer[..n]).filter(|r| r.sequence == self.sequence) {
                match reply.kind {
                    TYPE_ERROR => reply.error()?,
                    _ => return Ok(reply.payload.to_vec()),
                }
            }
        }
    }

    /// Asks for all objects of a kind and gives the payload of each to `each`. What was given before an error, or before
    /// `Interrupted` (the list changed under the dump: ask again), is incomplete.
    pub fn dump(&mut self, mut message: Message, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        message.finish(self.sequence, DUMP);
        self.send(&message.bytes)?;
        let mut interrupted = false;
        loop {
            let n = self.receive()?;
            for reply in replies(&self.buffer[..n]).filter(|r| r.sequence == self.sequence) {
                interrupted |= reply.flags & DUMP_INTERRUPTED != 0;
                match reply.kind {
                    TYPE_ERROR => reply.error()?,
                    TYPE_DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    TYPE_DONE => return reply.error(),
                    _ => each(reply.payload),
                }
            }
        }
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        // Netlink takes a packet whole or not at all.
        net::send(&self.fd, packet, SendFlags::empty()).map(|_| ()).map_err(io::Error::from)
    }

    /// Reads one packet of answers; returns its length in the buffer.
    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, whole)) if whole > self.buffer.len() => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a netlink answer of more than 32 KiB",
                    ));
                }
                Ok((_, whole)) => return Ok(whole),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to a netlink request"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One message from the kernel.
struct Reply<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Reply<'_> {
    /// The result that an acknowledgement or an end of dump carries: 0 or a negative errno.
    fn error(&self) -> io::Result<()> {
        match self.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            None | Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        }
    }
}

fn replies(mut packet: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*packet.first_chunk()?) as usize;
        let message = packet.get(..length).filter(|m| m.len() >= HEADER)?;
        packet = packet.get(align(length)..).unwrap_or_default();
        let two = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
        Some(Reply {
            kind: two(4),
            flags: two(6),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            payload: &message[HEADER..],
        })
    })
}

/// The attributes (type without flag bits, payload) in `bytes`; stops at the first that is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, payload))
    })
}

/// The text of an attribute, without its NUL.
pub fn text(payload: &[u8]) -> &str {
    let end = payload.iter().position(|&b| b == 0).unwrap_or(payload.len());
    std::str::from_utf8(&payload[..end]).unwrap_or_default()
}

/// The 32-bit number of an attribute.
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, CREATE, &[1, 2, 3, 4]);
        message.text(3, "eth0").nested(18, |m| {
            m.text(1, "veth").number(2, 7);
        });
        message.finish(9, ACK);
        let bytes = &message.bytes;
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        assert_eq!(u16::from_ne_bytes([bytes[6], bytes[7]]), REQUEST | ACK | CREATE);
        let outer: Vec<_> = attributes(&bytes[HEADER + 4..]).collect();
        assert_eq!(outer[0], (3, &b"eth0\0"[..]));
        assert_eq!(outer[1].0, 18);
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(text(inner[0].1), "veth");
        assert_eq!(number(inner[1].1), Some(7));
    }

    #[test]
    fn cut_off_answers_end_the_reading() {
        assert_eq!(attributes(&[]).count(), 0);
        assert_eq!(attributes(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(replies(&[200, 0, 0, 0, 2, 0]).count(), 0);
        assert_eq!(replies(&[4, 0, 0, 0]).count(), 0);
        assert_eq!(number(&[1, 2]), None);
        assert_eq!(text(b"lo"), "lo");
    }

    #[test]
    fn the_kernel_answers_for_each_message_of_a_batch() {
        const RTM_GETLINK: u16 = 18;
        const RTM_SETLINK: u16 = 19;
        let mut socket = Socket::open().unwrap();
        // Index 0 with no name is nobody's.
        let nobody = Message::new(RTM_SETLINK, 0, &[0; 16]);
        let results = socket.apply(&mut [nobody.clone(), nobody]).unwrap();
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(Result::is_err));
        let mut names = Vec::new();
        socket
            .dump(Message::new(RTM_GETLINK, 0, &[0; 16]), |link| {
                names.extend(
                    attributes(&link[16..])
                        .filter(|(kind, _)| *kind == 3)
                        .map(|(_, name)| text(name).to_owned()),
                );
            })
            .unwrap();
        assert!(names.contains(&"lo".to_owned()), "{names:?}");
        let mut lo = Message::new(RTM_GETLINK, 0, &[0; 16]);
        lo.text(3, "lo");
        assert!(socket.get(lo).unwrap().len() > 16);
        let mut missing = Message::new(RTM_GETLINK, 0, &[0; 16]);
        missing.text(3, "no-such-link");
        assert_eq!(socket.get(missing).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
