//! `RUN --mount=type=secret`: what the client sent, as a file or a variable of the one step that asks for it.
//!
//! Values are in memory, in a file that goes with the step, and in the step's container; in no layer, no history, no key of the
//! cache and no record.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use silo_engine::Engine;
use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// Secrets of a build, by their IDs.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, Vec<u8>)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Secrets {
    /// A secret's value; `None`: there is none, and none is needed.
    pub(crate) fn get(&self, id: &str, required: bool) -> Result<Option<&[u8]>> {
        match self.0.get(id) {
            None if required => Err(Failure::invalid(format!("secret {id}: not found"))),
            found => Ok(found.map(Vec::as_slice)),
        }
    }
}

/// `NAME=value`.
pub(crate) fn variable(name: &str, id: &str, value: &[u8]) -> Result<String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Failure::invalid(format!("--mount: env={name}: no name of a variable")));
    }
    match std::str::from_utf8(value).ok().filter(|text| !text.contains('\0')) {
        Some(text) => Ok(format!("{name}={text}")),
        None => Err(Failure::invalid(format!("secret {id}: it is no text, which a variable is"))),
    }
}

/// Writes a secret's file, which goes with the directory. `owner`: mode, user, group.
pub(crate) fn file(
    engine: &Engine,
    value: &[u8],
    (mode, uid, gid): (u32, u32, u32),
) -> Result<(TempDir, PathBuf)> {
    let failed = |e: std::io::Error| Failure::internal(format!("writing a secret: {e}"));
    let directory = engine.secret_scratch().and_then(|at| tempfile::Builder::new().tempdir_in(at));
    let directory = directory.map_err(failed)?;
    let path = directory.path().join("secret");
    write(&path, value, mode, (uid, gid)).map_err(failed)?;
    Ok((directory, path))
}

fn write(path: &Path, value: &[u8], mode: u32, (uid, gid): (u32, u32)) -> std::io::Result<()> {
    // Nobody but root enters the directory.
    std::fs::write(path, value)?;
    chown(path, Some(uid), Some(gid))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let secrets: Secrets = [("id".to_owned(), b"value".to_vec())].into_iter().collect();
        assert_eq!(format!("{secrets:?}"), "[\"id\"]");
        assert_eq!(secrets.get("id", true).unwrap(), Some(&b"value"[..]));
        assert_eq!(secrets.get("other", false).unwrap(), None);
        assert_eq!(secrets.get("other", true).unwrap_err().message, "secret other: not found");
        assert_eq!(variable("A", "id", b"b").unwrap(), "A=b");
        assert!(variable("A=", "id", b"b").is_err() && variable("A", "id", b"\xff").is_err());
    }
}
