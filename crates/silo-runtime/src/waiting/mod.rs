//! A first process that is ready and waits to be told what to run, and the container around it that becomes another one.
//!
//! Story: a *prepared* bundle (annotation `dev.silo.waits`) is started as any other. Its first process brings up
//! whatever takes its time and says so; [`Waiting::is_ready`]. Later somebody wants a container: if its bundle
//! [fits](crate::Prepared::fits), [`Prepared::take`](crate::Prepared::take) gives the prepared one the wanted one's name, mounts, limits and process, and from then on it is
//! that container. It is used once.
//!
//! Between the two goes a stream socket whose descriptor the process finds in `SILO_WAIT_FD`. All numbers are
//! little-endian.
//!
//! | from | bytes |
//! |---|---|
//! | process | `R`: it is ready |
//! | supervisor | length of what follows (4); flags (1): 1 a terminal, 2 standard input, 4 no program, but do once more what was done to be ready, and say so again; rows (2), columns (2); working directory and a zero; `NAME=value` and a zero, each |
//! | process | `S`: it runs, with the terminal's master as a descriptor if there is one; or `F` and why it does not, up to the end |
//!
//! Without a terminal the streams are those that the process was started with.

mod fits;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use silo_sys::socket;

use crate::bundle::invalid;
use crate::report::{self, START_LIMIT};

pub use fits::SETTLED_ANNOTATION;
pub(crate) use fits::{Further, compare};

const TERMINAL: u8 = 1;
const STDIN: u8 = 2;
const REHEARSE: u8 = 4;
/// Bytes of a reason that are read.
const REASON: usize = 4096;

/// The supervisor's end of the socket of a first process that waits.
#[derive(Debug)]
pub struct Waiting(OwnedFd);

impl Waiting {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Waiting, OwnedFd)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Waiting(ours), report::out_of_the_way(theirs)?))
    }

    /// Takes the process's word that it is ready, within a limit.
    pub fn is_ready(&self, limit: Duration) -> io::Result<()> {
        match self.answer(limit, &mut Vec::new())? {
            b'R' => Ok(()),
            other => Err(invalid(format!(
                "the first process says {:?} and not that it is ready",
                char::from(other)
            ))),
        }
    }

    /// Has it do once more what it did to be ready: in a machine that goes on from a saved one nothing is as near as it was.
    pub fn rehearse(&self, limit: Duration) -> io::Result<()> {
        self.tell(&with_length(vec![REHEARSE, 0, 0, 0, 0, 0])?)?;
        self.is_ready(limit)
    }

    fn tell(&self, message: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < message.len() {
            sent += socket::send(&self.0, &message[sent..], &[])?;
        }
        Ok(())
    }

    /// Tells what to run, as [`message`] says it, and waits until it runs; the terminal's master, if it has one.
    pub(crate) fn run(&self, message: &[u8], terminal: bool) -> io::Result<Option<OwnedFd>> {
        self.tell(message)?;
        let mut fds = Vec::new();
        match self.answer(START_LIMIT, &mut fds)? {
            b'S' if terminal == (fds.len() == 1) => Ok(fds.pop()),
            b'F' => {
                let (mut reason, mut end) = (vec![0; REASON], 0);
                while end < REASON {
                    match socket::receive(&self.0, &mut reason[end..], &mut fds)? {
                        0 => break,
                        n => end += n,
                    }
                }
                Err(io::Error::other(String::from_utf8_lossy(&reason[..end]).into_owned()))
            }
            other => Err(invalid(format!(
                "the first process says {:?} with {} descriptors and not that it runs",
                char::from(other),
                fds.len()
            ))),
        }
    }

    fn answer(&self, limit: Duration, fds: &mut Vec<OwnedFd>) -> io::Result<u8> {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the first process does not answer in time"));
        }
        let mut word = [0u8; 1];
        match socket::receive(&self.0, &mut word, fds)? {
            0 => Err(io::Error::other("the first process has ended")),
            _ => Ok(word[0]),
        }
    }
}

impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn message(
    process: &Process,
    terminal: bool,
    stdin: bool,
    size: (u16, u16),
) -> io::Result<Vec<u8>> {
    let mut text = vec![if terminal { TERMINAL } else { 0 } | if stdin { STDIN } else { 0 }];
    text.extend(size.0.to_le_bytes());
    text.extend(size.1.to_le_bytes());
    let cwd = process.cwd().to_str().ok_or_else(|| invalid("a working directory that is no text"))?;
    for part in std::iter::once(cwd).chain(process.env().iter().flatten().map(String::as_str)) {
        if part.contains('\0') {
            return Err(invalid(format!("a zero in {part:?}")));
        }
        text.extend(part.as_bytes());
        text.push(0);
    }
    with_length(text)
}

fn with_length(text: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = u32::try_from(text.len()).map_err(|_| invalid("the environment is too long"))?;
    Ok([&length.to_le_bytes()[..], &text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_has_lengths_and_ends() {
        let mut process = Process::default();
        process.set_cwd("/c".into()).set_env(Some(vec!["A=b".into()]));
        let told = message(&process, true, false, (24, 80)).unwrap();
        assert_eq!(told, b"\x0c\0\0\0\x01\x18\0\x50\0/c\0A=b\0");
        process.set_env(Some(vec!["A=\0".into()]));
        assert!(message(&process, false, false, (0, 0)).is_err());
    }
}
