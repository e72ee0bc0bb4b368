//! Volumes of the local driver: a directory each, below `<root>/volumes`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use crate::db::{Db, Table};
use crate::engine::{Engine, blocking, lock, random_id};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
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
    fn ensure(
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

    fn remove(&self, db: &Db, name: &str) -> Result<()> {
        let mut list = lock(&self.list);
        if list.remove(name).is_none() {
            return Err(no_such(name));
        }
        db.delete(Table::Volumes, name)?;
        drop(list);
        let dir = self.root.join(name);
        std::fs::remove_dir_all(&dir).map_err(io("removing", &dir))
    }

    fn all(&self) -> Vec<VolumeRecord> {
        let mut all: Vec<_> = lock(&self.list).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

impl Engine {
    /// Makes a volume, or returns the one that has the name.
    pub async fn volume_create(
        &self,
        name: Option<String>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeRecord> {
        if let Some(option) = options.keys().next().filter(|_| name.as_ref().is_none_or(String::is_empty)) {
            return Err(EngineError::invalid(format!("create: volume option {option:?} is not supported")));
        }
        let engine = self.clone();
        blocking(move || match name.filter(|n| !n.is_empty()) {
            Some(name) => engine.named_volume(&name, labels, options),
            None => {
                let record = engine.inner.volumes.make_anonymous(labels)?;
                engine
                    .inner
                    .db
                    .put_durably(Table::Volumes, &record.name, &record)
                    .inspect_err(|_| engine.inner.volumes.unmake([record.name.as_str()]))?;
                engine.inner.events.volume(&record.name, "create");
                Ok(record)
            }
        })
        .await
    }

    /// The volume of that name, made if it does not exist.
    pub(crate) fn named_volume(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeRecord> {
        let (record, new) = self.inner.volumes.ensure(&self.inner.db, name, labels, options)?;
        if new {
            self.inner.events.volume(&record.name, "create");
        }
        Ok(record)
    }

    /// Volumes by name; filters `name`, `label`, `dangling`, `driver`.
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<VolumeRecord>> {
        if let Some(unknown) = filters.unknown(&["name", "label", "dangling", "driver"]) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let used = self.volumes_in_use();
        let dangling = filters.get("dangling").first().map(|v| v == "true" || v == "1");
        let names = filters.get("name");
        Ok(self
            .inner
            .volumes
            .all()
            .into_iter()
            .filter(|v| names.is_empty() || names.iter().any(|n| v.name.contains(n.as_str())))
            .filter(|v| filters.labels("label", &v.labels) && filters.exact("driver", "local"))
            .filter(|v| dangling.is_none_or(|d| d != used.contains_key(&v.name)))
            .collect())
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<VolumeRecord> {
        lock(&self.inner.volumes.list).get(name).cloned().ok_or_else(|| no_such(name))
    }

    /// Volume name → containers that have it.
    pub fn volumes_in_use(&self) -> HashMap<String, Vec<String>> {
        let mut used: HashMap<String, Vec<String>> = HashMap::new();
        for entry in self.entries() {
            entry.with(|r| {
                for mount in r.mounts.iter().filter(|m| m.kind == "volume") {
                    used.entry(mount.name.clone()).or_default().push(r.id.0.clone());
                }
            });
        }
        used
    }

    /// Removes a volume that no container has.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        if let Some(users) = self.volumes_in_use().get(name) {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        if force && self.volume(name).is_err() {
            return Ok(());
        }
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            engine.inner.volumes.remove(&engine.inner.db, &name)?;
            engine.inner.events.volume(&name, "destroy");
            Ok(())
        })
        .await
    }

    /// Removes volumes that nobody has: anonymous ones, or with the filter `all=true` named ones too.
    pub async fn volume_prune(&self, filters: &Filters) -> Result<(Vec<String>, u64)> {
        if let Some(unknown) = filters.unknown(&["label", "label!", "all"]) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let all = filters.get("all").iter().any(|v| v == "true" || v == "1");
        let used = self.volumes_in_use();
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.inner.volumes.all() {
            let unwanted = filters.has("label!") && filters.labels("label!", &volume.labels);
            let wanted = (all || volume.anonymous) && filters.labels("label", &volume.labels) && !unwanted;
            if !wanted || used.contains_key(&volume.name) {
                continue;
            }
            let path = PathBuf::from(&volume.mountpoint);
            bytes += blocking(move || Ok(silo_image::disk_usage(&path).map_or(0, |u| u.0))).await?;
            self.volume_remove(&volume.name, true).await?;
            removed.push(volume.name);
        }
        Ok((removed, bytes))
    }
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
