//! Wine's server: one a guest. It holds every object, and the registry, which it writes when it is asked to end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::signals::Mask;

const SERVER: &str = "/usr/lib/wine/wineserver64";
/// Below it, `<name>/server-<device>-<inode>/lock`. The name differs: Wine's is `.wine-<uid>`, Debian's is random.
const DIRECTORY: &str = "/tmp";

/// Where the server says what became of it (`registry-flush.patch`): a file [`FLUSHED`], which it removes with the first
/// change after that, or a link [`FAILED`] to the reason.
const FLUSHED_IN: &str = "/run/silo";
const FLUSHED: &str = "flushed";
const FAILED: &str = "flush-failed";
const FLUSH_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);

/// Starts the server; it listens when this returns. It stays until [`stop`], whatever programs come and go.
pub(crate) fn start(environment: &[(&'static str, OsString)], mask: Mask) -> Result<(), String> {
    let mut command = Command::new(SERVER);
    command.arg("-p").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    // It outlives the program, whose output must not wait for it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // It would inherit the blocked signals, and never hear that it is to end.
    // SAFETY: only sets this process's own signal mask back, an async-signal-safe call.
    unsafe { command.pre_exec(move || mask.restore()) };
    // The process started here ends once its child, the server, listens.
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{SERVER}: {status}")),
        Err(error) => Err(format!("running {SERVER}: {error}")),
    }
}

/// Waits until the guest's first process has started the server: a program that comes before would start one of its own,
/// and two that make the server's directory at once are in each other's way. After a while it goes on without.
pub(crate) fn await_start() {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
    const STEP: std::time::Duration = std::time::Duration::from_millis(2);
    let end = std::time::Instant::now() + LIMIT;
    // A lock tells nobody when it is taken.
    while lock_file().and_then(|lock| holder(&lock)).is_none() && std::time::Instant::now() < end {
        std::thread::sleep(STEP);
    }
}

/// Has the server write the registry and end, and waits until it has.
pub(crate) fn stop() {
    let Some(lock) = lock_file() else { return };
    let Some(pid) = holder(&lock) else { return };
    // SAFETY: takes no pointers. The holder of the lock is alive, and this process is the only one to reap it.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let mut description = whole_file(libc::F_RDLCK);
    // SAFETY: the structure outlives the call. It returns when the server's lock is gone, hence the server.
    unsafe { libc::fcntl(lock.as_raw_fd(), libc::F_SETLKW, &mut description) };
}

/// Has the server write the registry, and waits until it has.
pub(crate) fn flush() -> Result<(), String> {
    // A guest that has no server yet, or none any more, has nothing in memory.
    let Some(pid) = running() else { return Ok(()) };
    let end = std::time::Instant::now() + FLUSH_LIMIT;
    let failed = |error: std::io::Error| format!("waiting for {SERVER} to write the registry: {error}");
    fs::create_dir_all(FLUSHED_IN).map_err(failed)?;
    // One at a time: each waits for an answer of its own. Held until this process ends; whoever has it is bounded in time.
    let turn = File::create(format!("{FLUSHED_IN}/flush.lock")).map_err(failed)?;
    // SAFETY: takes no pointers; the descriptor is open.
    unsafe { libc::flock(turn.as_raw_fd(), libc::LOCK_EX) };
    let told = |name: &str| Path::new(FLUSHED_IN).join(name);
    for answer in [FLUSHED, FAILED] {
        match fs::remove_file(told(answer)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    match ask(pid, libc::SIGUSR1, &[FLUSHED, FAILED], end).map_err(failed)? {
        Some(FLUSHED) => Ok(()),
        Some(_) => {
            let reason = fs::read_link(told(FAILED)).unwrap_or_default();
            Err(format!("{SERVER} cannot write the registry: {}", reason.display()))
        }
        None => Err(format!("{SERVER} does not write the registry")),
    }
}

/// The server's process id, if it runs.
pub(crate) fn running() -> Option<i32> {
    lock_file().and_then(|lock| holder(&lock))
}

/// Sends the server a signal and waits, until `end`, for its answer: the name in `/run/silo`, one of `answers`, that it makes.
pub(crate) fn ask<'a>(
    pid: i32,
    signal: i32,
    answers: &[&'a str],
    end: std::time::Instant,
) -> std::io::Result<Option<&'a str>> {
    wait_until_asked_for(pid, signal, end)?;
    let directory = std::ffi::CString::new(FLUSHED_IN)?;
    // SAFETY: the path is terminated; the descriptor is ours alone.
    let watch = unsafe {
        let watch = libc::inotify_init1(libc::IN_CLOEXEC);
        if watch < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let watch = OwnedFd::from_raw_fd(watch);
        let events = libc::IN_CREATE | libc::IN_MOVED_TO;
        if libc::inotify_add_watch(watch.as_raw_fd(), directory.as_ptr(), events) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // The holder of the lock is alive.
        libc::kill(pid, signal);
        watch
    };
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now()).as_millis() as i32;
        let mut poll = libc::pollfd { fd: watch.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut events = [0u8; 4096];
        // SAFETY: both buffers outlive the calls and are as long as said.
        let read = unsafe {
            if left == 0 || libc::poll(&mut poll, 1, left) <= 0 {
                return Ok(None);
            }
            libc::read(watch.as_raw_fd(), events.as_mut_ptr().cast(), events.len())
        };
        // The answer counts, not that it is still there.
        let made = names_of(&events[..usize::try_from(read).unwrap_or(0)]);
        if let Some(answer) = answers.iter().find(|answer| made.contains(&answer.as_bytes())) {
            return Ok(Some(answer));
        }
    }
}

/// The names in events of inotify: 16 bytes, the length of the name the last 4 of them, and the name, filled up with zeros.
fn names_of(mut events: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    while let Some((head, rest)) = events.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([head[12], head[13], head[14], head[15]]) as usize;
        let Some((name, rest)) = rest.split_at_checked(length) else { break };
        names.push(name.split(|byte| *byte == 0).next().unwrap_or_default());
        events = rest;
    }
    names
}

