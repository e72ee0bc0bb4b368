//! Fetches what a base is made of into a directory.

use std::fs;
use std::path::Path;

use super::family::Family;
use super::packages::{self, PackageError, PackageSource, io};
use super::sources;

/// Fetches a base's packages from the host's mirror into `directory`, laid out as [`PackageSource::Directory`] wants
/// them: for hosts without a mirror, and for building the same base again. `work` is a directory that is this call's own.
pub fn download(family: Family, directory: &Path, work: &Path) -> Result<(), PackageError> {
    let source = PackageSource::HostsMirror;
    let packages = packages::obtain(&source, family == Family::ServerCore, work)?;
    let version =
        packages::version(&packages, "libwine").ok_or_else(|| PackageError::Empty(directory.to_owned()))?;
    let files = sources::find(&source, &version, work)?.map(|sources| sources.files()).transpose()?;
    let sources = files.into_iter().flat_map(|files| [files.source, files.compiler]).flatten();
    let own = directory.join("source");
    fs::create_dir_all(&own).map_err(io(format!("creating {}", own.display())))?;
    for (path, to) in
        packages.iter().map(|path| (path.clone(), directory)).chain(sources.map(|path| (path, &*own)))
    {
        let to = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &to).map_err(io(format!("copying {} to {}", path.display(), to.display())))?;
    }
    Ok(())
}
