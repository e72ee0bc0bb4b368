//! Runs a further process in a running container.
//!
//! An intermediate process enters the container's namespaces and forks the real one as its sibling
//! (`CLONE_PARENT`), so that the supervisor is its parent and sees its exit.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use oci_spec::runtime::{LinuxNamespaceType as Ns, Process};
use silo_sys::mount;
use silo_sys::process::{self, Fork};

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::container::{Started, await_go, follow};
use crate::finish::{self, Passed, Stdio};
use crate::protocol::Failure;
use crate::report::{self, Report, START_LIMIT, failure};
use crate::seccomp;

/// Runs `process` in the container whose first process is behind `pidfd`.
pub fn exec(
    bundle: &Bundle,
    pidfd: &OwnedFd,
    cgroup: &Cgroup,
    process: &Process,
    stdio: Stdio,
    unconfined: bool,
) -> Result<Started, Failure> {
    let filter = if unconfined { None } else { seccomp::of(bundle)? };
    run(bundle, pidfd, cgroup, process, stdio, filter.as_deref()).map_err(|e| match e.downcast::<Failure>() {
        Ok(f) => f,
        Err(e) => failure(e),
    })
}

fn run(
    bundle: &Bundle,
    container: &OwnedFd,
    cgroup: &Cgroup,
    process: &Process,
    stdio: Stdio,
    filter: Option<&seccomp::Filter>,
) -> io::Result<Started> {
    let mut namespaces = libc::CLONE_NEWNS;
    for (kind, flag) in [
        (Ns::Pid, libc::CLONE_NEWPID),
        (Ns::Ipc, libc::CLONE_NEWIPC),
        (Ns::Uts, libc::CLONE_NEWUTS),
        (Ns::User, libc::CLONE_NEWUSER),
        (Ns::Network, libc::CLONE_NEWNET),
        (Ns::Cgroup, libc::CLONE_NEWCGROUP),
    ] {
        if bundle.namespace(kind).is_some() {
            namespaces |= flag;
        }
    }
    let (ours, theirs) = report::channel()?;
    let (status_reader, status_writer) = match bundle.wants_status_pipe() {
        true => {
            let (r, w) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            (Some(r), Some(report::out_of_the_way(w)?))
        }
        false => (None, None),
    };
    // SAFETY: a supervisor is single-threaded.
    let intermediate = match unsafe { process::clone3(0, None) }? {
        Fork::Child => {
            drop(ours);
            let failed = enter(container, namespaces, &theirs).map_or_else(failure, |()| {
                if let Err(e) = finish::streams(&stdio, &theirs, process.user().uid()) {
                    return failure(e);
                }
                finish::become_program(process, filter, Passed { status: status_writer, wait: None })
            });
            report::send(&theirs, &Report::Failed(failed), &[]);
            process::exit_now(1)
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop((theirs, stdio, status_writer));
    let first = report::receive(&ours, Instant::now() + START_LIMIT);
    let _ = process::wait(intermediate);
    let pid = match first? {
        Some((Report::Pid(pid), _)) => pid,
        Some((Report::Failed(f), _)) => return Err(io::Error::other(f)),
        _ => return Err(io::Error::other("the process died before it started")),
    };
    let pidfd = process::pidfd_open(pid)?;
    let placed =
        cgroup.add(pid).and_then(|()| Ok(rustix::io::write(&ours, b"go")?)).and_then(|_| follow(&ours));
    match placed {
        Ok(terminal) => Ok(Started { pid, pidfd, terminal, status: status_reader, waiting: None }),
        Err(e) => {
            let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait(pid);
            Err(e)
        }
    }
}

/// In the intermediate: enters the namespaces and forks. Returns in the real process only.
fn enter(container: &OwnedFd, namespaces: i32, channel: &OwnedFd) -> io::Result<()> {
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    mount::setns(container, namespaces)
        .map_err(|e| io::Error::new(e.kind(), format!("entering the container's namespaces: {e}")))?;
    if namespaces & libc::CLONE_NEWUSER != 0 {
        process::set_ids(0, 0, &[])?;
    }
    // SAFETY: forked from a single-threaded process, so this one is too.
    match unsafe { process::clone3(libc::CLONE_PARENT, None) }? {
        Fork::Parent { pid, .. } => {
            report::send(channel, &Report::Pid(pid), &[]);
            process::exit_now(0)
        }
        Fork::Child => await_go(channel),
    }
}
