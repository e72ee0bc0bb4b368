//! From a request to its reply: which call an opcode is, and the introduction both sides begin with.

use std::sync::atomic::Ordering;

use rustix::io::{Errno, Result};

use super::nodes::ROOT;
use super::tree::Tree;
use super::wire::{Body, Header, MAX_DATA, Reply, op, request};

/// The protocol as spoken here (linux/fuse.h).
const MAJOR: u32 = 7;
const MINOR: u32 = 36;
/// HANDLE_KILLPRIV_V2 is of 7.33: Linux 5.11.
const OLDEST_MINOR: u32 = 33;

/// `FUSE_*` flags of INIT.
mod flag {
    pub(super) const ASYNC_READ: u32 = 1 << 0;
    pub(super) const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub(super) const BIG_WRITES: u32 = 1 << 5;
    pub(super) const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub(super) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(super) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(super) const ASYNC_DIO: u32 = 1 << 15;
    pub(super) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(super) const MAX_PAGES: u32 = 1 << 22;
    pub(super) const CACHE_SYMLINKS: u32 = 1 << 23;
    pub(super) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
}

/// Not among them: WRITEBACK_CACHE, with which the guest would not see what the host changes; POSIX_LOCKS and
/// FLOCK_LOCKS, so that locks are the guest's own; POSIX_ACL, DONT_MASK: the guest applies its umask.
const FLAGS: u32 = flag::ASYNC_READ
    | flag::ATOMIC_O_TRUNC
    | flag::BIG_WRITES
    | flag::AUTO_INVAL_DATA
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::ASYNC_DIO
    | flag::PARALLEL_DIROPS
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::HANDLE_KILLPRIV_V2;

impl Tree {
    /// Does what a whole message asks for. `None`: this kind of message has no reply.
    pub(super) fn answer<'r>(&self, message: &[u8], reply: &'r mut Reply) -> Option<&'r [u8]> {
        reply.clear();
        // Only shorter than a header fails, which framing has excluded.
        let (header, mut body) = request(message).ok()?;
        match header.opcode {
            op::FORGET => {
                self.nodes.forget(header.node, body.u64().unwrap_or(0));
                None
            }
            op::BATCH_FORGET => {
                let _ = self.batch_forget(&mut body);
                None
            }
            _ => {
                let result = self.act(&header, body, reply);
                Some(reply.finish(header.unique, result))
            }
        }
    }

    fn act(&self, header: &Header, mut body: Body<'_>, reply: &mut Reply) -> Result<()> {
        let body = &mut body;
        if header.opcode == op::INIT {
            return self.init(body, reply);
        }
        if !self.met.load(Ordering::Acquire) {
            return Err(Errno::PROTO);
        }
        match header.opcode {
            op::LOOKUP => self.lookup(header, body, reply),
            op::GETATTR => self.getattr(header, reply),
            op::SETATTR => self.setattr(header, body, reply),
            op::READLINK => self.readlink(header, reply),
            op::SYMLINK => self.symlink(header, body, reply),
            op::MKNOD => self.mknod(header, body, reply),
            op::MKDIR => self.mkdir(header, body, reply),
            op::UNLINK => self.unlink(header, body, false),
            op::RMDIR => self.unlink(header, body, true),
            op::RENAME => self.rename(header, body, false),
            op::RENAME2 => self.rename(header, body, true),
            op::LINK => self.link(header, body, reply),
            op::OPEN => self.open(header, body, reply),
            op::CREATE => self.create(header, body, reply),
            op::READ => self.read(body, reply),
            op::WRITE => self.write(body, reply),
            op::RELEASE | op::RELEASEDIR => self.release(body.u64()?),
            op::FSYNC | op::FSYNCDIR => self.fsync(body),
            op::FALLOCATE => self.fallocate(body),
            op::LSEEK => self.lseek(body, reply),
            op::COPY_FILE_RANGE => self.copy_file_range(body, reply),
            op::OPENDIR => self.opendir(header, reply),
            op::READDIR => self.readdir(header, body, reply, false),
            op::READDIRPLUS => self.readdir(header, body, reply, true),
            op::STATFS => self.statfs(header, reply),
            op::SETXATTR => self.setxattr(header, body),
            op::GETXATTR => self.getxattr(header, body, reply),
            op::LISTXATTR => self.listxattr(header, body, reply),
            op::REMOVEXATTR => self.removexattr(header, body),
            op::DESTROY => Ok(()),
            // FLUSH, ACCESS, INTERRUPT, POLL, … : the kernel asks once and goes on without.
            _ => Err(Errno::NOSYS),
        }
    }

    fn init(&self, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let (major, minor) = (body.u32()?, body.u32()?);
        if major > MAJOR {
            // The guest asks again with ours.
            reply.u32s(&[MAJOR, MINOR])?;
            return reply.put(&[0; 56]);
        }
        if major < MAJOR || minor < OLDEST_MINOR || self.met.swap(true, Ordering::AcqRel) {
            return Err(Errno::PROTO);
        }
        let (_max_readahead, flags) = (body.u32()?, body.u32()?);
        // The guest takes the lesser of this and its own setting, which it may have raised since it asked.
        reply.u32s(&[MAJOR, MINOR, MAX_DATA as u32, flags & FLAGS])?;
        // Requests in flight in the background, and when the guest calls that congestion.
        reply.put(&32u16.to_ne_bytes())?;
        reply.put(&24u16.to_ne_bytes())?;
        // Longest write; granularity of times, nanoseconds; longest read, pages.
        reply.u32s(&[MAX_DATA as u32, 1])?;
        reply.put(&((MAX_DATA / 4096) as u16).to_ne_bytes())?;
        reply.put(&[0; 2 + 32])
    }

    fn batch_forget(&self, body: &mut Body<'_>) -> Result<()> {
        let (count, _) = (body.u32()?, body.u32()?);
        // Ends with the message at the latest.
        for _ in 0..count {
            let (node, times) = (body.u64()?, body.u64()?);
            if node != ROOT {
                self.nodes.forget(node, times);
            }
        }
        Ok(())
    }
}
