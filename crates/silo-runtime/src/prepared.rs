//! A container that was brought up before anybody asked for it, from its start to what becomes of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use oci_spec::runtime::LinuxNamespaceType as Ns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use silo_sys::mount;
use silo_sys::process::{self, Fork};

use crate::bundle::{Bundle, invalid};
use crate::cgroup::Cgroup;
use crate::container::{self, Started};
use crate::finish::Stdio;
use crate::mounts;
use crate::protocol::Failure;
use crate::report::{self, Report, START_LIMIT, failure};
use crate::waiting::{Further, Waiting, compare, message};

/// Seconds that it may take to end after a SIGKILL.
const END_LIMIT: i64 = 10;

/// A container whose first process waits, or is about to.
#[derive(Debug)]
pub struct Prepared {
    bundle: Bundle,
    cgroup: Cgroup,
    pid: i32,
    first: OwnedFd,
    status: Option<OwnedFd>,
    waiting: Waiting,
}

/// What comes of a prepared container that somebody wants.
#[derive(Debug)]
pub enum Taken {
    /// It is the wanted one.
    Runs(Started),
    /// It is not, for this reason, and has ended: it was told nothing of the wanted one's program, which can be run without it.
    Not(String),
}

impl Prepared {
    /// Starts a bundle whose first process will wait.
    pub fn start(bundle: Bundle, cgroup: Cgroup, stdio: Stdio) -> Result<Self, Failure> {
        let started = container::start(&bundle, &cgroup, stdio).inspect_err(|_| {
            let _ = cgroup.destroy();
        })?;
        let Started { pid, pidfd: first, status, waiting, .. } = started;
        let Some(waiting) = waiting else {
            let _ = process::pidfd_signal(&first, libc::SIGKILL);
            let _ = cgroup.destroy();
            return Err(failure(invalid("the bundle's first process does not wait")));
        };
        Ok(Self { bundle, cgroup, pid, first, status, waiting })
    }

    /// Whether this is its first process.
    pub fn is(&self, pid: i32) -> bool {
        self.pid == pid
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.bundle.dir
    }

    /// How its first process is spoken to.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Whether a container of `wanted` can be had from it, the error says what stands against it. Directories of its own that
    /// writable layers are in count as those of the same name in `wanted.dir`: they have to be moved there.
    pub fn fits(&self, wanted: &Bundle) -> Result<(), String> {
        compare(&self.bundle, wanted).map(drop)
    }

    /// Ends it, and waits until nothing of it runs.
    pub fn end(&self) -> io::Result<()> {
        match process::pidfd_signal(&self.first, libc::SIGKILL) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e),
            _ => {}
        }
        // First process of a process namespace: it ends after all others there.
        let limit = Timespec { tv_sec: END_LIMIT, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.first, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the prepared container does not end"));
        }
        self.cgroup.destroy()
    }

    /// Makes it the container of `wanted`, which is to have `cgroup`. The directories of writable layers have been moved. After
    /// a failure (the wanted container's own) it is ended, as in [`Taken::Not`].
    pub fn take(
        self,
        wanted: &Bundle,
        cgroup: &Cgroup,
        stdin: bool,
        size: (u16, u16),
    ) -> Result<Taken, Failure> {
        let before = || -> io::Result<(Vec<u8>, bool)> {
            let further = compare(&self.bundle, wanted).map_err(invalid)?;
            let process = wanted.process()?;
            let terminal = process.terminal() == Some(true);
            let message = message(process, terminal, stdin, size)?;
            cgroup.take_over(&self.cgroup, wanted.linux()?.resources().as_ref())?;
            furnish(&self.first, wanted, &further)?;
            Ok((message, terminal))
        };
        let runs = match before() {
            Ok((message, terminal)) => self.waiting.run(&message, terminal),
            Err(why) => {
                self.end().and_then(|()| cgroup.destroy()).map_err(failure)?;
                return Ok(Taken::Not(why.to_string()));
            }
        };
        match runs {
            Ok(terminal) => {
                let Self { pid, first: pidfd, status, .. } = self;
                Ok(Taken::Runs(Started { pid, pidfd, terminal, status, waiting: None }))
            }
            Err(e) => {
                let _ = self.end();
                Err(e.downcast::<Failure>().unwrap_or_else(failure))
            }
        }
    }
}

/// What is done inside: by a process of its own, which enters the container as an exec does.
fn furnish(first: &OwnedFd, wanted: &Bundle, further: &Further) -> io::Result<()> {
    let mounts = mounts::further(wanted, &further.mounts)?;
    let (ours, theirs) = report::channel()?;
    // SAFETY: a supervisor is single-threaded (lib.rs says so to its callers).
    let pid = match unsafe { process::clone3(0, None) }? {
        Fork::Child => {
            drop(ours);
            let inside = || -> io::Result<()> {
                process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
                let own = |kind| wanted.namespace(kind).is_some();
                let mut namespaces = libc::CLONE_NEWNS;
                for (kind, flag) in [(Ns::Uts, libc::CLONE_NEWUTS), (Ns::User, libc::CLONE_NEWUSER)] {
                    namespaces |= if own(kind) { flag } else { 0 };
                }
                mount::setns(first, namespaces)?;
                if own(Ns::User) {
                    process::set_ids(0, 0, &[])?;
                }
                if own(Ns::Uts) {
                    rustix::system::sethostname(wanted.spec.hostname().as_deref().unwrap_or("").as_bytes())?;
                    let domain = wanted.spec.domainname().as_deref().unwrap_or("");
                    rustix::system::setdomainname(domain.as_bytes())?;
                }
                rustix::process::umask(Mode::empty());
                let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                mounts.attach(&root)?;
                rustix::process::umask(Mode::from_raw_mode(0o022));
                let cwd = wanted.process()?.cwd();
                if !cwd.exists() {
                    std::fs::create_dir_all(cwd).map_err(|e| {
                        io::Error::new(
                            e.kind(),
                            format!("making the working directory {}: {e}", cwd.display()),
                        )
                    })?;
                }
                Ok(())
            };
            match inside() {
                Ok(()) => process::exit_now(0),
                Err(e) => {
                    report::send(&theirs, &Report::Failed(failure(e)), &[]);
                    process::exit_now(1)
                }
            }
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop(theirs);
    let told = report::receive(ours.as_fd(), Instant::now() + START_LIMIT);
    if told.is_err() {
        // It is ours and not reaped yet.
        let _ = process::pidfd_open(pid).and_then(|fd| process::pidfd_signal(&fd, libc::SIGKILL));
    }
    let _ = process::wait(pid);
    match told? {
        None => Ok(()),
        Some((Report::Failed(f), _)) => Err(io::Error::other(f)),
        Some(_) => Err(invalid("an unexpected report")),
    }
}
