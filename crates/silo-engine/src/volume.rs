//! Verbs of volumes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::record::VolumeRecord;
use crate::volumes::no_such;

impl Engine {
    /// Makes a volume, or returns the one that has the name.
    pub async fn volume_create(
        &self,
        name: Option<String>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeRecord> {
        let engine = self.clone();
        blocking(move || match name.filter(|n| !n.is_empty()) {
            Some(name) => engine.named_volume(&name, labels, options),
            None => {
                let record = engine.inner.volumes.make_anonymous(labels, options)?;
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
        let dangling = flag(filters, "dangling")?;
        let names = filters.get("name");
        Ok(self
            .inner
            .volumes
            .all()
            .into_iter()
            .filter(|v| names.is_empty() || names.iter().any(|n| is_named(&v.name, n)))
            .filter(|v| filters.labels("label", &v.labels) && filters.exact("driver", "local"))
            .filter(|v| dangling.is_none_or(|d| d != used.contains_key(&v.name)))
            .collect())
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<VolumeRecord> {
        self.inner.volumes.get(name).ok_or_else(|| no_such(name))
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
            engine.inner.volume_mounts.forget(&name)?;
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
        let all = flag(filters, "all")?.unwrap_or(false);
        let used = self.volumes_in_use();
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.inner.volumes.all() {
            let unwanted = filters.has("label!") && filters.labels("label!", &volume.labels);
            // As dockerd: what is mounted from elsewhere frees nothing here.
            let wanted = volume.options.is_empty()
                && (all || volume.anonymous)
                && filters.labels("label", &volume.labels)
                && !unwanted;
            if !wanted || used.contains_key(&volume.name) {
                continue;
            }
            let path = PathBuf::from(&volume.mountpoint);
            let size = blocking(move || Ok(silo_image::disk_usage(&path).map_or(0, |u| u.0))).await?;
            match self.volume_remove(&volume.name, true).await {
                Ok(()) => {
                    bytes += size;
                    removed.push(volume.name);
                }
                // Somebody has begun to use it.
                Err(e) => tracing::warn!("volume {}: {e}", volume.name),
            }
        }
        let reclaimed = [("reclaimed".to_owned(), bytes.to_string())].into();
        self.inner.events.tell("volume", "prune", "", reclaimed);
        Ok((removed, bytes))
    }
}

/// dockerd's filters that are true or false; `None`: not given.
fn flag(filters: &Filters, name: &str) -> Result<Option<bool>> {
    match filters.get(name) {
        [] => Ok(None),
        [one] if matches!(one.as_str(), "true" | "1") => Ok(Some(true)),
        [one] if matches!(one.as_str(), "false" | "0") => Ok(Some(false)),
        other => Err(EngineError::invalid(format!("invalid filter '{name}=[{}]'", other.join(" ")))),
    }
}

/// A name, a part of one, or an expression.
fn is_named(name: &str, wanted: &str) -> bool {
    name == wanted || regex_lite::Regex::new(wanted).is_ok_and(|expression| expression.is_match(name))
}
