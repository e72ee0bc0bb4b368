//! Holds a program that opens a driver's device until the drivers are there, and one that asks the service manager
//! until the services are.
//!
//! A guest's programs start while Wine's service manager still starts the drivers (volumes, network). A program that
//! opens one too early would be told that there is none; on Windows it could not have run yet. Wine's programs open
//! devices by a request to Wine's server, a `writev` whose data is the device's name: here that call is held back. The
//! driver host itself is recognised by its program name; the next request of the thread that has linked the last device's
//! name shows that the link stands, and then a file tells everybody. The service manager is a pipe by name; services
//! themselves pass, by a variable that the service manager gives what it starts, and `inside/windows/cexecsvc` tells
//! everybody else when it runs.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicIsize, AtomicU8, Ordering};

use crate::system::{self, CLOSE, CLOSE_ON_EXEC, OPEN, READ};

const WRITE: usize = 1;
const POLL: usize = 7;
const WRITEV: usize = 20;
const ACCESS: usize = 21;
const EXECVE: usize = 59;
const GETTID: usize = 186;
const INOTIFY_WATCH: usize = 254;
const INOTIFY: usize = 294;
const CREATED: usize = 0x100;
const CREATE: usize = 0o101;
/// Only a guest without its drivers gets here, and then programs find out by themselves.
const PATIENCE_MILLISECONDS: usize = 10_000;

const DIRECTORY: &core::ffi::CStr = c"/run/silo";
const READY: &core::ffi::CStr = c"/run/silo/drivers";
const SERVICES_READY: &core::ffi::CStr = c"/run/silo/services";

/// Ends of device names, compared without case.
const VOLUMES: &[u8] = b"\\mountpointmanager";
const NETWORK: &[u8] = b"\\nsi";
/// What programs open of it; the device itself is made a moment before.
const NETWORK_LINK: &[u8] = b"\\??\\nsi";
/// The service manager's pipe, its program, and the variable that what it starts has.
const MANAGER: &[u8] = b"\\svcctl";
const MANAGER_PROGRAM: &[u8] = b"services.exe";
const OF_MANAGER: &core::ffi::CStr = c"SILO_SERVICE";
/// Programs that bring the drivers up.
const STARTERS: [&[u8]; 2] = [b"services.exe", b"wineboot.exe"];
const HOST: &[u8] = b"winedevice.exe";

unsafe extern "C" {
    static environ: *const *const c_char;
    fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
}

/// One buffer of writev(2).
#[repr(C)]
pub struct Part {
    start: *const u8,
    length: usize,
}

/// What this process has to do with drivers.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
/// Opens need not be looked at (any more).
const FREE: u8 = 1;
/// This is the driver host.
const HOSTING: u8 = 2;
/// A thread of it, [`LINKER`], has asked for the last device's link.
const LINKED: u8 = 3;
static LINKER: AtomicIsize = AtomicIsize::new(0);

/// Whether opens of the service manager's pipe need not be looked at (any more): 1.
static SERVICES: AtomicU8 = AtomicU8::new(UNKNOWN);

/// See writev(2).
///
/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const Part, count: c_int) -> isize {
    let state = STATE.load(Ordering::Acquire);
    let services = SERVICES.load(Ordering::Relaxed);
    if (state != FREE || services != FREE) && !parts.is_null() {
        // SAFETY: the caller's parts, as the kernel would read them.
        let parts = unsafe { core::slice::from_raw_parts(parts, count.max(0) as usize) };
        if state != FREE {
            // SAFETY: as above.
            unsafe { consider(state, parts) };
        }
        if services != FREE {
            // SAFETY: as above.
            unsafe { consider_services(parts) };
        }
    }
    // SAFETY: the caller's arguments.
    system::as_c(unsafe { system::call(WRITEV, [fd as usize, parts as usize, count as usize, 0]) })
}

/// See write(2).
///
/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, start: *const c_void, length: usize) -> isize {
    if STATE.load(Ordering::Acquire) == LINKED {
        tell();
    }
    // SAFETY: the caller's buffer.
    if fd == 2 && unsafe { is_wines(core::slice::from_raw_parts(start.cast(), length)) } {
        return length as isize;
    }
    // SAFETY: the caller's arguments.
    system::as_c(unsafe { system::call(WRITE, [fd as usize, start as usize, length, 0]) })
}

/// Whether Wine itself speaks of a crash: Windows says nothing on the program's standard error. A program's own words
/// take another way (a Windows handle), on another descriptor.
fn is_wines(text: &[u8]) -> bool {
    text.starts_with(b"wine: Unhandled ") || text.starts_with(b"wine: Unimplemented ")
}

