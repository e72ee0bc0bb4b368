//! Reading and writing a cgroup's control files.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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

/// Control files that are written one after the other, all or none: what fails takes back what was done before it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    done: Vec<(PathBuf, String, String)>,
}

impl Changes {
    /// Writes a file that has one value.
    pub(super) fn write(&mut self, dir: &Path, file: &str, value: &str) -> io::Result<()> {
        let before = read(dir, file).trim().to_owned();
        self.write_as(dir, file, value, &before)
    }

    /// Writes a file; `before` takes it back.
    pub(super) fn write_as(&mut self, dir: &Path, file: &str, value: &str, before: &str) -> io::Result<()> {
        write(dir, file, value)?;
        self.done.push((dir.to_owned(), file.to_owned(), before.to_owned()));
        Ok(())
    }

    /// Writes the value of one device, `major:minor value`; `unset`: its value where nothing was set for it.
    pub(super) fn write_device(
        &mut self,
        dir: &Path,
        file: &str,
        device: (i64, i64),
        value: &str,
        unset: &str,
    ) -> io::Result<()> {
        let name = format!("{}:{}", device.0, device.1);
        let text = read(dir, file);
        let lines = text.lines().filter_map(|l| l.split_once(' '));
        let before = lines.filter(|(n, _)| *n == name).map(|(_, v)| v.trim()).next().unwrap_or(unset);
        let before = format!("{name} {before}");
        self.write_as(dir, file, &format!("{name} {value}"), &before)
    }

    /// Takes back what was done, the last first, if it ended in an error.
    pub(super) fn settle(self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            for (dir, file, before) in self.done.into_iter().rev() {
                let _ = write(&dir, &file, &before);
            }
        }
        result
    }
}

/// Reads a control file as text; empty when it is not there.
pub(super) fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// Whether some disk's scheduler is the one that keeps weights; the others take them and do nothing.
pub(super) fn some_disk_weighs() -> bool {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.map(|disk| read(&disk.path().join("queue"), "scheduler")).any(|text| text.contains("[bfq]"))
}

/// Whether the kernel has anything to swap to: a line for each below the head of `/proc/swaps`.
pub(super) fn kernel_swaps() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        let see = |file: &str| read(dir.path(), file);
        put("a", "1\n");
        put("io.max", "8:0 rbps=5 wbps=max\n254:0 rbps=max wbps=7\n");
        let mut changes = Changes::default();
        let result = changes
            .write(dir.path(), "a", "2")
            .and_then(|()| changes.write_device(dir.path(), "io.max", (254, 0), "rbps=9", "rbps=max"))
            .and_then(|()| {
                // A control file has what was written last where one value is set.
                assert_eq!(&see("io.max")[..12], "254:0 rbps=9");
                changes.write(dir.path(), "none", "3")
            });
        let error = changes.settle(result).unwrap_err().to_string();
        assert!(error.contains("writing \"3\" to") && error.contains("none"), "{error}");
        assert_eq!(&see("a")[..1], "1");
        assert!(!see("io.max").contains("rbps=9"));
    }
}
