//! A guest that is booted before anybody wants it: up to the point where a program can run at once, and then the wait
//! for that program.
//!
//! The request of the environment is the rehearsal: a program that is run to its end once, so that the one that counts
//! finds everything loaded. Then a launcher is started that waits as well. What goes over the socket is told in
//! `crates/silo-runtime/src/waiting.rs`.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::request::{self, Request, Running};
use crate::signals::{self, Seen, Signals, Woken};
use crate::{identity, status, terminal};

/// How long the rehearsal, services and a launcher may take, each.
const LIMIT: Duration = Duration::from_secs(30);
/// What drivers and services make when they are there (`inside/windows/limits/src/drivers.rs`).
const UP: [&str; 2] = ["drivers", "services"];
/// Between looks whether a file is there: nobody else waits, and nobody is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// What a container is shown of its limits (`crates/silo-guest/src/windows/limits.rs`), one a line.
const LIMITS: &str = "/sys/silo/limits";
/// Bytes of a message that are accepted.
const LONGEST: usize = 16 << 20;

/// A launcher that waits.
struct Launcher {
    running: Running,
    /// The limit that was shown when it was started: a process keeps it.
    processors: Option<String>,
}

/// How many processors are shown, if there is a limit.
fn shown_processors() -> Option<String> {
    let limits = std::fs::read_to_string(LIMITS).ok()?;
    limits.lines().find_map(|line| line.strip_prefix("processors ")).map(str::to_owned)
}

/// What is told over the socket.
struct Told {
    /// No program, but the rehearsal once more.
    rehearse: bool,
    terminal: bool,
    input: bool,
    /// Rows, columns.
    size: (u16, u16),
    directory: OsString,
    environment: Vec<(OsString, OsString)>,
}

/// Boots and waits; the program that runs then, and whether nobody reads the registry after it, or `None`: nobody wanted one.
pub(crate) fn wait(rehearsal: &Request, signals: &Signals) -> Result<Option<(Running, bool)>, String> {
    let mut socket = status::inherited("SILO_WAIT_FD")
        .map(UnixStream::from)
        .ok_or("SILO_WAIT_FD does not name an open descriptor")?;
    rehearse(rehearsal, signals)?;
    for name in UP {
        await_file(&Path::new(request::DIRECTORY).join(name), signals)?;
    }
    loop {
        let processors = shown_processors();
        let launcher = rehearsal.start_waiting(signals)?;
        await_file(&request::file(launcher.number(), "waiting"), signals)?;
        socket.write_all(b"R").map_err(|e| format!("saying that it is ready: {e}"))?;
        if !await_message(&socket, &launcher, signals)? {
            return Ok(None);
        }
        let Some(told) = read(&mut socket)? else { return Ok(None) };
        if told.rehearse {
            // It has this process's number, which a rehearsal has too.
            end(&launcher);
            await_end(&launcher, signals)?;
            rehearse(rehearsal, signals)?;
            continue;
        }
        let launcher = Launcher { running: launcher, processors };
        return match begin(rehearsal, told, launcher, signals, &socket) {
            Ok(running) => Ok(Some(running)),
            Err(error) => {
                // Whoever hears it tells it on.
                let _ = socket.write_all(format!("F{error}").as_bytes());
                Ok(None)
            }
        };
    }
}

fn rehearse(rehearsal: &Request, signals: &Signals) -> Result<(), String> {
    let rehearsed = rehearsal.start_silently(signals)?;
    match await_end(&rehearsed, signals)? {
        0 => Ok(()),
        code => Err(format!("the rehearsal ended with code {code}")),
    }
}

/// Ends a launcher that has done nothing.
fn end(launcher: &Running) {
    // SAFETY: takes no pointers; the launcher is our child and not reaped yet.
    unsafe { libc::kill(launcher.pid(), libc::SIGKILL) };
}

/// Waits until there is something to read; whether anything is to be done then.
fn await_message(socket: &UnixStream, launcher: &Running, signals: &Signals) -> Result<bool, String> {
    loop {
        match signals.wait_or_readable(socket.as_fd()).map_err(|e| format!("waiting for a program: {e}"))? {
            Seen::Readable => return Ok(true),
            Seen::Woken(Woken::Child) => {
                if signals::reap(true, launcher.pid()).is_some() {
                    return Err("the launcher has ended".to_owned());
                }
            }
            Seen::Woken(Woken::Signal(libc::SIGTERM | libc::SIGINT)) => return Ok(false),
            Seen::Woken(_) => {}
        }
    }
}

