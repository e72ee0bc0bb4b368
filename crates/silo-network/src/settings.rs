//! Kernel settings (`/proc/sys/net`) of the calling thread's network namespace.

use std::io;

use rustix::fs::{Mode, OFlags};

/// Writes a setting, unless it has the value already (a read-only /proc is fine then). `path` is below `/proc/sys/net`.
pub(crate) fn write(path: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{path}");
    if std::fs::read_to_string(&path).is_ok_and(|v| v.trim() == value) {
        return Ok(());
    }
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// The same where a failure is worth a line in the log and no more.
pub(crate) fn wish(path: &str, value: &str) {
    match write(path, value) {
        // No IPv6 in this kernel: nothing to set.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => tracing::warn!("/proc/sys/net/{path}: {e}"),
        Ok(()) => {}
    }
}
