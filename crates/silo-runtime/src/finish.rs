//! The last steps before the program: terminal, limits, seccomp, ids, capabilities, working directory, exec.
//! The same for a container's first process and for an exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{PosixRlimitType, Process};
use rustix::fs::{Mode, OFlags};
use silo_sys::process::{self, CapabilitySets};

use crate::bundle::{STATUS_FD_VARIABLE, WAIT_FD_VARIABLE};
use crate::caps::Sets;
use crate::protocol::{Failure, FailureKind};
use crate::report::{self, Report, failure};
use crate::seccomp::Filter;

/// Standard streams of a process to be.
#[derive(Debug)]
pub enum Stdio {
    /// Three pipes (or files).
    Pipes {
        /// 0.
        stdin: OwnedFd,
        /// 1.
        stdout: OwnedFd,
        /// 2.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own; its master comes back.
    Terminal {
        /// Rows and columns; (0, 0): the kernel's.
        size: (u16, u16),
    },
}

/// Number of the status pipe in the new process.
const STATUS_FD: i32 = 3;
/// Number of the socket on which it waits.
const WAIT_FD: i32 = 4;

/// Descriptors that a process has beside its streams.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// For its exit code.
    pub(crate) status: Option<OwnedFd>,
    /// Where it waits to be told what to run.
    pub(crate) wait: Option<OwnedFd>,
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Connects the streams; `report` carries a terminal's master to the supervisor.
pub(crate) fn streams(stdio: &Stdio, channel: &OwnedFd, uid: u32) -> io::Result<()> {
    match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => {
            // A session of its own, so that the host's terminal is out of reach.
            rustix::process::setsid()?;
            process::duplicate_onto(stdin, 0)?;
            process::duplicate_onto(stdout, 1)?;
            process::duplicate_onto(stderr, 2)
        }
        Stdio::Terminal { size } => {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())
                .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("opening /dev/ptmx: {e}")))?;
            rustix::pty::unlockpt(&master)?;
            let name = rustix::pty::ptsname(&master, Vec::new())?;
            let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
            if *size != (0, 0) {
                set_window_size(&master, size.0, size.1)?;
            }
            let _ = rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None);
            report::send(channel, &Report::Terminal, &[master.as_fd()]);
            process::take_terminal(&slave)?;
            (0..3).try_for_each(|n| process::duplicate_onto(&slave, n))?;
            console(&name)
        }
    }
}

/// `/dev/console` is the terminal, where there is a place for it.
fn console(name: &std::ffi::CStr) -> io::Result<()> {
    let path = Path::new("/dev/console");
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        return Ok(());
    }
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(file) = rustix::fs::open(path, flags, Mode::from_raw_mode(0o620)) else { return Ok(()) };
    drop(file);
    let source = Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or("/dev/tty")));
    let mount = silo_sys::mount::clone_tree(source, false)?;
    silo_sys::mount::attach(&mount, rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Sets the size of a terminal.
pub fn set_window_size(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Becomes the program. Returns only on failure.
pub(crate) fn become_program(process: &Process, filter: Option<&Filter>, passed: Passed) -> Failure {
    match prepare(process, filter, passed) {
        Ok((program, args, env)) => {
            let error = process::exec(program.as_os_str(), &args, &env);
            exec_failure(
                &process.args().as_ref().and_then(|a| a.first()).cloned().unwrap_or_default(),
                &error,
            )
        }
        Err(f) => f,
    }
}

type Program = (PathBuf, Vec<CString>, Vec<CString>);

fn prepare(process: &Process, filter: Option<&Filter>, passed: Passed) -> Result<Program, Failure> {
    let Passed { status, wait } = passed;
    let args = process.args().as_deref().unwrap_or(&[]);
    let name =
        args.first().ok_or_else(|| Failure { kind: FailureKind::Invalid, message: "no command".into() })?;
    let mut env: Vec<String> = process.env().clone().unwrap_or_default();
    (|| -> io::Result<()> {
        limits(process)?;
        if let Some(score) = process.oom_score_adj() {
            // Lowering it needs CAP_SYS_RESOURCE, which a restricted host may not give: then it stays.
            let file =
                rustix::fs::open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            if let Ok(file) = file {
                let _ = rustix::io::write(&file, score.to_string().as_bytes());
            }
        }
        if process.no_new_privileges() == Some(true) {
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        }
        for (fd, number, variable) in
            [(&status, STATUS_FD, STATUS_FD_VARIABLE), (&wait, WAIT_FD, WAIT_FD_VARIABLE)]
        {
            if let Some(fd) = fd {
                process::duplicate_onto(fd, number)?;
                env.push(format!("{variable}={number}"));
            }
        }
        let cwd = process.cwd();
        // The working directory is entered with root's rights, as runc does it, and again with the user's below.
        let _ = rustix::process::chdir(cwd);
        credentials(process, filter)?;
        rustix::process::chdir(cwd).map_err(|e| {
            io::Error::new(
                io::Error::from(e).kind(),
                format!("chdir to cwd ({:?}) set in config.json failed: {e}", cwd.display()),
            )
        })?;
        rustix::process::umask(Mode::from_raw_mode(process.user().umask().unwrap_or(0o022)));
        Ok(())
    })()
    .map_err(failure)?;
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(process.user().uid())));
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let program = find(name, path)?;
    let strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
        list.iter()
            .map(|s| {
                CString::new(s.as_str()).map_err(|e| failure(io::Error::new(io::ErrorKind::InvalidInput, e)))
            })
            .collect()
    };
    let (args, env) = (strings(args)?, strings(&env)?);
    let passed = if wait.is_some() { WAIT_FD + 1 } else { STATUS_FD + i32::from(status.is_some()) };
    process::close_on_exec_from(passed as u32).map_err(failure)?;
    process::reset_signals();
    Ok((program, args, env))
}

