//! The process that serves a container's shared folders to its machine: root on the host for the owners of files, and
//! therefore in a root of its own that holds those folders and nothing else.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags};
use silo_sys::mount::{self, attr};
use silo_sys::process::{self, Fork};

use super::share;

/// Starts it; the caller is single-threaded, `stage` an empty directory. It ends with the machine, or with the caller.
pub(super) fn spawn(shares: &[Mount], stage: &Path, socket: OwnedFd) -> io::Result<(i32, OwnedFd)> {
    std::fs::create_dir_all(stage)?;
    let mounts = shares.iter().map(|m| silo_runtime::detached(m, stage)).collect::<io::Result<Vec<_>>>()?;
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: the caller is single-threaded.
    match unsafe { process::clone3(flags, None) }? {
        Fork::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Fork::Child => {
            let served = enter(&mounts, stage, &socket).and_then(|()| share::serve(socket, Path::new("/")));
            if let Err(e) = &served {
                crate::complain!("shared folders: {e}");
            }
            process::exit_now(served.is_err().into())
        }
    }
}

fn enter(mounts: &[OwnedFd], stage: &Path, socket: &OwnedFd) -> io::Result<()> {
    let _ = rustix::process::setsid();
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    mount::make_all_slave()?;
    let root =
        mount::new_filesystem("tmpfs", "shares", &["mode=755".to_owned()], attr::NOSUID | attr::NODEV)?;
    mount::attach(&root, rustix::fs::open(stage, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?;
    for (number, folder) in mounts.iter().enumerate() {
        let name = number.to_string();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(&root, &name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&root, &name, flags, Mode::from_raw_mode(0o644))?;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        mount::attach(folder, rustix::fs::openat(&root, &name, flags, Mode::empty())?)?;
    }
    mount::set_attr(&root, false, attr::RDONLY, 0)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    mount::detach(Path::new("."))?;
    rustix::process::chdir("/")?;
    // Closed with the others.
    std::mem::forget(root);
    // SAFETY: this process goes on with those descriptors only, and ends without destructors of others.
    unsafe { process::close_all_but(&[0, 1, 2, socket.as_raw_fd()]) }
}
