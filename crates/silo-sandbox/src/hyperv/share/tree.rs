//! The served tree: what every request works on, and how a file of it is found and opened.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, Result};
use rustix::path::DecInt;

use super::nodes::{Limits, Node, Nodes, lock, version};
use super::wire::Reply;

/// Flags of open(2) that a guest may choose, besides the access mode. `O_APPEND` comes with each write; `O_DIRECT`
/// would ask for aligned memory.
const OPEN_FLAGS: OFlags = OFlags::SYNC.union(OFlags::DSYNC).union(OFlags::TRUNC).union(OFlags::NOATIME);
/// Flags every open has: nothing is followed, waited for, or inherited.
pub(super) const ALWAYS: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// For a file's place in the tree, without opening the file.
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    /// Of a directory: which entry it reads next, where that is known.
    pub(super) next_entry: Mutex<Option<u64>>,
}

#[derive(Default)]
struct Handles {
    open: HashMap<u64, Arc<Handle>>,
    last: u64,
}

/// All that lives as long as the connection.
pub(super) struct Tree {
    pub(super) nodes: Nodes,
    handles: Mutex<Handles>,
    max_handles: usize,
    /// `/proc/self/fd` of a proc file system mounted nowhere: the way from a place to an open file.
    pub(super) descriptors: OwnedFd,
    /// Whether the guest has introduced itself.
    pub(super) met: AtomicBool,
}

impl Tree {
    /// The tree below `root`, a directory.
    pub(super) fn new(root: OwnedFd, descriptors: OwnedFd, limits: Limits) -> io::Result<Tree> {
        let stat = stat(&root)?;
        Ok(Tree {
            nodes: Nodes::new(root, &stat, limits.nodes),
            handles: Mutex::default(),
            max_handles: limits.handles,
            descriptors,
            met: AtomicBool::new(false),
        })
    }

    /// Finds a name in a directory, and remembers it for the guest.
    pub(super) fn enter(&self, parent: &Node, name: &CStr) -> Result<(Arc<Node>, Statx)> {
        self.adopt(rustix::fs::openat(&parent.fd, name, PLACE, Mode::empty())?)
    }

    /// Remembers a place for the guest.
    fn adopt(&self, place: OwnedFd) -> Result<(Arc<Node>, Statx)> {
        let stat = stat(&place)?;
        Ok((self.nodes.remember(place, &stat)?, stat))
    }

    /// Remembers an open file for the guest.
    pub(super) fn adopt_open(&self, file: &OwnedFd) -> Result<(Arc<Node>, Statx)> {
        let place = rustix::fs::openat(
            &self.descriptors,
            DecInt::from_fd(file),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        self.adopt(place)
    }

    /// Answers with a name just found; where that fails, the guest is not told and so will not forget it either.
    pub(super) fn put_entry(&self, reply: &mut Reply, found: Result<(Arc<Node>, Statx)>) -> Result<()> {
        let (node, stat) = found?;
        node.tell(version(&stat));
        let inode = self.nodes.inode(node.id, &stat);
        reply.entry(node.id, inode, &stat).inspect_err(|_| self.nodes.forget(node.id, 1))
    }

    /// Opens a regular file of the guest's choice. Nothing else: a pipe would wait, a device would act.
    pub(super) fn open_file(&self, node: &Node, flags: u32) -> Result<OwnedFd> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        self.reopen(node, open_flags(flags))
    }

    /// Opens a directory for listing.
    pub(super) fn open_directory(&self, node: &Node) -> Result<OwnedFd> {
        if node.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        self.reopen(node, OFlags::RDONLY | OFlags::DIRECTORY | ALWAYS)
    }

    fn reopen(&self, node: &Node, flags: OFlags) -> Result<OwnedFd> {
        // The kernel's link is what is followed here, to the very file of the descriptor.
        rustix::fs::openat(
            &self.descriptors,
            DecInt::from_fd(&node.fd),
            flags.difference(OFlags::NOFOLLOW),
            Mode::empty(),
        )
    }

    /// The path of a place for calls that take no descriptor, from the workers' directory ([`super::worker`]).
    pub(super) fn path(&self, node: &Node) -> DecInt {
        DecInt::new(node.fd.as_raw_fd())
    }

    /// Keeps an open file for the guest; ENFILE when it holds too many.
    pub(super) fn keep(&self, fd: OwnedFd) -> Result<u64> {
        let mut handles = lock(&self.handles);
        if handles.open.len() >= self.max_handles {
            return Err(Errno::NFILE);
        }
        handles.last += 1;
        let id = handles.last;
        handles.open.insert(id, Arc::new(Handle { fd, next_entry: Mutex::new(Some(0)) }));
        Ok(id)
    }

    /// An open file; EBADF when there is none of that number.
    pub(super) fn handle(&self, id: u64) -> Result<Arc<Handle>> {
        lock(&self.handles).open.get(&id).cloned().ok_or(Errno::BADF)
    }

    /// Closes an open file; a request still at work on it ends first.
    pub(super) fn release(&self, id: u64) -> Result<()> {
        let handle = lock(&self.handles).open.remove(&id);
        handle.map(drop).ok_or(Errno::BADF)
    }
}

/// What open(2) is called with for a guest's flags.
pub(super) fn open_flags(guest: u32) -> OFlags {
    let guest = OFlags::from_bits_retain(guest);
    (guest & (OFlags::RWMODE | OPEN_FLAGS)) | ALWAYS
}

/// Everything known of an open file or place.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    // Linux 5.8; without it a read-only mount of a directory could not be told from a writable one.
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 { Err(Errno::OPNOTSUPP) } else { Ok(stat) }
}
