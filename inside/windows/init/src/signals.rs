//! Signals as events to wait for, and the reaping of children.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const HANDLED: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPWR,
    libc::SIGWINCH,
];

/// Why [`Signals::wait`] returned.
pub(crate) enum Woken {
    /// A child may have ended.
    Child,
    /// Another of the handled signals.
    Signal(i32),
    /// The deadline passed.
    Deadline,
}

/// The handled signals, blocked, so that they wait to be taken.
pub(crate) struct Signals {
    handled: Mask,
    previous: Mask,
}

/// A signal mask.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    fn of(signals: &[i32]) -> Mask {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set; the numbers are valid signals.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            Mask(set.assume_init())
        }
    }

    /// Makes this the calling thread's mask.
    pub(crate) fn restore(&self) -> io::Result<()> {
        // SAFETY: the set is initialised; the old mask is not asked for.
        match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Signals {
    /// Blocks the handled signals from now on.
    pub(crate) fn block() -> io::Result<Signals> {
        let handled = Mask::of(&HANDLED);
        let mut previous = Mask::of(&[]);
        // SAFETY: both sets are initialised and outlive the call.
        match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &handled.0, &mut previous.0) } {
            0 => Ok(Signals { handled, previous }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The mask from before [`Signals::block`], for programs started from here.
    pub(crate) fn previous(&self) -> Mask {
        self.previous
    }

    /// Waits for a signal, until `deadline` if there is one.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // SAFETY: the set is initialised, information is not asked for, the time (if any) outlives the call.
            let signal = unsafe {
                match left.map(timespec) {
                    Some(time) => libc::sigtimedwait(&self.handled.0, std::ptr::null_mut(), &time),
                    None => libc::sigwaitinfo(&self.handled.0, std::ptr::null_mut()),
                }
            };
            match signal {
                libc::SIGCHLD => return Ok(Woken::Child),
                signal if signal > 0 => return Ok(Woken::Signal(signal)),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(Woken::Deadline),
                    error => return Err(error),
                },
            }
        }
    }
}

/// What [`Signals::wait_or_readable`] saw first.
pub(crate) enum Seen {
    /// Something to read, or the end of it.
    Readable,
    /// A signal.
    Woken(Woken),
}

impl Signals {
    /// Waits for a signal, or until there is something to read from `fd`.
    pub(crate) fn wait_or_readable(&self, fd: BorrowedFd<'_>) -> io::Result<Seen> {
        // SAFETY: the set is initialised; the descriptor is new and ours.
        let signals = unsafe {
            let signals = libc::signalfd(-1, &self.handled.0, libc::SFD_CLOEXEC);
            if signals < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(signals)
        };
        let of = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        loop {
            let mut polled = [of(signals.as_raw_fd()), of(fd.as_raw_fd())];
            // SAFETY: the structures outlive the call.
            if unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) } < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                }
            }
            if polled[0].revents != 0 {
                return self.wait(None).map(Seen::Woken);
            }
            if polled[1].revents != 0 {
                return Ok(Seen::Readable);
            }
        }
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos().into() }
}

/// Reaps what has ended: everything if `all`, else `main` only. The wait status of `main`, if it was among them.
pub(crate) fn reap(all: bool, main: i32) -> Option<i32> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        let pid = unsafe { libc::waitpid(if all { -1 } else { main }, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == main {
            found = Some(status);
        }
    }
}
