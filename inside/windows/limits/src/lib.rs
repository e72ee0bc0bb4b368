//! Loaded into every Wine process (`LD_PRELOAD`): answers the C library's questions about the machine with the
//! container's limits, and holds a program that wants a driver until the driver is there.
//!
//! Neither is a means of confinement: the cgroup limits and the kernel confines. Without the standard library, since
//! it is part of each process's start.

#![no_std]

mod drivers;
mod machine;
mod system;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    system::abort()
}
