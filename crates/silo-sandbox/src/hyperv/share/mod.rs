//! Folders of the host in a guest: a FUSE server at the other end of a byte stream.
//!
//! ```text
//!  guest: program ─ kernel ─ /dev/fuse ─ relay (agent) ─ port ┄┄ QEMU ┄┄ unix stream ─ link ─ worker ─ files : host
//! ```
//!
//! Whole FUSE messages go both ways; each begins with its length. A few equal threads take a message in turn, do
//! what it asks on the host's files and write the reply. Nothing goes by path: a name is one component, opened
//! without following links below a directory that is already held, and `..` is never asked of the host.
//!
//! What a guest may rely on:
//! - Owners, modes, times, links, extended attributes (`user.*`, `security.capability`) are the host's. The guest's
//!   kernel checks permissions. Files made belong to who makes them, as the mount shows ids.
//! - What the host changes shows within a second; at the latest the next open drops outdated contents.
//! - Writes reach the host before write(2) returns; those through a shared mapping at msync, close or write-back.
//! - Locks (flock, fcntl) hold within the guest only: the host and other guests do not see them.
//! - Pipes and sockets are the guest's own ends; device nodes cannot be made, those there are name the guest's.
//! - Not seen by inotify in the guest: changes of the host.
//!
//! What a guest cannot do: leave the tree, write through a read-only mount, open anything but regular files and
//! directories, hold more than [`MAX_NODES`] names or 65,536 open files (ENFILE; fewer where the process may not have
//! as many descriptors), or make the server use more memory than the workers' buffers and these tables.
//!
//! Measured on one busy host (2 cores), server and relay as threads, folder on tmpfs, without a machine between
//! (`benches/share.rs`): a file of 256 MiB written at 860–990 MiB/s, read at 1,300–1,470, again from the guest's
//! cache at 3,700–5,300; small files made 4,000/s, listed with metadata 130,000/s, opened and read 6,000–11,000/s.
//!
//! Why not the crate `fuse-backend-rs` (0.14.0, read): its writer of replies puts each into the descriptor with
//! one `writev`, which for a stream is neither whole nor kept apart from another thread's; its `PassthroughFs` makes
//! device nodes, keeps any number of handles, needs `/proc` in the root, and brings 13 crates into the house, `nix`
//! 0.24, `mio` 0.8 and `bitflags` 1 among them.

mod answer;
mod attributes;
mod files;
mod link;
mod listing;
mod names;
mod nodes;
mod tree;
mod wire;
mod worker;
mod xattrs;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::{Resource, Rlimit};

use link::Link;
pub use nodes::MAX_NODES;
use nodes::{Limits, MAX_HANDLES, SPARE_DESCRIPTORS};
use tree::Tree;

/// Threads that answer. A slow request (fsync) keeps one.
const WORKERS: usize = 3;
/// Serves the tree below `root` to the guest at the other end of `socket` (a unix stream) until it closes.
///
/// For a process of its own, as root, in a mount namespace and root of its own: `root` holds `0`, `1`, …, each a
/// shared folder or file, mounted there with its attributes (read-only, id-mapped), and should itself be read-only.
/// Raises the limit of open files of the process.
///
/// # Errors
/// InvalidData or UnexpectedEof where the guest breaks the framing; otherwise what the host cannot do at the start.
pub fn serve(socket: OwnedFd, root: &Path) -> io::Result<()> {
    let limits = Limits::of(raise_descriptor_limit());
    let root = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let tree = Tree::new(root, own_descriptors()?, limits)?;
    let link = Link::new(socket)?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| std::thread::Builder::new().spawn_scoped(scope, || worker::work(&link, &tree)))
            .collect();
        let mut result = Ok(());
        for worker in workers {
            let ended = worker
                .inspect_err(|_| link.close())
                .and_then(|w| w.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))));
            result = result.and(ended);
        }
        result
    })
}

/// `/proc/self/fd` of a proc file system that is mounted nowhere and shows nothing but processes.
fn own_descriptors() -> io::Result<OwnedFd> {
    let kind = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&kind, "subset", "pid")?;
    rustix::mount::fsconfig_create(&kind)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = rustix::mount::fsmount(&kind, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(rustix::fs::openat(
        &proc,
        "self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The number of descriptors the process may have, raised as far as needed and allowed.
fn raise_descriptor_limit() -> usize {
    let want = (MAX_NODES + MAX_HANDLES + SPARE_DESCRIPTORS) as u64;
    let is = rustix::process::getrlimit(Resource::Nofile);
    let hard = is.maximum.unwrap_or(u64::MAX);
    for maximum in [want.max(hard), hard] {
        let limit = want.min(maximum);
        let new = Rlimit { current: Some(limit), maximum: Some(maximum) };
        if rustix::process::setrlimit(Resource::Nofile, new).is_ok() {
            return limit as usize;
        }
    }
    is.current.unwrap_or(want) as usize
}
