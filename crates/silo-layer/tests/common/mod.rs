//! Builds archives and reads trees for the tests.

#![allow(dead_code)]

pub(crate) mod windows;

use std::path::Path;

use silo_layer::{LayerError, Limits, Unpacked, pack_upper, unpack};
use tar::{EntryType, Header};

/// An archive built by hand, so that it can hold what no builder would write.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// Adds an entry of any type with any name.
    pub(crate) fn add(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_entry_type(kind);
        if kind.is_character_special() {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, name, "", content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, name, to, b"")
    }

    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.add(EntryType::Link, name, to, b"")
    }

    /// A PAX header for the entry that follows.
    pub(crate) fn pax(self, key: &str, value: &[u8]) -> Self {
        let mut length = key.len() + value.len() + 4;
        while length != key.len() + value.len() + 3 + length.to_string().len() {
            length = key.len() + value.len() + 3 + length.to_string().len();
        }
        let record = [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
        self.add(EntryType::XHeader, "pax", "", &record)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn unpack_to(tar: &[u8], to: &Path) -> Result<Unpacked, LayerError> {
    unpack(&mut &tar[..], to, &Limits::default())
}

pub(crate) fn packed(upper: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    pack_upper(upper, 0, &[], &mut out).unwrap();
    out
}

/// Names of the entries of an archive.
pub(crate) fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive
        .entries()
        .unwrap()
        .map(|e| String::from_utf8(e.unwrap().path_bytes().into_owned()).unwrap())
        .collect()
}
