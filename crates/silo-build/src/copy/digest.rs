//! The digest of what a copy's sources are.

use std::os::unix::ffi::OsStrExt;

use rustix::fs;
use sha2::{Digest as _, Sha256};
use silo_image::Digest;

use super::hash::{Hashes, for_each};
use super::nodes::{Content, Node, Piece, attributes};
use super::request::{CopyError, Doing};

type Result<T> = std::result::Result<T, CopyError>;

/// Hashes contents, reads attributes, and gives the digest of all.
pub(super) fn digest(
    pieces: &mut [Piece],
    hashes: &Hashes,
    chown: Option<(u32, u32)>,
    windows: bool,
) -> Result<Digest> {
    let mut all = Sha256::new();
    for piece in pieces {
        for_each(&mut piece.nodes, |node| complete(node, hashes, windows))?;
        let mut field = |bytes: &[u8]| {
            all.update((bytes.len() as u64).to_le_bytes());
            all.update(bytes);
        };
        field(b"piece");
        field(piece.name.as_ref().map_or(&b"/"[..], |name| name.as_bytes()));
        if let Some(archive) = &piece.archive {
            let reading = || format!("reading {}", archive.display());
            let stat = fs::stat(archive).doing(reading)?;
            field(b"archive");
            field(&hashes.of(archive, &stat).doing(reading)?);
            field(format!("{chown:?}").as_bytes());
        }
        for node in &piece.nodes {
            field(node.path.as_os_str().as_bytes());
            field(format!("{:o} {:?}", node.mode, node.owner).as_bytes());
            match &node.content {
                Content::Directory => field(b"directory"),
                Content::File | Content::Bytes(_) => {
                    field(b"file");
                    field(&node.hash.unwrap_or_default());
                }
                Content::Link(to) => {
                    field(b"link");
                    field(to.as_os_str().as_bytes());
                }
                Content::Other(kind, device) => {
                    field(b"other");
                    field(format!("{kind:?} {device}").as_bytes());
                }
            }
            for (name, value) in &node.xattrs {
                field(name.as_bytes());
                field(value);
            }
        }
    }
    let text: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::parse(&format!("sha256:{text}"))
        .ok_or_else(|| CopyError::Refused("a digest that is none".to_owned()))
}

/// Reads what a node's digest needs beyond its names.
fn complete(node: &mut Node, hashes: &Hashes, windows: bool) -> Result<()> {
    let Some(stat) = &node.stat else { return Ok(()) };
    let reading = || format!("reading {}", node.from.display());
    if matches!(node.content, Content::File) {
        node.hash = Some(hashes.of(&node.from, stat).doing(reading)?);
    }
    node.xattrs = attributes(&node.from, windows).doing(reading)?;
    Ok(())
}
