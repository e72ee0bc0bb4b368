//! Wine's server: one a guest. It holds every object, and the registry, which it writes when it is asked to end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

const SERVER: &str = "/usr/lib/wine/wineserver64";
/// Below it, one directory per prefix with the server's lock file.
const DIRECTORY: &str = "/tmp/.wine-0";

/// Starts the server; it listens when this returns. It stays until [`stop`], whatever programs come and go.
pub(crate) fn start(environment: &[(&'static str, OsString)]) -> Result<(), String> {
    let mut command = Command::new(SERVER);
    command.arg("-p").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    // It outlives the program, whose output must not wait for it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
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

fn lock_file() -> Option<File> {
    let entries = fs::read_dir(DIRECTORY).ok()?;
    entries.flatten().find_map(|entry| File::options().read(true).open(entry.path().join("lock")).ok())
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
