//! Bytes that are too large for an extended attribute, kept in the layer's `Aside` under their digest.
//!
//! A value is `=` and the bytes themselves, or `#` and the SHA-256 of a file of `Aside` in hexadecimal. Copying a file up
//! into a container's layer copies its attributes, so a value may name a file of any layer of the chain.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Name of the directory beside `Files`.
pub(super) const DIRECTORY: &str = "Aside";
/// Longest value in the attribute itself: on ext4 all attributes of a file share 4096 bytes.
pub(super) const INLINE: usize = 1024;
/// Longest value that is read into memory.
const LARGEST: u64 = 16 << 20;

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `Aside` of the tree that is being unpacked to.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(super) fn new(tree: &Path) -> Self {
        Self { directory: tree.join(DIRECTORY) }
    }

    /// Keeps what `content` gives, `size` bytes; returns the value that stands for it.
    pub(super) fn keep(&self, content: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
        if size <= INLINE as u64 {
            let mut value = b"=".to_vec();
            content.read_to_end(&mut value)?;
            return Ok(value);
        }
        fs::create_dir_all(&self.directory)?;
        let new = self.directory.join("new");
        let mut file = File::create(&new)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hash.update(&buffer[..n]);
                    file.write_all(&buffer[..n])?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let digest = hex(&hash.finalize());
        rustix::fs::rename(&new, self.directory.join(&digest))?;
        Ok(format!("#{digest}").into_bytes())
    }

    /// Keeps bytes that are in memory.
    pub(super) fn keep_bytes(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.keep(&mut &bytes[..], bytes.len() as u64)
    }
}

/// The `Aside` directories of a chain.
#[derive(Debug)]
pub(super) struct Chain(Vec<PathBuf>);

/// What a value stands for, to be read once.
pub(super) enum Content {
    Bytes(io::Cursor<Vec<u8>>),
    File(File, u64),
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.get_ref().len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::File(file, _) => file.read(buffer),
        }
    }
}

impl Chain {
    /// `trees`: all layers that an attribute may come from.
    pub(super) fn new<'p>(trees: impl Iterator<Item = &'p Path>) -> Self {
        Self(trees.map(|tree| tree.join(DIRECTORY)).collect())
    }

    /// Opens what a value stands for.
    pub(super) fn open(&self, value: &[u8]) -> io::Result<Content> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        match value.split_first() {
            Some((b'=', bytes)) => Ok(Content::Bytes(io::Cursor::new(bytes.to_vec()))),
            Some((b'#', digest)) => {
                // Programs in the container can write attributes; nothing but a digest may become a path.
                let digest = std::str::from_utf8(digest).ok().filter(|d| {
                    d.len() == 64 && d.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                });
                let digest = digest.ok_or_else(|| bad("an attribute holds a malformed digest"))?;
                for directory in &self.0 {
                    match File::open(directory.join(digest)) {
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        other => {
                            let file = other?;
                            let size = file.metadata()?.len();
                            return Ok(Content::File(file, size));
                        }
                    }
                }
                Err(bad("an attribute names what no layer of the chain keeps"))
            }
            _ => Err(bad("an attribute is malformed")),
        }
    }

    /// Reads what a value stands for.
    pub(super) fn bytes(&self, value: &[u8]) -> io::Result<Vec<u8>> {
        let content = self.open(value)?;
        if content.size() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an attribute is too large"));
        }
        let mut bytes = Vec::new();
        content.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
