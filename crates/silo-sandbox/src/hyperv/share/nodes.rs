//! The files a guest has names for: node ids, how often each was handed out, and one descriptor each.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Statx};
use rustix::io::{Errno, Result};

/// Most files a guest may have names for at a time. Each holds one descriptor; a guest forgets when its own
/// memory is short, at about 1 KiB each.
pub const MAX_NODES: usize = 1 << 19;
/// Most files and directories a guest may hold open.
pub(super) const MAX_HANDLES: usize = 1 << 16;
/// Descriptors for everything else.
pub(super) const SPARE_DESCRIPTORS: usize = 1024;

/// How much a guest may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) nodes: usize,
    pub(super) handles: usize,
}

impl Limits {
    /// Of a process that may have so many descriptors.
    pub(super) fn of(descriptors: usize) -> Limits {
        let handles = (descriptors / 8).min(MAX_HANDLES);
        Limits { nodes: descriptors.saturating_sub(handles + SPARE_DESCRIPTORS).min(MAX_NODES), handles }
    }
}

/// Node id of the shared root (linux/fuse.h).
pub(super) const ROOT: u64 = 1;

/// The same file by way of two mounts is two nodes: one of the mounts may be read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

/// What tells whether contents changed: time of change (seconds, nanoseconds) and size.
pub(super) type Version = (i64, u32, u64);

/// The version a stat tells of.
pub(super) fn version(stat: &Statx) -> Version {
    (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec, stat.stx_size)
}

/// A file of the host that the guest knows.
#[derive(Debug)]
pub(super) struct Node {
    /// What the guest calls it.
    pub(super) id: u64,
    /// Opened for its place only (`O_PATH`); keeps the inode number and the mount's from being used again.
    pub(super) fd: OwnedFd,
    /// Never changes for an inode.
    pub(super) kind: FileType,
    key: Key,
    told: Mutex<Option<Version>>,
}

impl Node {
    /// Notes the version whose attributes the guest is told.
    pub(super) fn tell(&self, version: Version) {
        *lock(&self.told) = Some(version);
    }

    /// Whether this is the version the guest was told last.
    pub(super) fn was_told(&self, version: Version) -> bool {
        *lock(&self.told) == Some(version)
    }
}

struct Entry {
    node: Arc<Node>,
    lookups: u64,
}

struct Table {
    by_id: HashMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    next: u64,
}

/// The table of nodes.
pub(super) struct Nodes {
    table: Mutex<Table>,
    devices: Mutex<HashMap<(u32, u32), u64>>,
    limit: usize,
}

impl Nodes {
    /// A table of at most `limit` nodes, one of which is the root, for good.
    pub(super) fn new(root: OwnedFd, stat: &Statx, limit: usize) -> Nodes {
        let table = Table { by_id: HashMap::new(), by_key: HashMap::new(), next: ROOT };
        let nodes = Nodes { table: Mutex::new(table), devices: Mutex::default(), limit };
        lock(&nodes.table).insert(root, stat);
        nodes
    }

    /// The node of that id; ESTALE when the guest has none.
    pub(super) fn get(&self, id: u64) -> Result<Arc<Node>> {
        lock(&self.table).by_id.get(&id).map(|e| e.node.clone()).ok_or(Errno::STALE)
    }

    /// The node of a file that is told to the guest once more; ENFILE when there are too many.
    pub(super) fn remember(&self, fd: OwnedFd, stat: &Statx) -> Result<Arc<Node>> {
        let mut table = lock(&self.table);
        if let Some(id) = table.by_key.get(&key(stat)).copied()
            && let Some(entry) = table.by_id.get_mut(&id)
        {
            entry.lookups = entry.lookups.saturating_add(1);
            return Ok(entry.node.clone());
        }
        if table.by_id.len() >= self.limit {
            return Err(Errno::NFILE);
        }
        Ok(table.insert(fd, stat))
    }

    /// The guest forgets as many of the times it was told of a node.
    pub(super) fn forget(&self, id: u64, times: u64) {
        if id == ROOT {
            return;
        }
        let mut table = lock(&self.table);
        let Some(entry) = table.by_id.get_mut(&id) else { return };
        entry.lookups = entry.lookups.saturating_sub(times);
        if entry.lookups == 0 {
            let key = entry.node.key;
            table.by_key.remove(&key);
            let last = table.by_id.remove(&id);
            // Closing takes its time.
            drop(table);
            drop(last);
        }
    }

    /// The inode number to show. All shares are one file system to the guest, so that equal numbers of two devices
    /// must not look like hard links: the second device seen counts from 2⁴⁸, and so on.
    pub(super) fn inode(&self, node: u64, stat: &Statx) -> u64 {
        if node == ROOT {
            1 << 62
        } else {
            self.inode_on((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
        }
    }

    /// As [`Nodes::inode`], of a number on the device of a stat.
    pub(super) fn inode_beside(&self, stat: &Statx, number: u64) -> u64 {
        self.inode_on((stat.stx_dev_major, stat.stx_dev_minor), number)
    }

    fn inode_on(&self, device: (u32, u32), number: u64) -> u64 {
        let mut devices = lock(&self.devices);
        let count = devices.len() as u64;
        let index = match devices.get(&device) {
            Some(&index) => index,
            // So many devices do not come; nor does the table grow then.
            None if count >= 1 << 13 => count,
            None => *devices.entry(device).or_insert(count),
        };
        // Where a file system uses the upper bits itself, they are changed rather than replaced.
        number ^ (index << 48)
    }
}

impl Table {
    fn insert(&mut self, fd: OwnedFd, stat: &Statx) -> Arc<Node> {
        let id = self.next;
        self.next += 1;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let node = Arc::new(Node { id, fd, kind, key: key(stat), told: Mutex::new(None) });
        self.by_key.insert(node.key, id);
        self.by_id.insert(id, Entry { node: node.clone(), lookups: 1 });
        node
    }
}

fn key(stat: &Statx) -> Key {
    Key { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino, mount: stat.stx_mnt_id }
}

/// A panic elsewhere leaves these tables whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
