//! Signals to a process that was started here, with the failures that the task protocol tells.

use std::os::fd::OwnedFd;

use silo_sys::process;

use crate::protocol::{Failure, FailureKind};
use crate::report::failure;

/// Sends one to the process behind a pidfd; `None`: there is none yet, or no more.
pub fn signal(pidfd: Option<&OwnedFd>, signal: i32) -> Result<(), Failure> {
    let wrong_state = |message: &str| Failure { kind: FailureKind::WrongState, message: message.to_owned() };
    let pidfd = pidfd.ok_or_else(|| wrong_state("it is not running"))?;
    process::pidfd_signal(pidfd, signal).map_err(|e| match e.raw_os_error() {
        Some(libc::ESRCH) => wrong_state("it has ended"),
        Some(libc::EINVAL) => {
            Failure { kind: FailureKind::Invalid, message: format!("there is no signal {signal}") }
        }
        _ => failure(e),
    })
}
