//! What the layers of a chain say the registry is.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use silo_hive::{Hive, HiveError};

use super::hives::{Hives, PLACES, of_user};
use super::{RegistryError, at, hive_error, links, read_file};

/// A larger hive is refused.
const LARGEST: u64 = 512 << 20;

/// The merged hives of a chain of unpacked layers, uppermost first: the base's whole ones with every layer's delta hives
/// over them.
pub(in crate::windows) fn hives(layers: &[PathBuf]) -> Result<Hives, RegistryError> {
    let mut hives = Hives::default();
    let Some(base) = layers.last() else { return Ok(hives) };
    for (place, hive) in PLACES.iter().zip(&mut hives.0) {
        if let Some(path) = find(std::slice::from_ref(base), &place.path())? {
            *hive = read(&path)?;
        }
    }
    for layer in layers.iter().rev() {
        let mut deltas = <[Option<Hive>; PLACES.len()]>::default();
        for (place, delta) in PLACES.iter().zip(&mut deltas) {
            // Nothing of another spelling is unpacked there.
            let path = layer.join("Hives").join(place.delta);
            if path.symlink_metadata().is_ok() {
                *delta = Some(read(&path)?);
            }
        }
        links::lay(&mut hives, deltas)
            .map_err(|source| RegistryError::Link { layer: layer.clone(), source })?;
    }
    Ok(hives)
}

/// A user's hive: the profile's own `NTUSER.DAT`, or what new profiles begin with. The path is the profile's, on `C:`.
pub(in crate::windows) fn user(layers: &[PathBuf], profile: &str) -> Result<Hive, RegistryError> {
    for profile in [profile, "Users/Default"] {
        if let Some(path) = find(layers, &of_user(profile))? {
            return read(&path);
        }
    }
    Ok(Hive::default())
}

fn find(layers: &[PathBuf], path: &str) -> Result<Option<PathBuf>, RegistryError> {
    let shown = layers.first().map_or(Path::new(path), PathBuf::as_path);
    silo_layer::find_windows(layers, path).map_err(at("looking for a hive in", shown))
}

/// Reads a hive; of one that was not written to its end its logs are replayed.
fn read(path: &Path) -> Result<Hive, RegistryError> {
    let bytes = Bytes::from(read_file(path, LARGEST)?);
    if bytes.is_empty() {
        // Tools that only make images leave such files.
        return Ok(Hive::default());
    }
    match Hive::from_bytes(bytes.clone()) {
        Err(HiveError::Dirty(_)) => {
            let logs = ["LOG1", "LOG2", "LOG"].map(|end| log(path, end));
            let logs = logs.into_iter().collect::<Result<Vec<_>, _>>()?;
            let logs: Vec<&[u8]> = logs.iter().filter(|log| !log.is_empty()).map(Vec::as_slice).collect();
            let whole = silo_hive::recover(&bytes[..], &logs).map_err(hive_error(path))?;
            Hive::from_bytes(whole).map_err(hive_error(path))
        }
        other => other.map_err(hive_error(path)),
    }
}

/// A log of the hive at `path`: beside it, in whatever spelling; empty if there is none.
fn log(path: &Path, end: &str) -> Result<Vec<u8>, RegistryError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let wanted = format!("{}.{end}", name.to_string_lossy());
    for entry in std::fs::read_dir(directory).map_err(at("reading", directory))? {
        let entry = entry.map_err(at("reading", directory))?;
        if entry.file_name().to_string_lossy().eq_ignore_ascii_case(&wanted) {
            return read_file(&entry.path(), LARGEST);
        }
    }
    Ok(Vec::new())
}
