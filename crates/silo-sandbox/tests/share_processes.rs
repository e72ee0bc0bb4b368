//! Shared folders by processes as they are in use: the server in a root of its own, the relay forked by `mount`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::mount::UnmountFlags;
use silo_sys::mount::{make_all_slave, unshare};
use silo_sys::process::{self, Fork, Wait};

#[allow(dead_code, missing_docs)]
#[path = "../../../inside/agent/src/share.rs"]
mod relay;

fn main() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        return eprintln!("skipped: needs root and /dev/fuse");
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, host, at) = (dir.path().join("root"), dir.path().join("host"), dir.path().join("at"));
    for made in [&root, &host, &at, &root.join("0")] {
        std::fs::create_dir(made).unwrap();
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: this process has one thread.
    let Fork::Parent { pid, .. } = (unsafe { process::clone3(0, None) }).unwrap() else {
        drop(ours);
        let ended = server(theirs, &root, &host);
        if let Err(e) = &ended {
            eprintln!("server: {e}");
        }
        process::exit_now(ended.is_err().into())
    };
    drop(theirs);
    unshare(libc::CLONE_NEWNS).unwrap();
    make_all_slave().unwrap();
    relay::mount(OwnedFd::from(ours), &at).unwrap();
    let file = at.join("0/file");
    std::fs::write(&file, "through two processes").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "through two processes");
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "through two processes");
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
    // The relay ends with the mount, and the server with the relay.
    rustix::mount::unmount(&at, UnmountFlags::DETACH).unwrap();
    assert_eq!(process::wait(pid).unwrap(), Wait::Exited(0), "server");
    assert_eq!(process::wait(-1).unwrap(), Wait::Exited(0), "relay");
    println!("test shared_folders_by_processes ... ok");
}

/// Serves as the caller of `serve` is to: nothing of the host is within reach but the shares.
fn server(socket: UnixStream, root: &Path, host: &Path) -> std::io::Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    make_all_slave()?;
    rustix::mount::mount_bind(root, root)?;
    rustix::mount::mount_bind(host, root.join("0"))?;
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    assert!(!Path::new("/proc/self").exists() && !Path::new("/etc").exists());
    silo_sandbox::hyperv::share::serve(OwnedFd::from(socket), Path::new("/"))
}