/// Waits until the server handles a signal: it has the lock a moment before that, and the signal would end it. Of a base
/// with the packaged server it never does.
fn wait_until_asked_for(pid: i32, signal: i32, end: std::time::Instant) -> std::io::Result<()> {
    let bit = 1u64 << (signal - 1);
    const STEP: std::time::Duration = std::time::Duration::from_millis(5);
    // The server of this house gets there within milliseconds.
    let end = end.min(std::time::Instant::now() + std::time::Duration::from_secs(2));
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if caught.is_some_and(|mask| mask & bit != 0) {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err(std::io::Error::other(format!(
                "{SERVER} of this base cannot be asked: stop the container first"
            )));
        }
        std::thread::sleep(STEP);
    }
}

fn lock_file() -> Option<File> {
    let directories =
        |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    directories(Path::new(DIRECTORY))
        .flat_map(|of_user| directories(&of_user).collect::<Vec<_>>())
        .find_map(|of_prefix| File::open(of_prefix.join("lock")).ok())
}

/// Who holds the lock.
fn holder(lock: &File) -> Option<i32> {
    let mut description = whole_file(libc::F_WRLCK);
    // SAFETY: the structure outlives the call, which fills it.
    let answer = unsafe { libc::fcntl(lock.as_raw_fd(), libc::F_GETLK, &mut description) };
    (answer == 0 && i32::from(description.l_type) != libc::F_UNLCK && description.l_pid > 1)
        .then_some(description.l_pid)
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_come_out_of_events() {
        let mut events = Vec::new();
        for name in [&b"flushed\0"[..], b"", b"flush-failed\0\0\0\0"] {
            events.extend([0; 12]);
            events.extend((name.len() as u32).to_ne_bytes());
            events.extend(name);
        }
        assert_eq!(super::names_of(&events), [&b"flushed"[..], b"", b"flush-failed"]);
        events.truncate(30);
        assert_eq!(super::names_of(&events), [b"flushed"]);
    }
}
