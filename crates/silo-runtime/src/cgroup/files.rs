//! Reading and writing a cgroup's control files.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long leaving processes may keep a cgroup busy.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// Writes a control file; the error names file and value.
pub(super) fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = dir.join(file);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .map_err(|e| io::Error::new(e.kind(), format!("writing {value:?} to {}: {e}", path.display())))
}

/// Reads a control file as text; empty when it is not there.
pub(super) fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// Reads a control file as a number; `max` is `u64::MAX`, absent is 0.
pub(super) fn number(dir: &Path, file: &str) -> u64 {
    match read(dir, file).trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// The value of a `key value` line; 0 when absent.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .find(|(k, _)| *k == key)
        .and_then(|(_, v)| v.trim().parse().ok())
        .unwrap_or(0)
}

/// Pids in `cgroup.procs`.
pub(super) fn pids(dir: &Path) -> io::Result<Vec<i32>> {
    match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).collect()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Removes a cgroup directory once `own` processes, which are about to end, have left it. Others that are in it by then
/// are a successor's: it stays.
pub(super) fn hand_over(dir: &Path, own: &[i32]) -> io::Result<()> {
    let end = Instant::now() + REMOVE_LIMIT;
    let mut pause = Duration::from_micros(200);
    loop {
        let inside = pids(dir)?;
        if inside.iter().any(|pid| !own.contains(pid)) {
            return Ok(());
        }
        if inside.is_empty() {
            return match std::fs::remove_dir(dir) {
                // It has come between the look and the removal.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        if Instant::now() > end {
            let busy = format!("removing cgroup {}: processes are left in it", dir.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Removes a cgroup directory with the (nested) ones that its processes made, killing what runs in it.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let end = Instant::now() + REMOVE_LIMIT;
    let mut pause = Duration::from_micros(200);
    loop {
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) || e.raw_os_error() == Some(libc::ENOTEMPTY) => {
                if Instant::now() > end {
                    return Err(io::Error::new(e.kind(), format!("removing cgroup {}: {e}", dir.display())));
                }
            }
            Err(e) => return Err(e),
        }
        for child in std::fs::read_dir(dir)?.flatten() {
            if child.file_type().is_ok_and(|t| t.is_dir()) {
                remove(&child.path())?;
            }
        }
        for pid in pids(dir)? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // The kernel tells nobody when the last task has left a v1 cgroup: look again, less and less often.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
