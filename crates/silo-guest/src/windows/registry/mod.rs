//! The registry of a Windows container: hives in the layers of an image, Wine's text files in a running guest.
//!
//! Story: [`chain`] merges what the layers of a chain say into one set of [`hives::Hives`], through [`links`];
//! [`projection`] writes that as the files that Wine loads, once for each chain, in the form of [`text`]; [`capture`] reads
//! what a container made of them and finds what changed, as the delta hives of a layer.

pub(super) mod capture;
pub(super) mod chain;
mod escape;
mod fuzz;
pub(super) mod hives;
mod links;
mod machine;
pub(super) mod projection;
pub(super) mod text;

pub use fuzz::fuzz_wine_registry_text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use silo_hive::HiveError;

use self::text::TextError;

/// Why a registry cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A hive of a layer.
    #[error("{}: {source}", .path.display())]
    Hive {
        /// The hive's file.
        path: PathBuf,
        /// What is wrong with it.
        source: HiveError,
    },
    /// What a layer says of a key that is a link.
    #[error("{}: {source}", .layer.display())]
    Link {
        /// The layer.
        layer: PathBuf,
        /// Why it cannot be said of the link's target.
        source: links::LinkError,
    },
    /// A registry file of Wine's.
    #[error("{}: {source}", .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TextError,
    },
    /// Input/output.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Io { doing, path, source }
}

fn hive_error(path: &Path) -> impl FnOnce(HiveError) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Hive { path, source }
}

/// Reads a file of at most `largest` bytes. Layers and containers fill these directories: no link is followed, nothing but a
/// regular file is read, and nothing is waited for.
fn read_file(path: &Path, largest: u64) -> Result<Vec<u8>, RegistryError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let read = || -> io::Result<Vec<u8>> {
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > largest {
            return Err(io::Error::other(format!("it is no file, or larger than {} MiB", largest >> 20)));
        }
        let mut bytes = Vec::new();
        file.take(largest).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(at("reading", path))
}
