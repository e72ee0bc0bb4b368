//! Starts a container: the supervisor's half and the first process's half.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Ns};
use rustix::fs::{Mode, OFlags};
use silo_sys::mount::{self, IdMap};
use silo_sys::process::{self, Fork};

use crate::bundle::{Bundle, invalid};
use crate::cgroup::Cgroup;
use crate::finish::{self, Passed, Stdio};
use crate::mounts::{self, Prepared};
use crate::protocol::Failure;
use crate::report::{self, Report, START_LIMIT, failure};
use crate::seccomp::{self, Filter};
use crate::waiting::Waiting;

/// A container's first process, running its program.
#[derive(Debug)]
pub struct Started {
    /// Host pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, if one was asked for.
    pub terminal: Option<OwnedFd>,
    /// Where the process tells its 32-bit exit code (4 bytes, little-endian), if the bundle asks for that.
    pub status: Option<OwnedFd>,
    /// Of a process that waits to be told what to run, if the bundle says that it does.
    pub waiting: Option<Waiting>,
}

/// Makes the calling process fit to supervise one container: mounts of its own, orphans become its children.
///
/// What is mounted below `others` is not its own to keep: copies of those mounts go, so that their end is not put off.
pub fn become_supervisor(others: &Path) -> io::Result<()> {
    mount::unshare(libc::CLONE_NEWNS)?;
    mount::make_all_slave()?;
    if !others.as_os_str().is_empty() {
        silo_sys::mount_words::detach_below(others)?;
    }
    process::become_subreaper()
}

/// Runs the bundle. Returns when its program runs, or with the reason why it does not; nothing of it is left then
/// but the cgroup, which the caller destroys.
pub fn start(bundle: &Bundle, cgroup: &Cgroup, stdio: Stdio) -> Result<Started, Failure> {
    let linux = bundle.linux().map_err(failure)?;
    let filter = seccomp::of(bundle)?;
    cgroup.create(linux.resources().as_ref()).map_err(failure)?;
    spawn(bundle, cgroup, stdio, filter.as_deref()).map_err(|e| match e.downcast::<Failure>() {
        Ok(f) => f,
        Err(e) => failure(e),
    })
}

fn spawn(bundle: &Bundle, cgroup: &Cgroup, stdio: Stdio, filter: Option<&Filter>) -> io::Result<Started> {
    let mut flags = libc::CLONE_NEWNS;
    let mut join = Vec::new();
    for (kind, flag) in [
        (Ns::Network, libc::CLONE_NEWNET),
        (Ns::Pid, libc::CLONE_NEWPID),
        (Ns::Ipc, libc::CLONE_NEWIPC),
        (Ns::Uts, libc::CLONE_NEWUTS),
        (Ns::User, libc::CLONE_NEWUSER),
    ] {
        match bundle.namespace(kind) {
            Some(None) => flags |= flag,
            Some(Some(path)) => {
                let fd =
                    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
                        io::Error::new(
                            io::Error::from(e).kind(),
                            format!("namespace {}: {e}", path.display()),
                        )
                    })?;
                match kind {
                    // Before the fork: entering them needs the supervisor's rights, and a pid namespace is for children.
                    Ns::Network | Ns::Pid => mount::setns(&fd, flag)?,
                    _ => join.push((fd, flag)),
                }
            }
            None => {}
        }
    }
    let prepared = mounts::prepare(bundle)?;
    let (ours, theirs) = report::channel()?;
    let (status_reader, status_writer) = match bundle.wants_status_pipe() {
        true => {
            let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            (Some(r), Some(report::out_of_the_way(w)?))
        }
        false => (None, None),
    };
    let (waiting, wait) = match bundle.waits() {
        true => {
            let (ours, theirs) = Waiting::pair()?;
            (Some(ours), Some(theirs))
        }
        false => (None, None),
    };
    let passed = Passed { status: status_writer, wait };
    let entry = cgroup.entry()?;
    // SAFETY: a supervisor is single-threaded (lib.rs says so to its callers).
    match unsafe { process::clone3(flags, entry.as_ref()) }? {
        Fork::Child => {
            drop((ours, waiting));
            let failed = first_process(bundle, prepared, join, &theirs, &stdio, filter, passed);
            report::send(&theirs, &Report::Failed(failed), &[]);
            process::exit_now(1)
        }
        Fork::Parent { pid, pidfd } => {
            drop((theirs, prepared, stdio, passed, join));
            let placed = if entry.is_some() { Ok(()) } else { cgroup.add(pid) };
            let result = placed.and_then(|()| supervise_start(bundle, pid, &ours));
            match result {
                Ok(terminal) => Ok(Started { pid, pidfd, terminal, status: status_reader, waiting }),
                Err(e) => {
                    let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
                    let _ = process::wait(pid);
                    Err(e)
                }
            }
        }
    }
}

