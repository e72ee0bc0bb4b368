//! Memory and processors as the container has them.

use core::ffi::{c_int, c_long};

use crate::system;

const SYSINFO: usize = 99;
const SET_AFFINITY: usize = 203;
const GET_AFFINITY: usize = 204;
/// `_SC_NPROCESSORS_CONF`, `_SC_NPROCESSORS_ONLN`, `_SC_PHYS_PAGES`, `_SC_AVPHYS_PAGES` of glibc.
const PROCESSORS: core::ops::RangeInclusive<c_int> = 83..=84;
const PAGES: core::ops::RangeInclusive<c_int> = 85..=86;
const PAGE: u64 = 4096;
const ENOMEM: isize = 12;

/// The beginning of `struct sysinfo`.
#[repr(C)]
pub struct SystemInformation {
    uptime: c_long,
    loads: [u64; 3],
    total_memory: u64,
    free_memory: u64,
    shared_memory: u64,
    buffer_memory: u64,
    total_swap: u64,
    free_swap: u64,
    processes: u16,
    padding: u16,
    total_high: u64,
    free_high: u64,
    unit: u32,
}

/// One `name number` a line, by the host side (`crates/silo-guest/src/windows/limits.rs`). Read at each question, as it
/// may be another at any time.
const LIMITS: &core::ffi::CStr = c"/sys/silo/limits";

fn limit(name: &[u8]) -> Option<u64> {
    let mut text = [0u8; 256];
    system::read(LIMITS, &mut text)?.split(|byte| *byte == b'\n').find_map(|line| {
        let digits = line.strip_prefix(name)?.strip_prefix(b" ")?;
        system::number(digits).filter(|number| *number > 0)
    })
}

fn memory() -> Option<u64> {
    limit(b"memory")
}

fn processors() -> Option<u64> {
    limit(b"processors")
}

/// How many processors the kernel has for the container, told by what its first process may use; a program may have
/// restricted itself.
fn kernels() -> Option<u64> {
    let mut mask = [0u64; 16];
    // SAFETY: the buffer is as long as said.
    let result =
        unsafe { system::call(GET_AFFINITY, [1, size_of_val(&mask), mask.as_mut_ptr() as usize, 0]) };
    let count = mask.iter().map(|word| u64::from(word.count_ones())).sum();
    Some(count).filter(|count| result > 0 && *count > 0)
}

/// See sysinfo(2).
///
/// # Safety
/// As sysinfo(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysinfo(information: *mut SystemInformation) -> c_int {
    // SAFETY: the caller's structure.
    let result = unsafe { system::call(SYSINFO, [information as usize, 0, 0, 0]) };
    if let (0, Some(limit)) = (result, memory()) {
        // SAFETY: the kernel has just filled it.
        let information = unsafe { &mut *information };
        let unit = u64::from(information.unit.max(1));
        let limit = limit / unit;
        information.total_memory = information.total_memory.min(limit);
        information.free_memory = information.free_memory.min(limit);
        information.buffer_memory = information.buffer_memory.min(limit);
        information.total_swap = 0;
        information.free_swap = 0;
    }
    system::as_c(result) as c_int
}

/// See sysconf(3).
///
/// # Safety
/// As sysconf(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysconf(name: c_int) -> c_long {
    let function = system::next(c"sysconf");
    if function.is_null() {
        return -1;
    }
    // SAFETY: the C library's function of that name has this type.
    let value = unsafe { core::mem::transmute::<*mut core::ffi::c_void, system::Sysconf>(function)(name) };
    let limit = match name {
        // What is shown of `/sys` may be more than a machine of the container's own has.
        _ if PROCESSORS.contains(&name) => kernels().into_iter().chain(processors()).min(),
        _ if PAGES.contains(&name) => memory().map(|bytes| bytes / PAGE),
        _ => None,
    };
    limit.map_or(value, |limit| value.min(limit as c_long))
}

/// See sched_getaffinity(2): as many processors as the container has, counted from the first.
///
/// # Safety
/// As sched_getaffinity(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getaffinity(pid: c_int, size: usize, mask: *mut u8) -> c_int {
    // SAFETY: the caller's buffer.
    let result = unsafe { system::call(GET_AFFINITY, [pid as usize, size, mask as usize, 0]) };
    if result < 0 {
        return system::as_c(result) as c_int;
    }
    // SAFETY: the buffer has `size` bytes; the kernel filled the first `result`, the rest is cleared as glibc does.
    let bytes = unsafe { core::slice::from_raw_parts_mut(mask, size) };
    bytes[result as usize..].fill(0);
    if let Some(count) = processors() {
        let set: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        let count = count.min(u64::from(set)) as usize;
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..8).filter(|bit| i * 8 + bit < count).fold(0, |byte, bit| byte | 1 << bit);
        }
    }
    0
}

/// See sched_setaffinity(2). Processors that a container counts are not the host's; a program may choose among them,
/// and the kernel places it on any of those that the container may use.
///
/// # Safety
/// As sched_setaffinity(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_setaffinity(pid: c_int, size: usize, mask: *const u8) -> c_int {
    if processors().is_some() {
        return if mask.is_null() { system::as_c(-ENOMEM) as c_int } else { 0 };
    }
    // SAFETY: the caller's buffer.
    system::as_c(unsafe { system::call(SET_AFFINITY, [pid as usize, size, mask as usize, 0]) }) as c_int
}
