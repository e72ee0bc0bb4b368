//! Requests about extended attributes: `user.*` and file capabilities. What else there is speaks of the host.

use std::ffi::CStr;

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::tree::Tree;
use super::wire::{Body, Header, Reply};

/// Longest value and longest list (linux/limits.h), bytes.
const XATTR_MAX: usize = 64 << 10;

impl Tree {
    pub(super) fn setxattr(&self, header: &Header, body: &mut Body<'_>) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let (size, flags) = (body.u32()? as usize, body.u32()?);
        let name = allowed(body.text()?)?;
        let value = body.data(size)?;
        let flags = XattrFlags::from_bits_truncate(flags);
        rustix::fs::setxattr(self.path(&node), name, value, flags)
    }

    pub(super) fn getxattr(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let (size, _) = (body.u32()? as usize, body.u32()?);
        let name = allowed(body.text()?)?;
        if size == 0 {
            let size = rustix::fs::getxattr(self.path(&node), name, &mut [0u8; 0][..])?;
            return reply.u32s(&[size as u32, 0]);
        }
        let room = reply.room(size.min(XATTR_MAX))?;
        let got = rustix::fs::getxattr(self.path(&node), name, room)?;
        reply.took(got);
        Ok(())
    }

    pub(super) fn listxattr(&self, header: &Header, body: &mut Body<'_>, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let (size, _) = (body.u32()? as usize, body.u32()?);
        let mut all = vec![0u8; XATTR_MAX];
        let len = rustix::fs::listxattr(self.path(&node), &mut all[..])?;
        let listed = || all[..len].split_inclusive(|&b| b == 0).filter(|name| is_allowed(name));
        let total: usize = listed().map(<[u8]>::len).sum();
        if size == 0 {
            return reply.u32s(&[total as u32, 0]);
        }
        if total > size {
            return Err(Errno::RANGE);
        }
        listed().try_for_each(|name| reply.put(name))
    }

    pub(super) fn removexattr(&self, header: &Header, body: &mut Body<'_>) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        rustix::fs::removexattr(self.path(&node), allowed(body.text()?)?)
    }
}

fn allowed(name: &CStr) -> Result<&CStr> {
    if is_allowed(name.to_bytes_with_nul()) { Ok(name) } else { Err(Errno::OPNOTSUPP) }
}

fn is_allowed(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability\0"
}