unsafe fn consider(state: u8, parts: &[Part]) {
    if state == LINKED {
        return tell();
    }
    let mut volumes = false;
    let mut network = false;
    let mut linked = false;
    for part in parts.iter().skip(1) {
        if part.start.is_null() || part.length > 1024 {
            continue;
        }
        // SAFETY: the caller's buffer.
        let bytes = unsafe { core::slice::from_raw_parts(part.start, part.length) };
        volumes |= names(bytes, VOLUMES);
        network |= names(bytes, NETWORK);
        linked |= names(bytes, NETWORK_LINK);
    }
    if !(volumes || network) {
        return;
    }
    let state = if state == UNKNOWN { role() } else { state };
    match state {
        HOSTING if linked => {
            LINKER.store(thread(), Ordering::Relaxed);
            STATE.store(LINKED, Ordering::Release);
        }
        HOSTING => STATE.store(HOSTING, Ordering::Relaxed),
        FREE => STATE.store(FREE, Ordering::Relaxed),
        _ => {
            wait(READY);
            STATE.store(FREE, Ordering::Relaxed);
        }
    }
}

/// See execv(3). Wine's way to start a process.
///
/// # Safety
/// As execv(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int {
    // SAFETY: texts are terminated; the caller's arguments; the environment as it stands.
    unsafe {
        if command_line_holds(&[MANAGER_PROGRAM]) {
            setenv(OF_MANAGER.as_ptr(), c"1".as_ptr(), 1);
        }
        system::as_c(system::call(EXECVE, [path as usize, arguments as usize, environ as usize, 0])) as c_int
    }
}

unsafe fn consider_services(parts: &[Part]) {
    for part in parts.iter().skip(1) {
        if part.start.is_null() || part.length > 1024 {
            continue;
        }
        // SAFETY: the caller's buffer.
        let bytes = unsafe { core::slice::from_raw_parts(part.start, part.length) };
        if names(bytes, MANAGER) {
            if role() == UNKNOWN && !system::has_variable(OF_MANAGER) {
                wait(SERVICES_READY);
            }
            return SERVICES.store(FREE, Ordering::Relaxed);
        }
    }
}

/// Whether UTF-16 `bytes` hold `name` at the end of a path: before another path, a zero or the end.
fn names(bytes: &[u8], name: &[u8]) -> bool {
    let units = bytes.len() / 2;
    (0..(units + 1).saturating_sub(name.len())).any(|at| {
        name.iter().enumerate().all(|(i, c)| {
            let (low, high) = (bytes[(at + i) * 2], bytes[(at + i) * 2 + 1]);
            high == 0 && low.to_ascii_lowercase() == *c
        }) && bytes.get((at + name.len()) * 2).is_none_or(|next| *next == b'\\' || *next == 0)
    })
}

/// By the program's name.
fn role() -> u8 {
    if command_line_holds(&[HOST]) {
        HOSTING
    } else if command_line_holds(&STARTERS) {
        FREE
    } else {
        UNKNOWN
    }
}

/// Whether one of `names` is in this process's command line. The Linux command line of a Wine process is the Windows
/// one.
fn command_line_holds(names: &[&[u8]]) -> bool {
    let mut line = [0u8; 512];
    let Some(length) = system::read(c"/proc/self/cmdline", &mut line).map(<[u8]>::len) else {
        return false;
    };
    line.make_ascii_lowercase();
    names.iter().any(|name| line[..length].windows(name.len()).any(|window| window == *name))
}

fn thread() -> isize {
    // SAFETY: it has no arguments.
    unsafe { system::call(GETTID, [0; 4]) }
}

/// The drivers are there, if this is the thread that asked for the last link: what it asks for next, it asks after the
/// answer.
fn tell() {
    if LINKER.load(Ordering::Relaxed) != thread() {
        return;
    }
    STATE.store(FREE, Ordering::Relaxed);
    // SAFETY: the path is terminated.
    unsafe {
        let fd = system::call(OPEN, [READY.as_ptr() as usize, CREATE | CLOSE_ON_EXEC, 0o600, 0]);
        if fd >= 0 {
            system::call(CLOSE, [fd as usize, 0, 0, 0]);
        }
    }
}

fn ready(file: &core::ffi::CStr) -> bool {
    // SAFETY: the path is terminated.
    unsafe { system::call(ACCESS, [file.as_ptr() as usize, 0, 0, 0]) == 0 }
}

/// Waits until another process has made the file.
fn wait(file: &core::ffi::CStr) {
    if ready(file) {
        return;
    }
    // SAFETY: paths are terminated, structures outlive the calls.
    unsafe {
        let watch = system::call(INOTIFY, [CLOSE_ON_EXEC, 0, 0, 0]);
        if watch < 0 {
            return;
        }
        system::call(INOTIFY_WATCH, [watch as usize, DIRECTORY.as_ptr() as usize, CREATED, 0]);
        let mut events = [0u8; 4096];
        // The watch stands before the question, so that an answer in between is not lost.
        while !ready(file) {
            const READABLE: u64 = 1;
            let mut poll = watch as u64 | READABLE << 32;
            if system::call(POLL, [&raw mut poll as usize, 1, PATIENCE_MILLISECONDS, 0]) <= 0 {
                break;
            }
            system::call(READ, [watch as usize, events.as_mut_ptr() as usize, events.len(), 0]);
        }
        system::call(CLOSE, [watch as usize, 0, 0, 0]);
    }
}
