//! What a forked process tells its supervisor before it becomes the program: a terminal, a pid, or why it failed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use silo_sys::socket;

use crate::protocol::{Failure, FailureKind};

/// How long a start may take before it is given up.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

/// One report; the socket's end without one means that the program runs.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Report {
    /// The master of the terminal rides along.
    Terminal,
    /// Pid of the process to supervise, in the supervisor's namespace.
    Pid(i32),
    /// It could not become the program.
    Failed(Failure),
}

/// A pair of connected sockets that keep messages apart.
pub(crate) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((ours, out_of_the_way(theirs)?))
}

/// The descriptor under a number above those that a program is given.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> io::Result<OwnedFd> {
    const ABOVE: i32 = 16;
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, ABOVE)?)
}

/// Sends a report; there is nobody to tell if that fails.
pub(crate) fn send(channel: impl AsFd, report: &Report, fds: &[BorrowedFd<'_>]) {
    if let Ok(text) = serde_json::to_vec(report) {
        let _ = socket::send(channel, &text, fds);
    }
}

/// Waits for the next report; `None`: the other side has closed, which an exec does.
pub(crate) fn receive(channel: impl AsFd, until: Instant) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let ready = poll(&mut [PollFd::new(&channel, PollFlags::IN)], Some(&timeout))?;
    if ready == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the container's process did not start in time"));
    }
    let mut buffer = vec![0u8; 16 << 10];
    let mut fds = Vec::new();
    let n = match socket::receive(&channel, &mut buffer, &mut fds) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
        other => other?,
    };
    if n == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..n])?, fds)))
}

/// A failure of class `Other`.
pub(crate) fn failure(error: io::Error) -> Failure {
    Failure { kind: FailureKind::Other, message: error.to_string() }
}
