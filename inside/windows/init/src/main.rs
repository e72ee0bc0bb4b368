//! PID 1 of a Windows guest: starts Wine's server, runs the command, passes signals on as console events, reports the
//! full 32-bit exit code and has the registry written on the way out.
//!
//! `silo-init` is PID 1; `silo-init warm` too, of a guest whose program is told later (`warm.rs`); `silo-init exec` runs a
//! further program; `silo-init flush` has a running guest's registry written; `silo-init identity <SID>` gives a running
//! guest another machine SID. Of the first three the working directory and the environment are the program's own, with
//! these added by the host side and taken out here:
//!
//! | variable | meaning |
//! |---|---|
//! | `SILO_COMMAND_LINE` | the Windows command line |
//! | `SILO_USER` | the Windows account: `ContainerAdministrator`, `ContainerUser` |
//! | `SILO_MACHINE_SID` | the machine's SID, `S-1-5-21-` and three numbers; PID 1's (optional) |
//! | `SILO_STATUS_FD` | descriptor on which the exit code is reported, 4 bytes little-endian (optional) |
//! | `SILO_WAIT_FD` | descriptor on which `silo-init warm` says that it is ready and is told what to run |
//! | `SILO_DISCARD` | nobody reads the registry after the end: it is not written (optional) |
//! | `SILO_PRELOAD` | `inside/windows/limits` in the container's root (optional) |

mod events;
mod identity;
mod request;
mod server;
mod signals;
mod status;
mod terminal;
mod warm;

use std::process::ExitCode;

use request::Request;
use signals::{Signals, Woken};

/// Shells' exit code for "cannot be run": this program's own failures end with it.
const CANNOT_RUN: u32 = 126;

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        None => Mode::Init,
        Some("exec") => Mode::Exec,
        Some("warm") => Mode::Warm,
        Some("flush") => return told(server::flush()),
        Some("identity") => return told(identity::change(&std::env::args().nth(2).unwrap_or_default())),
        Some(other) => {
            eprintln!("silo-init: unknown argument {other}");
            return ExitCode::from(CANNOT_RUN as u8);
        }
    };
    let reporter = status::Reporter::from_environment();
    let ended = run(mode).unwrap_or_else(|error| {
        eprintln!("silo-init: {error}");
        Ended { code: CANNOT_RUN, discard: false }
    });
    let code = ended.code;
    reporter.report(code);
    if mode != Mode::Exec && !ended.discard {
        // The registry is written before the last process of the guest's PID namespace goes.
        server::stop();
    }
    ExitCode::from(low_byte(code))
}

/// The exit code of a task that is no program's run.
fn told(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("silo-init: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// PID 1: everything that loses its parent comes here to be reaped.
    Init,
    /// PID 1 of a guest that is booted before anybody wants it.
    Warm,
    /// One more program.
    Exec,
}

/// How it ended.
struct Ended {
    code: u32,
    /// Nobody reads the registry.
    discard: bool,
}

/// Runs the program to its end.
fn run(mode: Mode) -> Result<Ended, String> {
    let request = Request::from(std::env::vars_os())?;
    // Before anything is started: a signal that comes early is not lost.
    let signals = Signals::block().map_err(|e| format!("blocking signals: {e}"))?;
    if mode != Mode::Exec
        && let Some(sid) = request.machine_sid()
    {
        identity::leave(sid)?;
    }
    let mut discard = request.is_discarded();
    let running = match mode {
        Mode::Init => {
            terminal::make_raw();
            server::start(&request.linux_environment(), signals.previous())?;
            request.start(&signals)?
        }
        Mode::Warm => {
            server::start(&request.linux_environment(), signals.previous())?;
            match warm::wait(&request, &signals)? {
                Some((running, discarded)) => {
                    discard = discarded;
                    running
                }
                // It was never wanted.
                None => return Ok(Ended { code: 0, discard: true }),
            }
        }
        Mode::Exec => {
            terminal::make_raw();
            server::await_start();
            request.start(&signals)?
        }
    };
    let mut events = events::Events::new(running.number(), running.pid());
    loop {
        match signals.wait(events.deadline()).map_err(|e| format!("waiting for signals: {e}"))? {
            Woken::Child => {
                if let Some(wait_status) = signals::reap(mode != Mode::Exec, running.pid()) {
                    return Ok(Ended { code: running.exit_code(wait_status), discard });
                }
            }
            Woken::Signal(signal) => events.forward(signal),
            Woken::Deadline => events.due(),
        }
    }
}

/// What Linux shows of a code: its low byte, but never zero for a code that is not.
fn low_byte(code: u32) -> u8 {
    match code as u8 {
        0 if code != 0 => 1,
        byte => byte,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_failure_never_looks_like_success() {
        assert_eq!(super::low_byte(0), 0);
        assert_eq!(super::low_byte(0x100), 1);
        assert_eq!(super::low_byte(0xc000_0005), 5);
    }
}
