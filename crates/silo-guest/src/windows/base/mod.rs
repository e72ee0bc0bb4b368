//! Windows bases: local stand-ins for Microsoft's base images, made from the distribution's Wine packages.
//!
//! Story: [`build`] obtains the packages, keeps of them what the [`Family`] needs, lets Wine set up its registry,
//! gives that the identity of Windows Server, adds the programs of `inside/windows`, and leaves a directory tree:
//! `Files/` (what is `C:`, the registry's hives among it) and `Host/` (the Linux root: Wine's Linux side and init). [`BuiltBase::write_archive`] writes it as an image that `docker load` takes. Equal packages and programs
//! give equal bytes.

mod archive;
mod build;
mod elf;
mod identity;
mod packages;
mod pe;
mod prune;
mod registry;
mod root;
mod setup;
mod stack;
mod tools;
mod unpack;
mod user_name;
mod wine;

use std::path::PathBuf;

/// A base's top directory of the Linux side, in Linux' form.
pub(super) const HOST: &str = "Host";

pub use archive::ArchiveError;
pub use build::{BaseError, BuiltBase, build};
pub use packages::{PackageError, PackageSource, download};

/// Which of Microsoft's base images a base stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Console programs only, 64-bit only.
    NanoServer,
    /// All of Wine's Windows side, and 32-bit programs.
    ServerCore,
}

impl Family {
    /// As typed: `nanoserver`, `servercore`.
    pub fn parse(name: &str) -> Option<Family> {
        match name {
            "nanoserver" => Some(Family::NanoServer),
            "servercore" => Some(Family::ServerCore),
            _ => None,
        }
    }

    /// As typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::NanoServer => "nanoserver",
            Family::ServerCore => "servercore",
        }
    }

    /// The image reference that a built base gets.
    pub fn reference(self) -> &'static str {
        match self {
            Family::NanoServer => "silo/nanoserver:ltsc2022",
            Family::ServerCore => "silo/servercore:ltsc2022",
        }
    }

    fn installation_type(self) -> &'static str {
        match self {
            Family::NanoServer => "Nano Server",
            Family::ServerCore => "Server Core",
        }
    }

    fn edition(self) -> &'static str {
        match self {
            Family::NanoServer => "ServerDatacenterNano",
            Family::ServerCore => "ServerDatacenter",
        }
    }
}

/// What to build, from what, where.
#[derive(Debug, Clone)]
pub struct BaseOptions {
    /// Which base.
    pub family: Family,
    /// Where the packages come from.
    pub packages: PackageSource,
    /// Directory with the built programs of `inside/windows`: as `INSIDE` in `build.rs` lists them.
    pub inside: PathBuf,
    /// Directory for downloads and the tree; fetched packages stay in it, the tree is made anew.
    pub work: PathBuf,
}
