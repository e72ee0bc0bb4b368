//! What a machine and a template are both made of.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::kernel::Kernel;
use super::qemu::Files;
use crate::contract::MachineConfig;

/// In a template's directory: the writable disk, if there is something on it that the saved machine has open.
pub(super) const SAVED_SCRATCH: &str = "scratch";

/// A template as a machine needs it.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Its memory, sealed.
    pub(crate) memory: OwnedFd,
    /// Its devices.
    pub(crate) state: OwnedFd,
}

/// An error with what was being done.
pub(super) fn named(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_string();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// Opens a file for a machine.
pub(super) fn open(path: &Path, write: bool) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(write).open(path).map_err(named(path.display()))?;
    Ok(file.into())
}

/// Two ends of a stream.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// MiB of memory that a machine has whose container may use `limit` bytes (0: not limited): sizes are few, so that a
/// template serves many containers, and none is above what the host has. The limit itself is kept by the machine's own
/// kernel.
pub(crate) fn size_of(limit: u64) -> u64 {
    let host = rustix::system::sysinfo();
    sized(limit >> 20, host.totalram.saturating_mul(host.mem_unit.into()) >> 20)
}

/// All in MiB.
fn sized(limit: u64, host: u64) -> u64 {
    const USUAL: u64 = 1024;
    const DOUBLED: u64 = 4096;
    if limit == 0 {
        return USUAL;
    }
    // What kernel and agent need themselves, and the kernel's 64 bytes for each page.
    let wanted = limit.saturating_add(64 + limit / 64);
    let size = if wanted <= DOUBLED {
        wanted.next_power_of_two()
    } else {
        wanted.checked_next_multiple_of(1024).unwrap_or(u64::MAX)
    };
    // The kernel gives no process more than there is.
    size.min(host / 1024 * 1024).max(USUAL)
}

/// The kernel to boot, with the agent.
pub(super) fn files(config: &MachineConfig) -> io::Result<Files> {
    let kernel = Kernel::find(&config.vm)?;
    let (initramfs, _) = kernel.initramfs(&config.vm, &config.agent)?;
    Ok(Files { vmlinux: kernel.vmlinux, initramfs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_machines_are_few_and_large_enough() {
        let host = 24_000;
        for (limit, size) in [(0, 1024), (64, 1024), (1024, 2048), (3072, 4096), (8192, 9216)] {
            assert_eq!(sized(limit, host), size, "{limit}");
        }
        // More than the host has is a limit that is never met, as under dockerd.
        assert_eq!(sized(64 << 10, host), 23 << 10);
        assert_eq!(sized(u64::MAX, host), 23 << 10);
    }
}