fn supervise_start(bundle: &Bundle, pid: i32, channel: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if bundle.namespace(Ns::User).is_some() {
        let maps = |m: &Option<Vec<LinuxIdMapping>>| -> Vec<IdMap> {
            m.iter()
                .flatten()
                .map(|m| IdMap { inside: m.container_id(), outside: m.host_id(), size: m.size() })
                .collect()
        };
        let linux = bundle.linux()?;
        mount::write_id_maps(pid, &maps(linux.uid_mappings()), &maps(linux.gid_mappings()))?;
    }
    rustix::io::write(channel, b"go")?;
    follow(channel)
}

/// Reads reports until the program runs.
pub(crate) fn follow(channel: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let until = Instant::now() + START_LIMIT;
    let mut terminal = None;
    while let Some((report, mut fds)) = report::receive(channel, until)? {
        match report {
            Report::Terminal => terminal = fds.pop(),
            Report::Pid(_) => return Err(invalid("an unexpected report")),
            Report::Failed(f) => return Err(io::Error::other(f)),
        }
    }
    Ok(terminal)
}

/// Waits until the supervisor has placed the process.
pub(crate) fn await_go(channel: &OwnedFd) -> io::Result<()> {
    let mut word = [0u8; 2];
    match rustix::io::read(channel, &mut word[..]) {
        Ok(2) => Ok(()),
        Ok(_) => Err(io::Error::other("the supervisor is gone")),
        Err(e) => Err(e.into()),
    }
}

fn first_process(
    bundle: &Bundle,
    prepared: Prepared,
    join: Vec<(OwnedFd, i32)>,
    channel: &OwnedFd,
    stdio: &Stdio,
    filter: Option<&Filter>,
    passed: Passed,
) -> Failure {
    let steps = || -> io::Result<()> {
        // Dies with its supervisor until the program runs.
        process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
        await_go(channel)?;
        for (fd, flag) in &join {
            mount::setns(fd.as_fd(), *flag)?;
        }
        let userns = bundle.namespace(Ns::User).is_some();
        if userns {
            process::set_ids(0, 0, &[])?;
        }
        if bundle.namespace(Ns::Cgroup).is_some() {
            mount::unshare(libc::CLONE_NEWCGROUP)?;
        }
        if bundle.namespace(Ns::Uts).is_some() {
            if let Some(name) = bundle.spec.hostname() {
                rustix::system::sethostname(name.as_bytes())?;
            }
            if let Some(name) = bundle.spec.domainname() {
                rustix::system::setdomainname(name.as_bytes())?;
            }
        }
        rustix::process::umask(Mode::empty());
        prepared.enter(bundle, !userns, || sysctls(bundle))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let process = bundle.process()?;
        if !process.cwd().exists() {
            std::fs::create_dir_all(process.cwd()).map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("making the working directory {}: {e}", process.cwd().display()),
                )
            })?;
        }
        finish::streams(stdio, channel, process.user().uid())?;
        process::prctl(libc::PR_SET_PDEATHSIG, 0)
    };
    if let Err(e) = steps() {
        return failure(e);
    }
    match bundle.process() {
        Ok(process) => finish::become_program(process, filter, passed),
        Err(e) => failure(e),
    }
}

fn sysctls(bundle: &Bundle) -> io::Result<()> {
    for (name, value) in bundle.linux()?.sysctl().iter().flatten() {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let file = rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(|f| rustix::io::write(&f, value.as_bytes())).map_err(|e| {
            io::Error::new(io::Error::from(e).kind(), format!("setting sysctl {name}={value}: {e}"))
        })?;
    }
    Ok(())
}

/// The exit code that a process told through its status pipe; `None`: it told nothing.
pub fn told_status(pipe: OwnedFd) -> Option<u32> {
    let _ = rustix::io::ioctl_fionbio(&pipe, true);
    let mut code = [0u8; 4];
    std::fs::File::from(pipe).read_exact(&mut code).ok()?;
    Some(u32::from_le_bytes(code))
}
