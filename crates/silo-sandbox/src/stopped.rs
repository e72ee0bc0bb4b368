//! The files of a container that does not run, mounted on the host for a moment.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{Mode, OFlags};
use silo_runtime::Bundle;
use silo_sys::mount;

/// A container's writable directory in its own.
const TOP: &str = "top";

/// Opens the root of a container that does not run, with its mounts, for the time of `work`; nobody else sees them.
///
/// `top`: a directory that stands for the container's writable one, such as a copy of what is in a machine.
pub fn with_stopped_root<T: Send + 'static>(
    dir: &Path,
    top: Option<PathBuf>,
    work: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let bundle = Bundle::load(dir)?;
    mount::in_private_namespace(move || {
        match top {
            Some(top) => stand_in(&bundle, &top)?,
            None => crate::top::mount_own(&bundle.dir)?,
        }
        let root = silo_runtime::assemble(&bundle)?;
        work(&root)
    })
}

fn stand_in(bundle: &Bundle, top: &Path) -> io::Result<()> {
    let own = bundle.dir.join(TOP);
    // What a kernel wants to be there, and a copy need not have.
    let mounts = std::iter::once(&bundle.rootfs).chain(bundle.spec.mounts().iter().flatten());
    let options = mounts.filter_map(|m| Mount::options(m).as_ref()).flatten();
    for option in options {
        let path = option.strip_prefix("upperdir=").or_else(|| option.strip_prefix("workdir="));
        if let Some(name) = path.and_then(|p| Path::new(p).strip_prefix(&own).ok()) {
            std::fs::create_dir_all(top.join(name))?;
        }
    }
    std::fs::create_dir_all(&own)?;
    let at = rustix::fs::open(&own, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(mount::clone_tree(top, false)?, at)
}
