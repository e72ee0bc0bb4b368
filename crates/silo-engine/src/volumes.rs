//! The volumes that there are, of the local driver: a directory each, below `<root>/volumes`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;
use silo_sandbox::mount_words;

use crate::db::{Db, Table};
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::lock::lock;
use crate::record::VolumeRecord;
use crate::volume_options;

/// The label of volumes that were given no name.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The volumes that exist.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    list: Mutex<HashMap<String, VolumeRecord>>,
}

/// The error is dockerd's.
fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.chars().count() == 1 {
        return Err(
            "volume name is too short, names should be at least two alphanumeric characters".to_owned()
        );
    }
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    valid.then_some(()).ok_or_else(|| {
        format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
             If you intended to pass a host directory, use absolute path"
        )
    })
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
                let _ = remove_directory(&entry.path());
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
        check_name(name)
            .and_then(|()| volume_options::check(&options))
            .map_err(|why| EngineError::invalid(format!("create {name}: {why}")))?;
        let record = self.make(name.to_owned(), labels, options, false)?;
        db.put_durably(Table::Volumes, name, &record)?;
        list.insert(name.to_owned(), record.clone());
        Ok((record, true))
    }

    /// A volume under a name of its own. The caller writes its row, or takes it back ([`Volumes::unmake`]).
    pub(crate) fn make_anonymous(
        &self,
        mut labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeRecord> {
        let name = random_id();
        volume_options::check(&options)
            .map_err(|why| EngineError::invalid(format!("create {name}: {why}")))?;
        labels.insert(ANONYMOUS.to_owned(), String::new());
        let record = self.make(name, labels, options, true)?;
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
            if let Err(e) = remove_directory(&dir) {
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
        remove_directory(&dir).map_err(io("removing", &dir))
    }

    /// Where all of them are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
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

/// Removes a volume's directory, and nothing of what is mounted there.
fn remove_directory(dir: &Path) -> std::io::Result<()> {
    mount_words::detach_below(dir)?;
    if !mount_words::mounted_below(dir)?.is_empty() {
        return Err(std::io::Error::other("something is mounted there"));
    }
    std::fs::remove_dir_all(dir)
}

pub(crate) fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, wanted) in [
            ("data", ""),
            ("a.b-c_d", ""),
            ("a", "volume name is too short"),
            ("../x", "includes invalid characters"),
            ("-x", "\"-x\" includes invalid characters"),
            ("a/b", "includes invalid characters"),
            ("a b", "includes invalid characters"),
        ] {
            match check_name(name) {
                Ok(()) => assert_eq!(wanted, "", "{name}"),
                Err(said) => assert!(!wanted.is_empty() && said.contains(wanted), "{name}: {said}"),
            }
        }
    }
}
