//! What a VMM can reach beside the descriptors that it is given: an unprivileged user without capabilities, namespaces of
//! its own, and a read-only root of the program, its libraries and firmware, and what the machine boots. QEMU adds a filter
//! of system calls itself (`-sandbox`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use silo_sys::mount::{self, attr};
use silo_sys::process;

/// The program; Debian's package `qemu-system-x86`.
pub(super) const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// Namespaces of a VMM. It has no network but the descriptor of its tap, and is the first process of its own.
pub(super) const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// What QEMU reads beside its program, where it is there.
const SEEN: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/share/qemu", "/usr/share/seabios", "/etc/ld.so.cache"];
/// Links of a merged `/usr`; a host without has directories here.
const LINKS: &[(&str, &str)] = &[("lib", "usr/lib"), ("lib64", "usr/lib64")];
const DEVICES: &[&str] = &["/dev/null", "/dev/urandom"];
const KVM: &str = "/dev/kvm";
/// A directory of every host that a new root can be mounted on.
const STAGE: &str = "/proc";
/// Descriptors that QEMU may have.
const FILES: u64 = 256;

fn named(what: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.display().to_string();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// Confines the calling process, a fresh child in [`NAMESPACES`] whose parent is behind `parent`: it ends with that. `files`
/// are its program and what the machine boots.
pub(super) fn enter(files: &[&Path], kvm: bool, owner: u32, parent: &OwnedFd) -> io::Result<()> {
    use rustix::process::setrlimit;
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Nofile, limit(FILES))?;
    setrlimit(Resource::Msgqueue, limit(0))?;
    new_root(files, kvm)?;
    let groups: Vec<u32> = if kvm { vec![rustix::fs::stat(KVM)?.st_gid] } else { Vec::new() };
    for capability in 0..64 {
        process::drop_bounding(capability)?;
    }
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    process::set_ids(owner, owner, &groups)?;
    process::set_capabilities(process::CapabilitySets::default())?;
    // Cleared by the change of the user.
    process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
    let mut gone = [rustix::event::PollFd::new(parent, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut gone, Some(&now))? {
        0 => Ok(()),
        _ => Err(io::Error::other("whoever wanted the machine is gone")),
    }
}

fn new_root(files: &[&Path], kvm: bool) -> io::Result<()> {
    mount::make_all_slave()?;
    let options = ["mode=755", "size=64k", "nr_inodes=256"].map(str::to_owned);
    let root = mount::new_filesystem("tmpfs", "vmm", &options, attr::NOSUID | attr::NODEV)?;
    let stage = rustix::fs::open(STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::attach(&root, stage)?;
    for path in SEEN.iter().map(Path::new).filter(|p| p.exists()).chain(files.iter().copied()) {
        show(&root, path, attr::RDONLY | attr::NOSUID | attr::NODEV).map_err(named(path))?;
    }
    for (name, target) in LINKS {
        let host = Path::new("/").join(name);
        if host.is_symlink() {
            rustix::fs::symlinkat(*target, &root, *name)?;
        } else if host.exists() {
            show(&root, &host, attr::RDONLY | attr::NOSUID | attr::NODEV).map_err(named(&host))?;
        }
    }
    let devices = DEVICES.iter().chain(kvm.then_some(&KVM));
    for path in devices.map(Path::new) {
        show(&root, path, attr::RDONLY | attr::NOSUID | attr::NOEXEC).map_err(named(path))?;
    }
    let attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::RDONLY;
    // Its own processes and nothing of the kernel's settings.
    let proc = mount::new_filesystem("proc", "proc", &["subset=pid".to_owned()], attributes)?;
    rustix::fs::mkdirat(&root, "proc", Mode::from_raw_mode(0o555))?;
    mount::attach(proc, at(&root, Path::new("proc"))?)?;
    mount::set_attr(&root, false, attr::RDONLY | attr::NOEXEC, 0)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    mount::detach(Path::new("."))?;
    Ok(rustix::process::chdir("/")?)
}

fn at(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, path, flags, Mode::empty())?)
}

/// Binds a file or directory of the host's at the same place below `root`.
fn show(root: &OwnedFd, path: &Path, attributes: u64) -> io::Result<()> {
    let tree = mount::clone_tree(path, false)?;
    mount::set_attr(&tree, false, attributes, 0)?;
    let inside = path.strip_prefix("/").map_err(io::Error::other)?;
    let mut made = PathBuf::new();
    let directories = inside.parent().into_iter().flat_map(Path::components);
    let directory = |made: &Path| match rustix::fs::mkdirat(root, made, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    };
    for component in directories {
        made.push(component);
        directory(&made)?;
    }
    if path.is_dir() {
        directory(inside)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(root, inside, flags, Mode::from_raw_mode(0o444))?;
    }
    mount::attach(tree, at(root, inside)?)
}
