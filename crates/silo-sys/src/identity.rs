//! What one thread is to file systems: ids for the time of a call, capabilities without one.

use std::io;

use crate::process::{CapabilitySets, capabilities, prctl, set_capabilities};

/// linux/securebits.h: a change of ids leaves the capabilities alone.
const NO_SETUID_FIXUP: u64 = 1 << 2;

/// From here on [`with_file_ids`] keeps the calling thread's capabilities: only ownership follows the ids.
pub fn keep_capabilities() -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP)
}

/// Leaves the calling thread of its permitted capabilities those in `mask` (bits by number), and no inheritable one.
pub fn keep_only(mask: u64) -> io::Result<()> {
    let permitted = capabilities()?.permitted & mask;
    set_capabilities(CapabilitySets { effective: permitted, permitted, inheritable: 0 })
}

/// Runs `work` in the calling thread, whose file system ids are 0, with others: what it creates belongs to them.
///
/// # Errors
/// EOVERFLOW: an id is none of this user namespace; `work` has not run.
pub fn with_file_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    if uid == 0 && gid == 0 {
        return Ok(work());
    }
    let _back = FileIds;
    // The group first; each call answers with the id before it, and -1 only asks.
    set_fsgid(gid);
    set_fsuid(uid);
    if set_fsgid(u32::MAX) != gid || set_fsuid(u32::MAX) != uid {
        return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
    }
    Ok(work())
}

/// Runs `work` in the calling thread without the effective capability of that number.
pub fn without_capability<T>(number: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities()?;
    let _back = Capabilities(before);
    set_capabilities(CapabilitySets { effective: before.effective & !(1 << number), ..before })?;
    Ok(work())
}

/// Returns to id 0 when dropped.
struct FileIds;

impl Drop for FileIds {
    fn drop(&mut self) {
        set_fsuid(0);
        set_fsgid(0);
    }
}

/// Restores the sets when dropped: a subset of permitted, which cannot fail.
struct Capabilities(CapabilitySets);

impl Drop for Capabilities {
    fn drop(&mut self) {
        let _ = set_capabilities(self.0);
    }
}

fn set_fsuid(id: u32) -> u32 {
    // SAFETY: a number only; of the calling thread.
    unsafe { libc::setfsuid(id) as u32 }
}

fn set_fsgid(id: u32) -> u32 {
    // SAFETY: a number only; of the calling thread.
    unsafe { libc::setfsgid(id) as u32 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_belongs_to_the_ids_of_the_moment_and_capabilities_stay() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::thread::spawn(move || {
            keep_capabilities().unwrap();
            let before = capabilities().unwrap();
            with_file_ids(1234, 567, || std::fs::write(&a, "")).unwrap().unwrap();
            assert_eq!(capabilities().unwrap(), before);
            std::fs::write(&b, "").unwrap();
            let (a, b) = (a.metadata().unwrap(), b.metadata().unwrap());
            assert_eq!((a.uid(), a.gid(), b.uid(), b.gid()), (1234, 567, 0, 0));
        })
        .join()
        .unwrap();
    }
}
