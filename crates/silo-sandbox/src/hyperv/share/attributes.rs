//! Requests about a file's attributes, and about its file system.

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::{Errno, Result};

use super::files::as_writer;
use super::nodes::{Node, version};
use super::tree::{Tree, stat};
use super::wire::{Body, Header, Reply};

/// `FATTR_*`: which fields of SETATTR count.
mod set {
    pub(super) const MODE: u32 = 1 << 0;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const HANDLE: u32 = 1 << 6;
    pub(super) const ATIME_NOW: u32 = 1 << 7;
    pub(super) const MTIME_NOW: u32 = 1 << 8;
    pub(super) const KILL_SUIDGID: u32 = 1 << 11;
}

/// Not an id but "leave it".
const NO_ID: u32 = u32::MAX;

/// `struct fuse_setattr_in`, what is used of it.
struct Wanted {
    valid: u32,
    handle: u64,
    size: u64,
    atime: (u64, u32),
    mtime: (u64, u32),
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Wanted {
    fn parse(body: &mut Body<'_>) -> Result<Wanted> {
        let (valid, _) = (body.u32()?, body.u32()?);
        let (handle, size, _lock_owner) = (body.u64()?, body.u64()?, body.u64()?);
        let (atime, mtime, _ctime) = (body.u64()?, body.u64()?, body.u64()?);
        let (atime_ns, mtime_ns, _ctime_ns) = (body.u32()?, body.u32()?, body.u32()?);
        let (mode, _, uid, gid) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
        Ok(Wanted { valid, handle, size, atime: (atime, atime_ns), mtime: (mtime, mtime_ns), mode, uid, gid })
    }

    fn has(&self, bits: u32) -> bool {
        self.valid & bits != 0
    }

    fn time(&self, at: (u64, u32), set: u32, now: u32) -> Timespec {
        let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        match (self.has(now), self.has(set)) {
            (true, _) => special(UTIME_NOW),
            (false, true) => Timespec { tv_sec: at.0 as i64, tv_nsec: at.1.into() },
            (false, false) => special(UTIME_OMIT),
        }
    }
}

impl Tree {
    pub(super) fn getattr(&self, header: &Header, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        self.put_attr(&node, reply)
    }

    fn put_attr(&self, node: &Node, reply: &mut Reply) -> Result<()> {
        let stat = stat(&node.fd)?;
        node.tell(version(&stat));
        reply.attr(self.nodes.inode(node.id, &stat), &stat)
    }

    pub(super) fn setattr(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let want = Wanted::parse(body)?;
        // The owner before the mode, as a change of owner takes set-ID bits away; the times last.
        if want.has(set::UID | set::GID) {
            if want.has(set::UID) && want.uid == NO_ID || want.has(set::GID) && want.gid == NO_ID {
                return Err(Errno::INVAL);
            }
            let uid = want.has(set::UID).then(|| Uid::from_raw(want.uid));
            let gid = want.has(set::GID).then(|| Gid::from_raw(want.gid));
            rustix::fs::chownat(&node.fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if want.has(set::MODE) {
            if node.kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            let mode = Mode::from_bits_truncate(want.mode & 0o7777);
            rustix::fs::chmodat(&self.descriptors, self.path(&node), mode, AtFlags::empty())?;
        }
        if want.has(set::SIZE) {
            as_writer(want.has(set::KILL_SUIDGID), || {
                if want.has(set::HANDLE) {
                    rustix::fs::ftruncate(&self.handle(want.handle)?.fd, want.size)
                } else {
                    rustix::fs::ftruncate(self.open_file(&node, libc::O_WRONLY as u32)?, want.size)
                }
            })?;
        }
        if want.has(set::ATIME | set::MTIME | set::ATIME_NOW | set::MTIME_NOW) {
            let times = Timestamps {
                last_access: want.time(want.atime, set::ATIME, set::ATIME_NOW),
                last_modification: want.time(want.mtime, set::MTIME, set::MTIME_NOW),
            };
            rustix::fs::utimensat(&node.fd, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        self.put_attr(&node, reply)
    }

    pub(super) fn statfs(&self, header: &Header, reply: &mut Reply) -> Result<()> {
        let of = rustix::fs::fstatvfs(&self.nodes.get(header.node)?.fd)?;
        reply.u64s(&[of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree])?;
        reply.u32s(&[of.f_bsize as u32, of.f_namemax as u32, of.f_frsize as u32])?;
        reply.put(&[0; 28])
    }
}
