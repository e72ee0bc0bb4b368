//! Requests about an open file's contents.

use std::io::IoSlice;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, Result};
use silo_sys::identity::without_capability;

use super::nodes::version;
use super::tree::{Tree, stat};
use super::wire::{Body, Header, MAX_DATA, Reply};

/// `FOPEN_KEEP_CACHE`: what the guest has cached of the file is still so.
pub(super) const OPENED_KEEP_CACHE: u32 = 1 << 1;
/// `FUSE_OPEN_KILL_SUIDGID`.
const OPEN_KILL_SUIDGID: u32 = 1;
/// `FUSE_WRITE_CACHE`: from the page cache, so at that offset, by whichever handle.
const WRITE_CACHE: u32 = 1;
/// `FUSE_WRITE_KILL_SUIDGID`.
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_FSYNC_FDATASYNC`.
const FSYNC_DATA: u32 = 1;
/// Capability by whose absence the kernel takes set-ID bits off a file that is written to.
const CAP_FSETID: u32 = 4;
/// Longest copy in one request, bytes, so that the request ends soon; the guest asks for the rest.
const COPY_MAX: u64 = 64 << 20;

impl Tree {
    pub(super) fn open(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let (flags, special) = (body.u32()?, body.u32()?);
        let file = as_writer(special & OPEN_KILL_SUIDGID != 0, || self.open_file(&node, flags))?;
        let unchanged = node.was_told(version(&stat(&file)?));
        reply.u64s(&[self.keep(file)?])?;
        reply.u32s(&[if unchanged { OPENED_KEEP_CACHE } else { 0 }, 0])
    }

    pub(super) fn read(&self, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()? as usize);
        let handle = self.handle(handle)?;
        let mut done = 0;
        let room = reply.room(size.min(MAX_DATA))?;
        // Fewer bytes than asked for are the end of the file to the guest.
        while done < room.len() {
            match rustix::io::pread(&handle.fd, &mut room[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        reply.took(done);
        Ok(())
    }

    pub(super) fn write(&self, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let (handle, offset, size, how) = (body.u64()?, body.u64()?, body.u32()?, body.u32()?);
        let (_lock_owner, flags, _) = (body.u64()?, body.u32()?, body.u32()?);
        let data = body.data(size as usize)?;
        let handle = self.handle(handle)?;
        let append = OFlags::from_bits_retain(flags).contains(OFlags::APPEND) && how & WRITE_CACHE == 0;
        let how_to = if append { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        let written = as_writer(how & WRITE_KILL_SUIDGID != 0, || {
            rustix::io::pwritev2(&handle.fd, &[IoSlice::new(data)], offset, how_to)
        })?;
        reply.u32s(&[written as u32, 0])
    }

    pub(super) fn fsync(&self, body: &mut Body<'_>) -> Result<()> {
        let (handle, flags) = (self.handle(body.u64()?)?, body.u32()?);
        if flags & FSYNC_DATA != 0 {
            rustix::fs::fdatasync(&handle.fd)
        } else {
            rustix::fs::fsync(&handle.fd)
        }
    }

    pub(super) fn fallocate(&self, body: &mut Body<'_>) -> Result<()> {
        let (handle, offset, len, mode) = (body.u64()?, body.u64()?, body.u64()?, body.u32()?);
        let handle = self.handle(handle)?;
        rustix::fs::fallocate(&handle.fd, FallocateFlags::from_bits_retain(mode), offset, len)
    }

    /// Data and holes; other positions are the guest's own affair.
    pub(super) fn lseek(&self, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let (handle, offset, whence) = (body.u64()?, body.u64()?, body.u32()? as i32);
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        reply.u64s(&[rustix::fs::seek(&self.handle(handle)?.fd, to)?])
    }

    pub(super) fn copy_file_range(&self, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let (from, mut from_offset, _node) = (self.handle(body.u64()?)?, body.u64()?, body.u64()?);
        let (to, mut to_offset, len) = (self.handle(body.u64()?)?, body.u64()?, body.u64()?);
        let len = len.min(COPY_MAX) as usize;
        let copied =
            rustix::fs::copy_file_range(&from.fd, Some(&mut from_offset), &to.fd, Some(&mut to_offset), len)?;
        reply.u32s(&[copied as u32, 0])
    }
}

/// Runs `work`; with `kill` so that the kernel takes set-ID bits away, as from any writer without CAP_FSETID.
pub(super) fn as_writer<T>(kill: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !kill {
        return work();
    }
    without_capability(CAP_FSETID, work).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::PERM))?
}
