//! PID 1 of a Windows guest: starts Wine's server, runs the command, passes signals on as console events, reports the
//! full 32-bit exit code and has the registry written on the way out.
//!
//! `silo-init` is PID 1; `silo-init flush` has a running guest's registry written; `silo-init exec` runs a further program. Either way the working directory
//! and the environment are the program's own, with these added by the host side and taken out here:
//!
//! | variable | meaning |
//! |---|---|
//! | `SILO_COMMAND_LINE` | the Windows command line |
//! | `SILO_USER` | the Windows account: `ContainerAdministrator`, `ContainerUser` |
//! | `SILO_STATUS_FD` | descriptor on which the exit code is reported, 4 bytes little-endian (optional) |
//! | `SILO_PRELOAD` | `inside/windows/limits` in the container's root (optional) |
//! | `SILO_PROCESSORS`, `SILO_MEMORY` | limits for it: number, bytes (optional) |

mod events;
mod request;
mod server;
mod signals;
mod status;
mod terminal;

use std::process::ExitCode;

use request::Request;
use signals::{Signals, Woken};

/// Shells' exit code for "cannot be run": this program's own failures end with it.
const CANNOT_RUN: u32 = 126;

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        None => Mode::Init,
        Some("exec") => Mode::Exec,
        Some("flush") => {
            return match server::flush() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("silo-init: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        Some(other) => {
            eprintln!("silo-init: unknown argument {other}");
            return ExitCode::from(CANNOT_RUN as u8);
        }
    };
    let reporter = status::Reporter::from_environment();
    let code = run(mode).unwrap_or_else(|error| {
        eprintln!("silo-init: {error}");
        CANNOT_RUN
    });
    reporter.report(code);
    if mode == Mode::Init {
        // The registry is written before the last process of the guest's PID namespace goes.
        server::stop();
    }
    ExitCode::from(low_byte(code))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// PID 1: everything that loses its parent comes here to be reaped.
    Init,
    /// One more program.
    Exec,
}

/// Runs the program to its end; returns its exit code.
fn run(mode: Mode) -> Result<u32, String> {
    let request = Request::from_environment()?;
    // Before anything is started: a signal that comes early is not lost.
    let signals = Signals::block().map_err(|e| format!("blocking signals: {e}"))?;
    terminal::make_raw();
    if mode == Mode::Init {
        server::start(&request.linux_environment(), signals.previous())?;
    }
    let running = request.start(&signals)?;
    let mut events = events::Events::new(running.number(), running.pid());
    loop {
        match signals.wait(events.deadline()).map_err(|e| format!("waiting for signals: {e}"))? {
            Woken::Child => {
                if let Some(wait_status) = signals::reap(mode == Mode::Init, running.pid()) {
                    return Ok(running.exit_code(wait_status));
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
