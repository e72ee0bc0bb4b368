//! A build's context: the files that a client sends, or an URL leads to, in a directory of the build's own.
//!
//! Story: [`Context::receive`] unpacks the request's body while it comes, or [`Context::remote`] fetches what `remote=` names;
//! [`Context::dockerfile`] reads the Dockerfile; then [`Context::ignore_file`] gives the text by which [`Context::leave_out`]
//! removes what is ignored, the Dockerfile itself perhaps. [`Context::tree`] is what `COPY` looks in.

mod error;
mod fetch;
mod git;
mod remote;
#[cfg(test)]
mod tests;
mod url;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode, OFlags};
use silo_image::{Cancel, RegistrySettings, layer};

use crate::copy::Tree;

pub use error::ContextError;
pub use fetch::fetch;
pub use git::{GitSource, clone};
pub use url::{git_source, is_url};

/// The Dockerfile's name unless another is given.
pub const DOCKERFILE: &str = "Dockerfile";
const IGNORE: &str = ".dockerignore";
/// Longest Dockerfile and `.dockerignore`, bytes.
const LONGEST: u64 = 16 << 20;
/// Bytes after an archive that are read, so that the client is not cut off while it sends them.
const MOST_AFTER: u64 = 64 << 20;
/// How long is read what follows.
const DRAIN: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, ContextError>;

/// The files. The directory goes with it.
#[derive(Debug)]
pub struct Context {
    directory: PathBuf,
    /// `remote=` named a Dockerfile alone.
    alone: Option<String>,
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!("removing a build's context {}: {e}", self.directory.display());
        }
    }
}

impl Context {
    /// Makes an empty one. `directory` must not be there yet, and be on the file system of the layers for speed.
    pub fn empty(directory: &Path) -> Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(ContextError::io(format!("making {}", directory.display())))?;
        Ok(Self { directory: directory.to_owned(), alone: None })
    }

    /// Unpacks a tar stream, compressed in any way, as it comes. Owners are root's; what would lie outside is an error.
    pub fn receive(body: Box<dyn Read + Send>, directory: &Path, limits: &layer::Limits) -> Result<Self> {
        let context = Self::empty(directory)?;
        unpack(body, directory, limits)?;
        Ok(context)
    }

    /// What an URL leads to: an archive, a Dockerfile, or a git repository.
    pub fn remote(
        url: &str,
        directory: &Path,
        settings: &Arc<RegistrySettings>,
        cancel: &Cancel,
        limits: &layer::Limits,
    ) -> Result<Self> {
        let mut context = Self::empty(directory)?;
        context.alone = remote::into(url, directory, settings, cancel, limits)?;
        Ok(context)
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `COPY` and `ADD` look in.
    pub fn tree(&self) -> Tree {
        Tree::context(&self.directory)
    }

    /// The Dockerfile's text and the path at which it was found; `path` empty: the usual one. Links are followed inside.
    pub fn dockerfile(&self, path: &str) -> Result<(String, String)> {
        if let Some(text) = &self.alone {
            return Ok((text.clone(), DOCKERFILE.to_owned()));
        }
        let path = path.replace('\\', "/");
        let mut path = path.trim_start_matches("./").to_owned();
        if path.is_empty() {
            path = DOCKERFILE.to_owned();
        }
        let lower = path.to_ascii_lowercase();
        let found = match self.read(&path)? {
            None if path == DOCKERFILE => self.read(&lower)?.map(|text| (text, lower)),
            found => found.map(|text| (text, path.clone())),
        };
        let (text, path) = found.ok_or(ContextError::NoDockerfile(path))?;
        match text.trim().is_empty() {
            true => Err(ContextError::EmptyDockerfile(path)),
            false => Ok((text, path)),
        }
    }

    /// The patterns that say what is left out: those beside the Dockerfile (`Dockerfile.dockerignore`), or the context's.
    pub fn ignore_file(&self, dockerfile: &str) -> Result<Option<String>> {
        match self.read(&format!("{dockerfile}{IGNORE}"))? {
            None => self.read(IGNORE),
            found => Ok(found),
        }
    }

    /// A small text in the context; `None`: there is no such file.
    fn read(&self, path: &str) -> Result<Option<String>> {
        let doing = || format!("reading {path}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(&self.directory, flags, Mode::empty()).map_err(ContextError::io(doing()))?;
        // A device of this name is not even opened before it is known what it is.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = match silo_image::open_in_root(root.as_fd(), Path::new(path), flags) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => File::from(other.map_err(ContextError::io(doing()))?),
        };
        if !found.metadata().map_err(ContextError::io(doing()))?.is_file() {
            return Err(ContextError::Invalid(format!("{path} is no file")));
        }
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let file = file.map_err(ContextError::io(doing()))?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(ContextError::io(doing()))?;
        if bytes.len() as u64 > LONGEST {
            return Err(ContextError::Invalid(format!("{path} has more than {LONGEST} bytes")));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|e| ContextError::Invalid(format!("{path} is not UTF-8: {e}")))?;
        Ok(Some(text.to_owned()))
    }

    /// Removes what is ignored: files and links, then directories that are ignored and empty.
    pub fn leave_out(&self, is_ignored: &dyn Fn(&Path) -> bool) -> Result<()> {
        leave_out(&self.directory, Path::new(""), is_ignored, 0)
    }
}

/// Directories below each other.
const DEEPEST: usize = 900;

fn leave_out(directory: &Path, at: &Path, is_ignored: &dyn Fn(&Path) -> bool, depth: usize) -> Result<()> {
    let doing = |what: &str, path: &Path| ContextError::io(format!("{what} {}", path.display()));
    if depth > DEEPEST {
        return Err(ContextError::Invalid(format!("{} is too deep", at.display())));
    }
    for entry in std::fs::read_dir(directory.join(at)).map_err(doing("reading", at))? {
        let entry = entry.map_err(doing("reading", at))?;
        let path = at.join(entry.file_name());
        let ignored = is_ignored(&path);
        if entry.file_type().map_err(doing("reading", &path))?.is_dir() {
            leave_out(directory, &path, is_ignored, depth + 1)?;
            if ignored {
                match std::fs::remove_dir(entry.path()) {
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    other => other.map_err(doing("removing", &path))?,
                }
            }
        } else if ignored {
            std::fs::remove_file(entry.path()).map_err(doing("removing", &path))?;
        }
    }
    Ok(())
}

/// Unpacks a tar, compressed in any way, into a directory that is there.
fn unpack(body: Box<dyn Read + Send>, directory: &Path, limits: &layer::Limits) -> Result<()> {
    let doing = || "unpacking the context".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(directory, flags, Mode::empty()).map_err(ContextError::io(doing()))?;
    let mut plain = layer::decompress(body).map_err(ContextError::io(doing()))?;
    let options = layer::ExtractOptions { limits: Some(limits.clone()), ..Default::default() };
    let unpacked = layer::extract(root.as_fd(), Path::new("/"), &mut plain, &options, None);
    drain(&mut plain, if unpacked.is_ok() { MOST_AFTER } else { u64::MAX });
    unpacked.map_err(|e| ContextError::Invalid(format!("{}: {e}", doing())))
}

/// Reads what a client still sends, for a while: one that cannot send would not read why.
fn drain(from: &mut dyn Read, most: u64) {
    let (began, mut left, mut buffer) = (Instant::now(), most, vec![0; 256 << 10]);
    while left > 0 && began.elapsed() < DRAIN {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n as u64),
        }
    }
}
