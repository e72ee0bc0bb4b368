//! Processes: clone3, pidfd, waiting, and the few prctl-like calls a container start needs.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// linux/sched.h; the libc constant of that name is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: i32,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
}

/// clone3(2) without shared memory. `flags` are `CLONE_NEW*` and `CLONE_PARENT`; `cgroup` (v2) is where it starts.
///
/// # Safety
/// The calling process must be single-threaded: the child goes on with a copy of all locks as they are.
pub unsafe fn clone3(flags: i32, cgroup: Option<&OwnedFd>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((flags | libc::CLONE_PIDFD) as u32);
    args.pidfd = &raw mut pidfd as u64;
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the structure outlives the call and no stack is given: fork semantics; single-threaded by contract.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel just made this descriptor for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Ends the calling process at once, running no destructors: for a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// A pidfd of a process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the returned descriptor is owned by nobody else.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process behind a pidfd; ESRCH when it has ended.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor lives through the call; a null siginfo means "as kill(2)".
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<()>(),
            0,
        )
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// `exit(code)`, 0–255.
    Exited(i32),
    /// A signal.
    Signaled(i32),
}

impl Wait {
    /// As a shell and Docker number it: 128 + signal.
    pub fn code(self) -> u32 {
        match self {
            Wait::Exited(code) => code as u32,
            Wait::Signaled(signal) => 128 + signal as u32,
        }
    }
}

/// Reaps one ended child, if there is one, without waiting.
pub fn reap() -> Option<(i32, Wait)> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then(|| (pid, decode(status)))
}

/// Waits for one child.
pub fn wait(pid: i32) -> io::Result<Wait> {
    let mut status = 0;
    loop {
        // SAFETY: the status outlives the call.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } >= 0 {
            return Ok(decode(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn decode(status: i32) -> Wait {
    if libc::WIFSIGNALED(status) {
        Wait::Signaled(libc::WTERMSIG(status))
    } else {
        Wait::Exited(libc::WEXITSTATUS(status))
    }
}

/// Orphans below this process become its children (`PR_SET_CHILD_SUBREAPER`).
pub fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// prctl(2) with one number.
pub fn prctl(option: i32, value: u64) -> io::Result<()> {
    // SAFETY: the options used here take numbers only.
    if unsafe { libc::prctl(option, value, 0, 0, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces the process image. Returns only on failure.
pub fn exec(path: &OsStr, args: &[CString], env: &[CString]) -> io::Error {
    let Ok(path) = CString::new(path.as_bytes()) else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: NUL-terminated strings in null-terminated arrays that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Unblocks all signals and gives each its default action: what a new program expects.
pub fn reset_signals() {
    // SAFETY: valid signal numbers or harmless EINVAL; sets live through the calls.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks the signals and returns a non-blocking descriptor that becomes readable when one is pending.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set lives through the calls; the returned descriptor is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Takes one pending signal from a [`signal_fd`].
pub fn take_signal(fd: impl AsFd) -> Option<i32> {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
    let n = rustix::io::read(fd, &mut buffer).ok()?;
    (n == buffer.len()).then(|| i32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]))
}

/// Duplicates `fd` onto the number `target` (0, 1, 2…) without close-on-exec.
pub fn duplicate_onto(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: numbers only; when both are equal the flag is cleared instead.
    let r = unsafe { if fd == target { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, target) } };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from `first` up as close-on-exec, so that a program started next inherits only the lower ones.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: numbers only (Linux 5.11).
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor of the process but those in `keep`.
///
/// # Safety
/// Nothing in this process may own or use any other descriptor afterwards: for a forked child.
pub unsafe fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|&fd| fd as u32).collect();
    keep.sort_unstable();
    let mut from = 0u32;
    for fd in keep.into_iter().map(Some).chain([None]) {
        let until = fd.map_or(Some(u32::MAX), |fd| fd.checked_sub(1));
        if let Some(until) = until.filter(|&until| from <= until) {
            // SAFETY: numbers only (Linux 5.9); nobody owns them by contract.
            if unsafe { libc::syscall(libc::SYS_close_range, from, until, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = fd.map_or(u32::MAX, |fd| fd + 1);
    }
    Ok(())
}

/// Takes ownership of a descriptor that this process was started with.
///
/// # Safety
/// The number must be open and owned by nobody else in this process.
pub unsafe fn inherit_fd(number: RawFd) -> OwnedFd {
    // SAFETY: by contract.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
    fd
}

/// Sets the real, effective and saved ids and the supplementary groups of the (single) thread: groups, gid, uid in this order.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let check = |r: i64| if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: the array lives through the call; raw system calls, since glibc's would signal other threads.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// Capability sets by bit (linux/capability.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capset(2) of the calling thread.
pub fn set_capabilities(sets: CapabilitySets) -> io::Result<()> {
    // _LINUX_CAPABILITY_VERSION_3: two 32-bit halves.
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data live through the call and have the layout of version 3.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// capget(2) of the calling thread.
pub fn capabilities() -> io::Result<CapabilitySets> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and data live through the call and have the layout of version 3.
    let r = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |f: fn(&CapData) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(CapabilitySets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// Removes a capability from the bounding set; no error where the kernel does not know the number.
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    match prctl(libc::PR_CAPBSET_DROP, u64::from(capability)) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

/// Adds a capability to the ambient set.
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    // SAFETY: numbers only.
    let r =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, u64::from(capability), 0, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One classic BPF instruction, as `struct sock_filter` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// seccomp(2), `SECCOMP_SET_MODE_FILTER`. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
pub fn set_seccomp_filter(program: &[BpfInstruction], flags: u32) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const BpfInstruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "seccomp filter of more than 65535 instructions")
    })?;
    let arguments = Program { len, filter: program.as_ptr() };
    // SAFETY: the program lives through the call; the kernel copies and verifies it.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, 1, flags, &raw const arguments) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the terminal `fd` (a pty's slave) the controlling one of a new session.
pub fn take_terminal(fd: impl AsFd) -> io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: number only.
    if unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The soft limit of open files that this process was started with, once it was raised.
static OPEN_FILES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

/// Raises the soft limit of open files of this process to its hard one (`RLIMIT_NOFILE`, getrlimit(2)).
pub fn raise_open_files() {
    let is = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(soft) = is.current
        && set_open_files(is.maximum).is_ok()
    {
        let _ = OPEN_FILES.set(soft);
    }
}

/// What it was before [`raise_open_files`], for processes that have not asked for more; 0: it was not raised.
pub fn open_files_before() -> u64 {
    OPEN_FILES.get().copied().unwrap_or(0)
}

/// Sets the soft limit of open files of this process, at most to its hard one; `None`: no limit.
pub fn set_open_files(soft: Option<u64>) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: soft, maximum })?)
}

/// Returns freed memory to the kernel that the C library's allocator keeps for later (malloc_trim(3)).
pub fn give_memory_back() {
    // SAFETY: a number only; the allocator takes its own locks.
    unsafe { libc::malloc_trim(0) };
}
