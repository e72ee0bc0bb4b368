//! Images: content, references, layer chains, archives. A chain is a list of unpacked layer directories.
//!
//! Owns [`Digest`], [`Reference`], image configs and the store's files: `content/`, `snapshots/`, `images/`.
//! Must not know: what a guest OS means beyond the config's words, containers, the engine.

mod changes;
mod check;
mod config;
mod content;
mod digest;
mod download;
mod error;
mod gzip;
mod hashing;
mod holders;
mod layers;
mod lease;
mod load;
mod make;
mod manifest;
mod member;
mod passing;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod remove;
mod save;
mod split;
mod state;
mod store;
mod substitute;
mod unsynced;
mod usage;

pub use changes::{NextDirectory, Rules};
pub use check::Checked;
pub use config::{ContainerConfig, Healthcheck, HistoryEntry, ImageConfig};
pub use digest::{ChainId, Digest};
pub use download::{Download, download};
pub use error::ImageError;
pub use lease::Lease;
pub use load::{LoadedImage, Progress};
pub use make::{Commit, ImportOptions};
pub use manifest::{Choice, DescribedPlatform, Descriptor};
pub use platform::Platform;
pub use progress::{Tell, Told};
pub use pull::{Described, PullOptions};
pub use push::PushOptions;
pub use reference::Reference;
pub use registry::{Cancel, Credentials, DEFAULT_SERVER, RegistryError, RegistrySettings};
pub use remove::{Removal, Removed};
pub use silo_layer as layer;
pub use state::{BuiltLayer, LayerFiles, NextState, State};
pub use store::{HistoryLine, Image, ImageStore};
pub use substitute::{Candidate, Decide, Substitute};
pub use usage::{ImageUsage, Usage};

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

/// What a chain has at `inside`, and how that is spelled there; `windows`: in whatever spelling.
pub fn shown_at(
    layers: &[PathBuf],
    files: &str,
    inside: &Path,
    windows: bool,
) -> io::Result<Option<(PathBuf, rustix::fs::FileType)>> {
    silo_layer::shown_at(layers, files, inside, windows)
}

/// Opens a path as a process whose root is `root` would.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: rustix::fs::OFlags) -> io::Result<OwnedFd> {
    silo_sys::beneath::open_in_root(root, path, flags, rustix::fs::Mode::empty())
}
