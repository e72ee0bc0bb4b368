//! System calls and the few functions of the C library that this library stands on.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_long, c_void};

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    #[link_name = "abort"]
    fn c_abort() -> !;
}

pub(crate) const READ: usize = 0;
pub(crate) const OPEN: usize = 2;
pub(crate) const CLOSE: usize = 3;
pub(crate) const CLOSE_ON_EXEC: usize = 0o2000000;
const NEXT: *mut c_void = usize::MAX as *mut c_void;

/// One system call; a negative result is an error number.
///
/// # Safety
/// As the call demands of its arguments.
pub(crate) unsafe fn call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the x86-64 system call convention; what the call does with its arguments is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The result as the C library gives it: -1 and `errno`.
pub(crate) fn as_c(result: isize) -> isize {
    if (-4095..0).contains(&result) {
        // SAFETY: always a valid place of this thread.
        unsafe { *__errno_location() = -result as c_int };
        return -1;
    }
    result
}

/// The C library's own function of that name.
pub(crate) fn next(name: &core::ffi::CStr) -> *mut c_void {
    // SAFETY: the name is terminated.
    unsafe { dlsym(NEXT, name.as_ptr()) }
}

/// Whether the environment has a variable.
pub(crate) fn has_variable(name: &core::ffi::CStr) -> bool {
    // SAFETY: the name is terminated.
    !unsafe { getenv(name.as_ptr()) }.is_null()
}

/// A number in decimal digits.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The beginning of a file.
pub(crate) fn read<'b>(path: &core::ffi::CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    // SAFETY: the path is terminated, the buffer is as long as said.
    unsafe {
        let fd = call(OPEN, [path.as_ptr() as usize, CLOSE_ON_EXEC, 0, 0]);
        if fd < 0 {
            return None;
        }
        let length = call(READ, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0]);
        call(CLOSE, [fd as usize, 0, 0, 0]);
        usize::try_from(length).ok().and_then(|length| buffer.get(..length))
    }
}

/// Ends the process.
#[cfg_attr(test, allow(dead_code))]
pub(crate) fn abort() -> ! {
    // SAFETY: takes nothing.
    unsafe { c_abort() }
}

/// `sysconf` as the C library has it.
pub(crate) type Sysconf = unsafe extern "C" fn(c_int) -> c_long;
