//! The volumes that there are, of the local driver: a directory each, below `<root>/volumes`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::db::{Db, Table};
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::lock::lock;
use crate::record::VolumeRecord;

/// The volumes that exist.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    list: Mutex<HashMap<String, VolumeRecord>>,
}

fn valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn io(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let text = format!("{doing} {}", path.display());
    move |e| EngineError::internal(format!("{text}: {e}"))
}

impl Volumes {
    pub(crate) fn open(root: &Path, db: &Db) -> Result<Self> {
        let root = root.join("volumes");
        std::fs::create_dir_all(&root).map_err(io("making", &root))?;
        let list: Vec<VolumeRecord> = db.all(Table::Volumes)?;
        let list: HashMap<String, VolumeRecord> = list.into_iter().map(|v| (v.name.clone(), v)).collect();
        // A directory without a row is what a crash left between the two.
        let known = db.keys(Table::Volumes)?;
        for entry in std::fs::read_dir(&root).map_err(io("reading", &root))?.flatten() {
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { root, list: Mutex::new(list) })
    }

    /// The volume of that name, made if it does not exist; whether it was made.
    pub(crate) fn ensure(
        &self,
        db: &Db,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<(VolumeRecord, bool)> {
        let mut list = lock(&self.list);
        if let Some(found) = list.get(name) {
            return Ok((found.clone(), false));
        }
        if !valid_name(name) {
            return Err(EngineError::invalid(format!(
                "create {name}: {name:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        if let Some(option) = options.keys().next() {
            return Err(EngineError::invalid(format!(
                "create {name}: volume option {option:?} is not supported"
            )));
        }
        let record = self.make(name.to_owned(), labels, options, false)?;
        db.put_durably(Table::Volumes, name, &record)?;
        list.insert(name.to_owned(), record.clone());
        Ok((record, true))
    }

    /// A volume under a name of its own. The caller writes its row, or takes it back ([`Volumes::unmake`]).
    pub(crate) fn make_anonymous(&self, labels: BTreeMap<String, String>) -> Result<VolumeRecord> {
        let record = self.make(random_id(), labels, BTreeMap::new(), true)?;
        lock(&self.list).insert(record.name.clone(), record.clone());
        Ok(record)
    }

    fn make(
        &self,
        name: String,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<VolumeRecord> {
        let data = self.root.join(&name).join("_data");
        std::fs::create_dir_all(&data).map_err(io("making", &data))?;
        let mountpoint = data.display().to_string();
        Ok(VolumeRecord { name, created: Timestamp::now(), labels, options, mountpoint, anonymous })
    }

    /// Takes volumes away that have no row, or none any more.
    pub(crate) fn unmake<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            lock(&self.list).remove(name);
            let dir = self.root.join(name);
            if let Err(e) = std::fs::remove_dir_all(&dir) {
                tracing::warn!("removing {}: {e}", dir.display());
            }
        }
    }

    pub(crate) fn remove(&self, db: &Db, name: &str) -> Result<()> {
        let mut list = lock(&self.list);
        if list.remove(name).is_none() {
            return Err(no_such(name));
        }
        db.delete(Table::Volumes, name)?;
        drop(list);
        let dir = self.root.join(name);
        std::fs::remove_dir_all(&dir).map_err(io("removing", &dir))
    }

    pub(crate) fn get(&self, name: &str) -> Option<VolumeRecord> {
        lock(&self.list).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<VolumeRecord> {
        let mut all: Vec<_> = lock(&self.list).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

pub(crate) fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, valid) in
            [("data", true), ("a.b-c_d", true), ("a", false), ("../x", false), ("-x", false), ("a/b", false)]
        {
            assert_eq!(valid_name(name), valid, "{name}");
        }
    }
}
