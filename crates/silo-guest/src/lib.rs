//! Axis 1: what a container's inside is made of. Turns image + container config into an OCI bundle.
//!
//! Owns: [`Os`], [`Bundle`], the Linux and the Windows guest, Windows bases.
//! Must not know: isolation, sandboxes, images' storage, the engine.

mod contract;
pub mod inside;
pub mod linux;
pub mod windows;

pub use contract::*;

/// Every guest.
pub fn all() -> [&'static dyn Guest; 2] {
    [&linux::LinuxGuest, &windows::WindowsGuest]
}

/// The guest of an OS.
pub fn of(os: Os) -> Option<&'static dyn Guest> {
    match os {
        Os::Linux => Some(&linux::LinuxGuest),
        Os::Windows => Some(&windows::WindowsGuest),
    }
}
