//! FUSE messages as bytes: headers, a request's fields, a reply (linux/fuse.h, protocol 7.36).

use std::ffi::CStr;

use rustix::fs::{Statx, StatxTimestamp};
use rustix::io::{Errno, Result};

/// `struct fuse_in_header`.
pub(super) const HEADER_IN: usize = 40;
/// `struct fuse_out_header`.
const HEADER_OUT: usize = 16;
/// Most data of one READ or WRITE, bytes.
pub(super) const MAX_DATA: usize = 1 << 20;
/// Longest message either way: the data and a page for headers.
pub(super) const MAX_MESSAGE: usize = MAX_DATA + 4096;
/// Length of a name, as every file system of Linux has it.
const NAME_MAX: usize = 255;
/// Length of a symbolic link's target.
const PATH_MAX: usize = 4096;
/// How long the guest may believe names and attributes, seconds.
const TIMEOUT: u64 = 1;

/// Opcodes.
pub(super) mod op {
    #![allow(missing_docs)]
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
}

/// What is used of a request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// What is asked, see [`op`].
    pub(super) opcode: u32,
    /// Names the request in its reply.
    pub(super) unique: u64,
    /// The file or directory it is about.
    pub(super) node: u64,
    /// Who asks, as the mount shows ids.
    pub(super) uid: u32,
    /// And of which group.
    pub(super) gid: u32,
}

/// A request's length, by the first bytes of it: `None` when it is no length of a message.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let len = u32::from_ne_bytes(*head.first_chunk()?) as usize;
    (HEADER_IN..=MAX_MESSAGE).contains(&len).then_some(len)
}

/// Splits a whole request.
pub(super) fn request(message: &[u8]) -> Result<(Header, Body<'_>)> {
    let mut body = Body(message);
    let _length = body.u32()?;
    let header = Header {
        opcode: body.u32()?,
        unique: body.u64()?,
        node: body.u64()?,
        uid: body.u32()?,
        gid: body.u32()?,
    };
    let _pid_and_padding = body.u64()?;
    Ok((header, body))
}

/// The rest of a request; each call takes a field off its front. EINVAL where the bytes end too early.
#[derive(Debug)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn u32(&mut self) -> Result<u32> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*bytes))
    }

    /// A name in a directory: one component, not `.` or `..`.
    pub(super) fn name(&mut self) -> Result<&'a CStr> {
        let name = self.text()?;
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(name),
        }
    }

    /// Text up to a NUL, of any bytes.
    pub(super) fn text(&mut self) -> Result<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[text.count_bytes() + 1..];
        if text.count_bytes() >= PATH_MAX { Err(Errno::NAMETOOLONG) } else { Ok(text) }
    }

    /// Exactly `len` bytes.
    pub(super) fn data(&mut self, len: usize) -> Result<&'a [u8]> {
        let (data, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(data)
    }
}

/// A reply under construction, in memory of its longest length that is used again and again.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: Box<[u8]>,
    len: usize,
}

impl Reply {
    pub(super) fn new() -> Reply {
        Reply { bytes: vec![0; MAX_MESSAGE].into(), len: HEADER_OUT }
    }

    /// Back to nothing behind the header.
    pub(super) fn clear(&mut self) {
        self.len = HEADER_OUT;
    }

    /// The message: what was put in, or the error alone.
    pub(super) fn finish(&mut self, unique: u64, result: Result<()>) -> &[u8] {
        let error = match result {
            Ok(()) => 0,
            Err(e) => {
                self.clear();
                -e.raw_os_error()
            }
        };
        self.bytes[..4].copy_from_slice(&(self.len as u32).to_ne_bytes());
        self.bytes[4..8].copy_from_slice(&error.to_ne_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        &self.bytes[..self.len]
    }

    /// Bytes behind the header.
    pub(super) fn size(&self) -> usize {
        self.len - HEADER_OUT
    }

    /// `len` bytes to be filled in; what they hold is of earlier replies. EINVAL when a message has no such room.
    pub(super) fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        self.bytes[self.len..].get_mut(..len).ok_or(Errno::INVAL)
    }

