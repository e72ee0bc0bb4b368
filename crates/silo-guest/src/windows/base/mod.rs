//! Windows bases: local stand-ins for Microsoft's base images, made from the distribution's Wine packages.
//!
//! Story: [`build`] obtains the packages, keeps of them what the [`Family`] needs, lets Wine set up its registry,
//! gives that the identity of Windows Server, adds the programs of `inside/windows`, and leaves a directory tree:
//! `Files/` (what is `C:`, the registry's hives among it) and `Host/` (the Linux root: Wine's Linux side and init). [`BuiltBase::write_archive`] writes it as an image that `docker load` takes. Equal packages and programs
//! give equal bytes.

mod archive;
mod build;
mod download;
mod elf;
mod family;
mod identity;
mod lineage;
mod own_files;
mod packages;
mod pe;
mod prune;
mod registry;
mod root;
mod setup;
mod sources;
mod stack;
mod tools;
mod unpack;
mod user_name;
mod wine;

pub(super) use archive::{HOST, build_archive};

pub use archive::ArchiveError;
pub use build::{BaseError, BaseOptions, BuiltBase, build};
pub use download::download;
pub use family::Family;
pub(in crate::windows) use identity::os_version;
pub use lineage::read_digests;
pub(in crate::windows) use lineage::{base_layers, of_repository};
pub use packages::{PackageError, PackageSource};