fn credentials(process: &Process, filter: Option<&Filter>) -> io::Result<()> {
    // The host may lack capabilities itself; nobody can be given what the supervisor has not.
    let own = process::capabilities()?;
    let sets = Sets::of(process.capabilities().as_ref()).within(own.permitted);
    for number in 0..64 {
        if sets.bounding & 1 << number == 0 {
            process::drop_bounding(number)?;
        }
    }
    let user = process.user();
    process::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    // Installed while CAP_SYS_ADMIN is still there unless no_new_privs makes it possible at any time.
    let late = process.no_new_privileges() == Some(true);
    if let (Some(filter), false) = (filter, late) {
        process::set_seccomp_filter(&filter.program, filter.flags)?;
    }
    let groups: Vec<u32> = user.additional_gids().clone().unwrap_or_default();
    process::set_ids(user.uid(), user.gid(), &groups)?;
    process::set_capabilities(CapabilitySets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
    })?;
    for number in 0..64 {
        if sets.ambient & 1 << number != 0 {
            process::raise_ambient(number)?;
        }
    }
    if let (Some(filter), true) = (filter, late) {
        process::set_seccomp_filter(&filter.program, filter.flags)?;
    }
    Ok(())
}

fn limits(process: &Process) -> io::Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let resource = rlimit_number(limit.typ());
        let set = |soft: u64, hard: u64| -> io::Result<()> {
            let value = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            // SAFETY: the structure lives through the call.
            if unsafe { libc::setrlimit(resource, &raw const value) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        match set(limit.soft(), limit.hard()) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                // No CAP_SYS_RESOURCE here: what may not be raised stays at the ceiling that there is.
                let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: the structure lives through the call.
                if unsafe { libc::getrlimit(resource, &raw mut now) } < 0 {
                    return Err(io::Error::last_os_error());
                }
                set(limit.soft().min(now.rlim_max), limit.hard().min(now.rlim_max))?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn rlimit_number(kind: PosixRlimitType) -> libc::__rlimit_resource_t {
    use PosixRlimitType as T;
    match kind {
        T::RlimitAs => libc::RLIMIT_AS,
        T::RlimitCore => libc::RLIMIT_CORE,
        T::RlimitCpu => libc::RLIMIT_CPU,
        T::RlimitData => libc::RLIMIT_DATA,
        T::RlimitFsize => libc::RLIMIT_FSIZE,
        T::RlimitLocks => libc::RLIMIT_LOCKS,
        T::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        T::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        T::RlimitNice => libc::RLIMIT_NICE,
        T::RlimitNofile => libc::RLIMIT_NOFILE,
        T::RlimitNproc => libc::RLIMIT_NPROC,
        T::RlimitRss => libc::RLIMIT_RSS,
        T::RlimitRtprio => libc::RLIMIT_RTPRIO,
        T::RlimitRttime => libc::RLIMIT_RTTIME,
        T::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        T::RlimitStack => libc::RLIMIT_STACK,
    }
}

/// Home directory of a user by `/etc/passwd` of the container; `/` when it does not say.
fn home(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 6 && f[2].parse() == Ok(uid))
        .map(|f| f[5].to_owned())
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| "/".into())
}

/// The program's path: as it is with a slash in it, else the first executable of that name in `PATH`.
fn find(name: &str, path: &str) -> Result<PathBuf, Failure> {
    let executable = |p: &Path| -> io::Result<()> {
        let stat = rustix::fs::stat(p)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        Ok(rustix::fs::access(p, rustix::fs::Access::EXEC_OK)?)
    };
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(e) => Err(exec_failure(name, &e)),
        };
    }
    let mut denied = None;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(e) => exec_failure(name, &e),
        None => Failure {
            kind: FailureKind::ProgramNotFound,
            message: format!("exec: {name:?}: executable file not found in $PATH"),
        },
    })
}

/// In the words that the docker client knows its exit codes 126 and 127 by.
fn exec_failure(name: &str, error: &io::Error) -> Failure {
    let (kind, why) = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            (FailureKind::ProgramNotFound, format!("stat {name}: no such file or directory"))
        }
        Some(libc::EACCES) => (FailureKind::ProgramNotExecutable, "permission denied".into()),
        Some(libc::EISDIR) => (FailureKind::ProgramNotExecutable, "is a directory: permission denied".into()),
        Some(libc::ENOEXEC) => (FailureKind::ProgramNotExecutable, "exec format error".into()),
        _ => (FailureKind::ProgramNotExecutable, error.to_string()),
    };
    Failure { kind, message: format!("exec: {name:?}: {why}") }
}
