//! What a bundle is put together of: mounts, id mappings, directories that belong to the container.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use crate::contract::GuestError;

pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> GuestError {
    let doing = doing.into();
    move |source| GuestError::Io { doing, source }
}

pub(super) fn own_directory(directory: &Path, owner: u32) -> Result<(), GuestError> {
    let doing = || io(format!("making {}", directory.display()));
    fs::create_dir_all(directory).map_err(doing())?;
    std::os::unix::fs::chown(directory, Some(owner), Some(owner)).map_err(doing())
}

pub(super) fn mount(at: &str, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(at.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

pub(super) fn mapping(from: u32, to: u32, size: u32) -> Vec<LinuxIdMapping> {
    let mapping = LinuxIdMappingBuilder::default().container_id(from).host_id(to).size(size).build();
    // Complete by construction: the builder fails on missing fields only.
    mapping.into_iter().collect()
}
