//! Images: content, references, layer chains, archives. A chain is a list of unpacked layer directories.
//!
//! Owns [`Digest`], [`Reference`], image configs and the store's files: `content/`, `snapshots/`, `images/`.
//! Must not know: what a guest OS means beyond the config's words, containers, the engine.

mod changes;
mod config;
mod digest;
mod error;
mod layers;
mod load;
mod make;
mod platform;
mod reference;
mod remove;
mod save;
mod store;

pub use config::{ContainerConfig, Healthcheck, HistoryEntry, ImageConfig};
pub use digest::{ChainId, Digest};
pub use error::ImageError;
pub use load::{LoadedImage, Progress};
pub use make::{Commit, ImportOptions};
pub use platform::Platform;
pub use reference::Reference;
pub use remove::Removed;
pub use silo_layer as layer;
pub use store::{HistoryLine, Image, ImageStore};

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Bytes and inodes below a directory.
pub fn disk_usage(dir: &Path) -> io::Result<(u64, u64)> {
    silo_layer::usage(dir)
}

/// Copies what a chain has at `inside` into a directory (volumes that start with the image's content).
pub fn copy_up(layers: &[PathBuf], files: &str, inside: &Path, to: &Path) -> io::Result<()> {
    silo_layer::copy_up(layers, files, inside, to)
}

/// Opens a path as a process whose root is `root` would.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: rustix::fs::OFlags) -> io::Result<OwnedFd> {
    silo_sys::beneath::open_in_root(root, path, flags, rustix::fs::Mode::empty())
}