    /// Takes `len` bytes that [`Reply::room`] gave.
    pub(super) fn took(&mut self, len: usize) {
        self.len = (self.len + len).min(self.bytes.len());
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        self.took(bytes.len());
        Ok(())
    }

    pub(super) fn u32s(&mut self, values: &[u32]) -> Result<()> {
        values.iter().try_for_each(|v| self.put(&v.to_ne_bytes()))
    }

    pub(super) fn u64s(&mut self, values: &[u64]) -> Result<()> {
        values.iter().try_for_each(|v| self.put(&v.to_ne_bytes()))
    }

    /// `struct fuse_entry_out`. Node 0: there is no such name, or (in a listing) it was not looked up.
    pub(super) fn entry(&mut self, node: u64, inode: u64, stat: &Statx) -> Result<()> {
        self.u64s(&[node, 0, TIMEOUT, TIMEOUT])?;
        self.u32s(&[0, 0])?;
        self.attributes(inode, stat)
    }

    /// A `struct fuse_entry_out` of nothing: the guest may believe for a while that there is no such name, or (in
    /// a listing) has to look it up itself.
    pub(super) fn no_entry(&mut self) -> Result<()> {
        self.u64s(&[0, 0, TIMEOUT, 0])?;
        self.put(&[0; 96])
    }

    /// `struct fuse_attr_out`.
    pub(super) fn attr(&mut self, inode: u64, stat: &Statx) -> Result<()> {
        self.u64s(&[TIMEOUT, 0])?;
        self.attributes(inode, stat)
    }

    fn attributes(&mut self, inode: u64, stat: &Statx) -> Result<()> {
        let seconds = |t: &StatxTimestamp| t.tv_sec as u64;
        self.u64s(&[inode, stat.stx_size, stat.stx_blocks])?;
        self.u64s(&[seconds(&stat.stx_atime), seconds(&stat.stx_mtime), seconds(&stat.stx_ctime)])?;
        self.u32s(&[stat.stx_atime.tv_nsec, stat.stx_mtime.tv_nsec, stat.stx_ctime.tv_nsec])?;
        self.u32s(&[u32::from(stat.stx_mode), stat.stx_nlink, stat.stx_uid, stat.stx_gid])?;
        // new_encode_dev() of linux/kdev_t.h.
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        self.u32s(&[device, stat.stx_blksize, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_component_is_a_name() {
        let name = |bytes: &'static [u8]| Body(bytes).name().map(CStr::to_bytes);
        assert_eq!(name(b"a b\0rest"), Ok(&b"a b"[..]));
        assert_eq!(name(b"..a\0"), Ok(&b"..a"[..]));
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"no end", b""] {
            assert_eq!(name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        let long = [&[b'x'; 256][..], b"\0"].concat();
        assert_eq!(Body(&long).name(), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn a_length_is_of_a_header_at_least_and_of_a_message_at_most() {
        let of = |n: u32| length(&n.to_ne_bytes());
        assert_eq!((of(39), of(40)), (None, Some(40)));
        assert_eq!((of(MAX_MESSAGE as u32), of(MAX_MESSAGE as u32 + 1)), (Some(MAX_MESSAGE), None));
        assert_eq!(length(b"abc"), None);
    }

    #[test]
    fn a_reply_never_grows_beyond_its_longest_length() {
        let mut reply = Reply::new();
        reply.put(&[1; MAX_DATA]).unwrap();
        assert_eq!(reply.put(&[1; 4096]), Err(Errno::INVAL));
        assert_eq!(reply.finish(7, Ok(())).len(), MAX_DATA + HEADER_OUT);
        assert_eq!(reply.finish(7, Err(Errno::NOENT)).len(), HEADER_OUT);
    }
}
