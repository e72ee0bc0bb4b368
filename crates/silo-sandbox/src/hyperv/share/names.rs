//! Requests about names: finding, making, linking, renaming and removing them.

use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};
use silo_sys::identity::with_file_ids;

use super::files::OPENED_KEEP_CACHE;
use super::tree::{Tree, open_flags};
use super::wire::{Body, Header, Reply};

/// Longest target of a symbolic link, bytes.
const TARGET_MAX: usize = 4096;

impl Tree {
    pub(super) fn lookup(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        match self.enter(&parent, body.name()?) {
            Err(Errno::NOENT) => reply.no_entry(),
            found => self.put_entry(reply, found),
        }
    }

    pub(super) fn readlink(&self, header: &Header, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let mut target = [MaybeUninit::uninit(); TARGET_MAX];
        let (target, _) = rustix::fs::readlinkat_raw(&node.fd, c"", &mut target)?;
        reply.put(target)
    }

    pub(super) fn symlink(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let (name, target) = (body.name()?, body.text()?);
        owned(header, || rustix::fs::symlinkat(target, &parent.fd, name))?;
        self.put_entry(reply, self.enter(&parent, name))
    }

    /// Regular files, pipes and sockets. A device node would be the host's device.
    pub(super) fn mknod(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let (mode, _device, _umask, _) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
        let name = body.name()?;
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        owned(header, || rustix::fs::mknodat(&parent.fd, name, kind, permissions(mode), 0))?;
        self.put_entry(reply, self.enter(&parent, name))
    }

    pub(super) fn mkdir(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let (mode, _umask, name) = (body.u32()?, body.u32()?, body.name()?);
        owned(header, || rustix::fs::mkdirat(&parent.fd, name, permissions(mode)))?;
        self.put_entry(reply, self.enter(&parent, name))
    }

    pub(super) fn create(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let (flags, mode, _umask, _) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
        let name = body.name()?;
        let new = open_flags(flags).union(OFlags::CREATE).union(OFlags::EXCL);
        let made = owned(header, || rustix::fs::openat(&parent.fd, name, new, permissions(mode)));
        let (file, found) = match made {
            Ok(file) => {
                let found = self.adopt_open(&file)?;
                (file, found)
            }
            // Somebody else made it meanwhile. What it is has to be known before it is opened.
            Err(Errno::EXIST) if !OFlags::from_bits_retain(flags).contains(OFlags::EXCL) => {
                let found = self.enter(&parent, name)?;
                let file =
                    self.open_file(&found.0, flags).inspect_err(|_| self.nodes.forget(found.0.id, 1))?;
                (file, found)
            }
            Err(e) => return Err(e),
        };
        let id = found.0.id;
        let handle = self.keep(file).inspect_err(|_| self.nodes.forget(id, 1))?;
        self.put_entry(reply, Ok(found))?;
        reply.u64s(&[handle])?;
        reply.u32s(&[OPENED_KEEP_CACHE, 0])
    }

    pub(super) fn unlink(&self, header: &Header, body: &mut Body<'_>, directory: bool) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&parent.fd, body.name()?, flags)
    }

    pub(super) fn link(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let parent = self.nodes.get(header.node)?;
        let node = self.nodes.get(body.u64()?)?;
        let name = body.name()?;
        rustix::fs::linkat(&node.fd, c"", &parent.fd, name, AtFlags::EMPTY_PATH)?;
        self.put_entry(reply, self.enter(&parent, name))
    }

    pub(super) fn rename(&self, header: &Header, body: &mut Body<'_>, with_flags: bool) -> Result<()> {
        let from = self.nodes.get(header.node)?;
        let to = self.nodes.get(body.u64()?)?;
        let flags = if with_flags { (body.u32()?, body.u32()?).0 } else { 0 };
        let (old, new) = (body.name()?, body.name()?);
        let flags = RenameFlags::from_bits_retain(flags);
        // WHITEOUT would make a device node.
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        rustix::fs::renameat_with(&from.fd, old, &to.fd, new, flags)
    }
}

/// Makes something that belongs to who asked.
fn owned<T>(header: &Header, make: impl FnOnce() -> Result<T>) -> Result<T> {
    with_file_ids(header.uid, header.gid, make)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::OVERFLOW))?
}

/// The permissions of a mode; the guest has applied its umask.
fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}
