//! A container that was brought up in a machine before that was saved, and waits for its bundle in each clone.

use std::io;
use std::path::Path;
use std::time::Duration;

use silo_runtime::cgroup::Cgroup;
use silo_runtime::protocol::{Boot, Failure, FailureKind, READY_BUNDLE, SCRATCH};
use silo_runtime::seccomp::Filter;
use silo_runtime::{Bundle, Prepared, Started, Taken};

use crate::boot;
use crate::task::Task;

/// How long it may take to be ready.
const LIMIT: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Ready {
    container: Prepared,
    /// With its streams.
    task: Task,
}

fn other(error: io::Error) -> Failure {
    Failure { kind: FailureKind::Other, message: error.to_string() }
}

/// The bundle that is asked for, in its directory in this machine.
fn bundle(wanted: &Boot, dir: &str) -> io::Result<Bundle> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "there is no bundle");
    Ok(Bundle {
        dir: Path::new(dir).to_owned(),
        spec: wanted.spec.as_deref().cloned().ok_or_else(missing)?,
        rootfs: wanted.rootfs.clone().ok_or_else(missing)?,
        filter: wanted.filter.as_ref().map(Filter::unpack),
    })
}

impl Ready {
    /// Starts the bundle, whose disks are mounted, and waits until it says that it is ready.
    pub(crate) fn bring_up(wanted: Boot) -> Result<Self, Failure> {
        boot::files(&wanted.files).map_err(other)?;
        let bundle = bundle(&wanted, READY_BUNDLE).map_err(other)?;
        let cgroup = Cgroup::at(bundle.cgroup().map_err(other)?).map_err(other)?;
        let mut task = Task::new(0, false);
        let stdio = task.open_streams(true, (0, 0)).map_err(other)?;
        let container = Prepared::start(bundle, cgroup, stdio)?;
        container.waiting().is_ready(LIMIT).map_err(|e| {
            let mut said = vec![0; 1024];
            let n = task.err.as_ref().map_or(0, |fd| rustix::io::read(fd, &mut said[..]).unwrap_or(0));
            other(io::Error::new(e.kind(), format!("{e}: {}", String::from_utf8_lossy(&said[..n]).trim())))
        })?;
        rustix::fs::sync();
        Ok(Self { container, task })
    }

    /// Has it do once more what it did to be ready.
    pub(crate) fn rehearse(&self) -> Result<(), Failure> {
        self.container.waiting().rehearse(LIMIT).map_err(other)
    }

    /// What is left to be done of a boot: what is on the writable disk is in use. If the bundle that
    /// is wanted cannot be had from this one, it is ended.
    pub(crate) fn for_boot(self, wanted: &mut Boot) -> Result<Option<Self>, Failure> {
        // A machine that is wanted for its files has none to run.
        let fits = bundle(wanted, silo_runtime::protocol::BUNDLE).map(|b| self.container.fits(&b));
        match fits {
            Ok(Ok(())) => {
                wanted.files.retain(|file| !file.path.starts_with(SCRATCH));
                Ok(Some(self))
            }
            _ => {
                self.container.end().map_err(other)?;
                Ok(None)
            }
        }
    }

    /// Becomes the container of a bundle, with the streams in `task`; `None`: it could not, was told nothing of the
    /// container's program, and has ended.
    pub(crate) fn take(
        self,
        task: &mut Task,
        wanted: &Bundle,
        cgroup: &Cgroup,
        stdin: bool,
        size: (u16, u16),
    ) -> Result<Option<Started>, Failure> {
        let Self { container, task: streams } = self;
        match container.take(wanted, cgroup, stdin && !task.terminal, size)? {
            Taken::Runs(started) => {
                task.take_streams(streams, stdin);
                Ok(Some(started))
            }
            Taken::Not(_) => Ok(None),
        }
    }
}
