//! Isolation `hyperv`: a bundle in a microVM with a kernel of its own. QEMU is the VMM, [`kernel`] prepares what it boots,
//! `inside/agent` is PID 1 in it and runs the bundle by `silo-runtime`, as the process driver does on the host.
//!
//! A bundle names the host's directories. [`bundle`] finds out what each is: read-only layers become disk images made once
//! ([`disks`]), the writable top a scratch disk, everything else folders that the host shares ([`share`]).
//! [`machine`] is the running VM as the shim sees it; [`template`] a saved one that others are cloned from.

pub(crate) mod bundle;
mod confinement;
pub(crate) mod disks;
mod initramfs;
pub mod kernel;
pub(crate) mod limits;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod parts;
mod probe;
mod qemu;
mod qmp;
mod rehearsal;
pub mod share;
mod shares;
pub mod template;

pub use probe::host;

/// Removes from a directory of disk images those of layers that are not there any more.
pub fn forget_disks(dir: &std::path::Path) {
    disks::sweep(dir);
}
