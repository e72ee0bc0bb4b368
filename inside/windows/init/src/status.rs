//! Reports the 32-bit exit code to the supervisor on the host, through the descriptor that it left open.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

const VARIABLE: &str = "SILO_STATUS_FD";

/// Where the exit code goes; nowhere, if the supervisor did not ask.
pub(crate) struct Reporter(Option<File>);

impl Reporter {
    /// Takes the descriptor named in the environment and closes it for every program started from here.
    pub(crate) fn from_environment() -> Reporter {
        Reporter(inherited(VARIABLE).map(File::from))
    }

    /// Writes the code. A supervisor that is gone has no use for it.
    pub(crate) fn report(mut self, code: u32) {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(&code.to_le_bytes());
        }
    }
}

/// The open descriptor that a variable names, closed for every program started from here.
pub(crate) fn inherited(variable: &str) -> Option<OwnedFd> {
    let number = std::env::var(variable).ok().and_then(|text| text.parse::<i32>().ok()).filter(|n| *n > 2);
    // SAFETY: open (just checked), left to us by contract, owned by nobody else in this process.
    number.filter(|fd| close_on_exec(*fd)).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn close_on_exec(fd: i32) -> bool {
    // SAFETY: takes no pointers; a bad number is an error return.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 }
}
