//! Wine's server: one a guest. It holds every object, and the registry, which it writes when it is asked to end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::signals::Mask;

const SERVER: &str = "/usr/lib/wine/wineserver64";
/// Below it, `<name>/server-<device>-<inode>/lock`. The name differs: Wine's is `.wine-<uid>`, Debian's is random.
const DIRECTORY: &str = "/tmp";

/// Where the server says that it has written the registry (`registry-flush.patch`).
const FLUSHED: &str = "/run/silo/flushed";
const FLUSHED_IN: &str = "/run/silo";
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
    let Some(pid) = lock_file().and_then(|lock| holder(&lock)) else { return Ok(()) };
    let end = std::time::Instant::now() + FLUSH_LIMIT;
    wait_until_asked_for(pid, end)?;
    let failed = |error: std::io::Error| format!("waiting for {SERVER} to write the registry: {error}");
    let (directory, name) = (std::ffi::CString::new(FLUSHED_IN), std::ffi::CString::new(FLUSHED));
    let (Ok(directory), Ok(name)) = (directory, name) else { return Err("a name has a zero".to_owned()) };
    fs::create_dir_all(FLUSHED_IN).map_err(failed)?;
    // One at a time: each waits for an answer of its own. Held until this process ends; whoever has it is bounded in time.
    let turn = File::create(format!("{FLUSHED_IN}/flush.lock")).map_err(failed)?;
    // SAFETY: takes no pointers; the descriptor is open.
    unsafe { libc::flock(turn.as_raw_fd(), libc::LOCK_EX) };
    // SAFETY: paths are terminated; the descriptor is ours and closed at this process's end.
    let watch = unsafe {
        let watch = libc::inotify_init1(libc::IN_CLOEXEC);
        libc::unlink(name.as_ptr());
        if watch < 0 || libc::inotify_add_watch(watch, directory.as_ptr(), libc::IN_CREATE) < 0 {
            return Err(failed(std::io::Error::last_os_error()));
        }
        // The holder of the lock is alive.
        libc::kill(pid, libc::SIGUSR1);
        watch
    };
    while !Path::new(FLUSHED).exists() {
        let left = end.saturating_duration_since(std::time::Instant::now()).as_millis() as i32;
        let mut poll = libc::pollfd { fd: watch, events: libc::POLLIN, revents: 0 };
        let mut events = [0u8; 4096];
        // SAFETY: both buffers outlive the calls and are as long as said.
        unsafe {
            if left == 0 || libc::poll(&mut poll, 1, left) <= 0 {
                return Err(format!("{SERVER} does not write the registry"));
            }
            libc::read(watch, events.as_mut_ptr().cast(), events.len());
        }
    }
    Ok(())
}

/// Waits until the server handles SIGUSR1: it has the lock a moment before that, and the signal would end it. Of a base
/// with the packaged server it never does.
fn wait_until_asked_for(pid: i32, end: std::time::Instant) -> Result<(), String> {
    const BIT: u64 = 1 << (libc::SIGUSR1 - 1);
    const STEP: std::time::Duration = std::time::Duration::from_millis(5);
    // The server of this house gets there within milliseconds.
    let end = end.min(std::time::Instant::now() + std::time::Duration::from_secs(2));
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if caught.is_some_and(|mask| mask & BIT != 0) {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err(format!(
                "{SERVER} of this base cannot be asked to write the registry: stop the container first"
            ));
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
