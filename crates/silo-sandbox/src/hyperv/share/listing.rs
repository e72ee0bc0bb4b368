//! Requests that list a directory.

use std::mem::MaybeUninit;

use rustix::fs::{FileType, RawDir, RawDirEntry, SeekFrom, Statx};
use rustix::io::{Errno, Result};

use super::nodes::{Node, lock};
use super::tree::{Tree, stat};
use super::wire::{Body, Header, MAX_DATA, Reply};

/// Most bytes read of a directory at a time; enough for any one entry is the least.
const CHUNK: std::ops::RangeInclusive<usize> = 512..=32 << 10;
/// `struct fuse_entry_out` and `struct fuse_dirent`.
const ENTRY_OUT: usize = 128;
const DIRENT: usize = 24;

impl Tree {
    pub(super) fn opendir(&self, header: &Header, reply: &mut Reply) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        reply.u64s(&[self.keep(self.open_directory(&node)?)?])?;
        reply.u32s(&[0, 0])
    }

    /// Entries from an offset on, as many as fit; with `plus` each is looked up too.
    pub(super) fn readdir(
        &self,
        header: &Header,
        body: &mut Body<'_>,
        reply: &mut Reply,
        plus: bool,
    ) -> Result<()> {
        let node = self.nodes.get(header.node)?;
        let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()? as usize);
        let (handle, size) = (self.handle(handle)?, size.min(MAX_DATA));
        let own = stat(&handle.fd)?;
        let mut next = lock(&handle.next_entry);
        if *next != Some(offset) {
            rustix::fs::seek(&handle.fd, SeekFrom::Start(offset))?;
        }
        *next = None;
        // About as much as the reply takes: what is read beyond is read again.
        let mut chunk = [MaybeUninit::uninit(); *CHUNK.end()];
        let len = (if plus { size / 5 } else { size }).clamp(*CHUNK.start(), *CHUNK.end());
        let mut entries = RawDir::new(&handle.fd, &mut chunk[..len]);
        let mut last = offset;
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // What has been looked up must reach the guest.
                Err(_) if reply.size() > 0 => return Ok(()),
                Err(e) => return Err(e),
            };
            let need = DIRENT + entry.file_name().count_bytes().next_multiple_of(8);
            if reply.size() + need + if plus { ENTRY_OUT } else { 0 } > size {
                return Ok(());
            }
            if !plus || self.put_looked_up(&node, &entry, reply)? {
                self.put_dirent(&own, &entry, reply)?;
            }
            last = entry.next_entry_cookie();
            if entries.is_buffer_empty() && reply.size() > 0 {
                break;
            }
        }
        *next = Some(last);
        Ok(())
    }

    /// Answers with the entry itself; `false`: it is gone.
    fn put_looked_up(&self, parent: &Node, entry: &RawDirEntry<'_>, reply: &mut Reply) -> Result<bool> {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return reply.no_entry().map(|()| true);
        }
        match self.enter(parent, name) {
            Ok(found) => self.put_entry(reply, Ok(found)).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            // The guest finds out by itself when it wants to know.
            Err(_) => reply.no_entry().map(|()| true),
        }
    }

    fn put_dirent(&self, own: &Statx, entry: &RawDirEntry<'_>, reply: &mut Reply) -> Result<()> {
        let name = entry.file_name().to_bytes();
        reply.u64s(&[self.nodes.inode_beside(own, entry.ino()), entry.next_entry_cookie()])?;
        reply.u32s(&[name.len() as u32, kind_bits(entry.file_type())])?;
        reply.put(name)?;
        reply.put(&[0; 8][..name.len().next_multiple_of(8) - name.len()])
    }
}

/// `DT_*` of a kind.
fn kind_bits(kind: FileType) -> u32 {
    if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() >> 12 }
}
