//! The files of a container's OCI runtime bundle on disk: written whole or not at all, read as one.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::error::{EngineError, Result};

/// The bundle's `config.json`.
pub(crate) const CONFIG: &str = "config.json";

/// Writes `dir/name` with the mode `mode`, under another name first.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let (path, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut file| {
            // Whatever the umask takes away.
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.write_all(bytes)
        })
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|e| EngineError::internal(format!("writing {}: {e}", path.display())))
}

/// Writes `config.json` into `dir`.
pub(crate) fn write_config(dir: &Path, spec: &Spec) -> Result<()> {
    let text =
        serde_json::to_vec(spec).map_err(|e| EngineError::internal(format!("writing the bundle: {e}")))?;
    write(dir, CONFIG, &text, 0o600)
}

/// Reads `config.json` of `dir`.
pub(crate) fn read_config(dir: &Path) -> Result<Spec> {
    let path = dir.join(CONFIG);
    let text = std::fs::read(&path)
        .map_err(|e| EngineError::internal(format!("reading {}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| EngineError::internal(format!("{}: {e}", path.display())))
}
