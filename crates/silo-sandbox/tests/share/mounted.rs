//! A shared tree, served and mounted.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::relay;

/// What the host shares and where the guest sees it. Unmounts and ends all threads when dropped.
pub(crate) struct Mounted {
    _dir: tempfile::TempDir,
    /// The shared folder as the host has it.
    pub(crate) host: PathBuf,
    /// The same in the guest.
    pub(crate) guest: PathBuf,
    /// The shared root in the guest.
    pub(crate) at: PathBuf,
    /// The root of the host, with `0` and `1` in it.
    pub(crate) root: PathBuf,
    mounts: Vec<PathBuf>,
    socket: UnixStream,
    threads: Vec<JoinHandle<()>>,
}

impl Mounted {
    /// Shares a folder as `0`, and again read-only as `1`. `None`: not here.
    pub(crate) fn new() -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        // Not /tmp: a tmpfs of older kernels has no user.* attributes.
        let base = std::env::var_os("SILO_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let dir = tempfile::Builder::new().prefix("silo-share-").tempdir_in(base).unwrap();
        let (root, host, at) = (dir.path().join("root"), dir.path().join("host"), dir.path().join("at"));
        for made in [&root, &host, &at, &root.join("0"), &root.join("1")] {
            std::fs::create_dir(made).unwrap();
        }
        for n in ["0", "1"] {
            rustix::mount::mount_bind(&host, root.join(n)).unwrap();
        }
        rustix::mount::mount_remount(root.join("1"), MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let served = root.clone();
        let server = std::thread::spawn(move || {
            silo_sandbox::hyperv::share::serve(OwnedFd::from(theirs), &served).unwrap();
        });
        let fuse = File::from(relay::attach(&at).unwrap());
        let port = File::from(OwnedFd::from(ours.try_clone().unwrap()));
        let (fuse_too, port_too) = (fuse.try_clone().unwrap(), port.try_clone().unwrap());
        let requests = std::thread::spawn(move || relay::requests(&fuse, &port).unwrap());
        let replies = std::thread::spawn(move || relay::replies(&port_too, &fuse_too).unwrap());
        Some(Mounted {
            guest: at.join("0"),
            mounts: vec![at.clone(), root.join("0"), root.join("1")],
            _dir: dir,
            host,
            at,
            root,
            socket: ours,
            threads: vec![server, requests, replies],
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = rustix::mount::unmount(mount, UnmountFlags::DETACH);
        }
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}