/// Starts what was told, and says so.
fn begin(
    rehearsal: &Request,
    told: Told,
    Launcher { running: launcher, processors }: Launcher,
    signals: &Signals,
    socket: &UnixStream,
) -> Result<(Running, bool), String> {
    std::env::set_current_dir(&told.directory)
        .map_err(|e| format!("chdir to cwd ({:?}) set in config.json failed: {e}", told.directory))?;
    let request = Request::from(told.environment)?.first(told.input || told.terminal);
    if let Some(sid) = request.machine_sid()
        && rehearsal.machine_sid() != Some(sid)
    {
        identity::change(sid)?;
    }
    let master = if told.terminal {
        Some(terminal::take(told.size).map_err(|e| format!("opening a terminal: {e}"))?)
    } else {
        None
    };
    terminal::make_raw();
    // It has the streams and the processors of the time when it was started.
    let suits = master.is_none() && request.suits_launcher_of(rehearsal) && processors == shown_processors();
    let discard = request.is_discarded();
    let running = match request::on_drive(Path::new(&told.directory)).filter(|_| suits) {
        Some(directory) => {
            request.hand_to(&launcher, directory)?;
            launcher
        }
        None => {
            end(&launcher);
            request.start(signals)?
        }
    };
    terminal::send(socket, b"S", master.as_ref().map(AsRawFd::as_raw_fd))
        .map_err(|e| format!("saying that it runs: {e}"))?;
    Ok((running, discard))
}

fn await_end(running: &Running, signals: &Signals) -> Result<u32, String> {
    let end = Instant::now() + LIMIT;
    loop {
        match signals.wait(Some(end)).map_err(|e| format!("waiting for the rehearsal: {e}"))? {
            Woken::Child => {
                if let Some(wait_status) = signals::reap(true, running.pid()) {
                    return Ok(running.exit_code(wait_status));
                }
            }
            Woken::Signal(libc::SIGTERM) => return Err("told to end while it boots".to_owned()),
            Woken::Signal(_) => {}
            Woken::Deadline => return Err("the rehearsal does not end".to_owned()),
        }
    }
}

/// Waits until a file is there.
fn await_file(path: &Path, signals: &Signals) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    while !path.exists() {
        if Instant::now() > end {
            return Err(format!("{} does not come", path.display()));
        }
        match signals.wait(Some(Instant::now() + LOOK)) {
            Ok(Woken::Child) => drop(signals::reap(true, 0)),
            Ok(Woken::Signal(libc::SIGTERM)) => return Err("told to end while it boots".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("waiting for {}: {error}", path.display())),
        }
    }
    Ok(())
}

/// The message; `None`: the other side has closed without one.
fn read(socket: &mut UnixStream) -> Result<Option<Told>, String> {
    let mut length = [0u8; 4];
    if socket.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(format!("a message of {length} bytes"));
    }
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).map_err(|e| format!("reading what to run: {e}"))?;
    parse(&bytes).map(Some).ok_or_else(|| "what to run is cut off".to_owned())
}

fn parse(bytes: &[u8]) -> Option<Told> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let mut texts = rest.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let directory = text(texts.next()?);
    let variable = |entry: &[u8]| {
        let equals = entry.iter().position(|byte| *byte == b'=')?;
        Some((text(&entry[..equals]), text(&entry[equals + 1..])))
    };
    Some(Told {
        rehearse: head[0] & 4 != 0,
        terminal: head[0] & 1 != 0,
        input: head[0] & 2 != 0,
        size: (number(1), number(3)),
        directory,
        environment: texts.filter_map(variable).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood_and_what_is_cut_off_is_not() {
        let told = parse(b"\x03\x18\0\x50\0/c/dir\0A=b=c\0E=\0").unwrap();
        assert!(told.terminal && told.input);
        assert_eq!((told.size, told.directory.to_str()), ((24, 80), Some("/c/dir")));
        let pair = |a: &str, b: &str| (OsString::from(a), OsString::from(b));
        assert_eq!(told.environment, [pair("A", "b=c"), pair("E", "")]);
        assert!(parse(b"\0\0\0\0").is_none() && parse(b"\0\0\0\0\0/c").is_none());
    }
}
