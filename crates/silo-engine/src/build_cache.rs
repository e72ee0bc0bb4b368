//! What builds keep for later ones: results of steps by their keys, and directories of `RUN --mount=type=cache`.
//!
//! A record lasts as long as nobody prunes it, restarts included; it keeps its layer. One whose layer is gone is no record.

use std::path::PathBuf;

use jiff::Timestamp;
use silo_image::{BuiltLayer, HistoryEntry};
use tempfile::TempDir;

use crate::build_limit::oldest_first;
use crate::build_records::{BuildCache, CACHE_MOUNT, CacheRecord, CacheUsage, InUse, Kept};
use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::lock::lock;

/// A cache mount's directory that nobody finds any more, and its bytes.
type Aside = (TempDir, u64);

/// How much of the cache goes.
#[derive(Debug, Clone, Default)]
pub struct CachePrune {
    /// What images have too.
    pub all: bool,
    /// Bytes that may stay.
    pub keep_storage: u64,
    /// `until`, `id`, `type`, `description`, `inuse`, `shared`, `private`.
    pub filters: Filters,
}

/// Directory of secrets, beside the sockets.
const SECRETS: &str = "build-secrets";

const FILTERS: &[&str] =
    &["until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"];

impl Engine {
    fn cache(&self) -> &BuildCache {
        &self.inner.build_cache
    }

    /// A record whose layer is here, as being used by a build.
    pub fn cached(&self, key: &str) -> Option<(CacheRecord, InUse)> {
        let in_use = self.cache().hold(key);
        let mut records = lock(&self.cache().records);
        let kept = records.get_mut(key)?;
        if let (Some(_), Some(chain)) = (&kept.record.layer, &kept.record.chain)
            && self.inner.images.chain_size(chain).is_none()
        {
            return None;
        }
        kept.record.last_used = Some(Timestamp::now());
        kept.record.uses += 1;
        Some((kept.record.clone(), in_use))
    }

    /// Keeps the result of a step; `layer`: what it has made.
    pub fn keep_cached(&self, record: CacheRecord, layer: Option<BuiltLayer>) -> Result<InUse> {
        let mut records = lock(&self.cache().records);
        let in_use = self.cache().hold(&record.key);
        self.inner.db.put(Table::BuildCache, &record.key, &record)?;
        let kept = Kept { record: record.clone(), _lease: layer.map(|l| l.lease) };
        records.insert(record.key, kept);
        Ok(in_use)
    }

    /// Writes down what a build has used.
    pub fn note_used<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Result<()> {
        let records = lock(&self.cache().records);
        let used: Vec<CacheRecord> =
            keys.into_iter().filter_map(|key| records.get(key)).map(|kept| kept.record.clone()).collect();
        drop(records);
        self.inner.db.together(|write| {
            used.iter().try_for_each(|record| write.put(Table::BuildCache, &record.key, record))
        })
    }

    /// The directory of a cache mount, by its key; `made`: it is new. A build that wants it for itself asks by a key of its own,
    /// which it has from [`Engine::hold_cache_alone`].
    pub fn cache_mount(&self, key: &str, description: &str) -> Result<(PathBuf, bool, InUse)> {
        // First: under it a prune looks who has what, and takes directories away.
        let mut records = lock(&self.cache().records);
        let in_use = self.cache().hold(key);
        let path = self.cache_mount_path(key);
        let made = !path.is_dir();
        std::fs::create_dir_all(&path)
            .map_err(|e| EngineError::internal(format!("making {}: {e}", path.display())))?;
        let now = Timestamp::now();
        let kept = records.entry(key.to_owned()).or_insert_with(|| Kept {
            record: CacheRecord {
                key: key.to_owned(),
                kind: CACHE_MOUNT.to_owned(),
                description: description.to_owned(),
                parent: None,
                entry: HistoryEntry::default(),
                chain: None,
                layer: None,
                size: 0,
                created: now,
                last_used: None,
                uses: 0,
            },
            _lease: None,
        });
        kept.record.uses += 1;
        kept.record.last_used = Some(now);
        self.inner.db.put(Table::BuildCache, key, &kept.record)?;
        Ok((path, made, in_use))
    }

    fn cache_mount_path(&self, key: &str) -> PathBuf {
        self.inner.config.root.join("build").join(key)
    }

    /// A record's key as being used by a build, if no other has it.
    pub fn hold_cache_alone(&self, key: &str) -> Option<InUse> {
        self.cache().hold_alone(key)
    }

    /// Whether a build under way has a record.
    fn is_cache_in_use(&self, key: &str) -> bool {
        lock(&self.cache().in_use).contains_key(key)
    }

    /// All records, the last made first.
    pub async fn build_cache(&self) -> Result<Vec<CacheUsage>> {
        let engine = self.clone();
        blocking(move || Ok(engine.cache_usage())).await
    }

    fn cache_usage(&self) -> Vec<CacheUsage> {
        let records: Vec<CacheRecord> =
            lock(&self.cache().records).values().map(|kept| kept.record.clone()).collect();
        let mut all: Vec<CacheUsage> = records
            .into_iter()
            .filter(|r| {
                r.layer.is_none()
                    || r.chain.as_ref().is_some_and(|c| self.inner.images.chain_size(c).is_some())
            })
            .map(|mut record| {
                if record.kind == CACHE_MOUNT {
                    record.size =
                        silo_image::disk_usage(&self.cache_mount_path(&record.key)).map_or(0, |u| u.0);
                }
                CacheUsage {
                    in_use: self.is_cache_in_use(&record.key),
                    shared: record.chain.as_ref().is_some_and(|c| self.inner.images.is_in_image(c)),
                    record,
                }
            })
            .collect();
        all.sort_by(|a, b| {
            b.record.created.cmp(&a.record.created).then_with(|| a.record.key.cmp(&b.record.key))
        });
        all
    }

    /// Removes records that no build under way has; returns their IDs and the bytes that were freed.
    pub async fn prune_build_cache(&self, prune: CachePrune) -> Result<(Vec<String>, u64)> {
        let engine = self.clone();
        blocking(move || engine.prune_cache(&prune)).await
    }

    fn prune_cache(&self, prune: &CachePrune) -> Result<(Vec<String>, u64)> {
        let filters = &prune.filters;
        if let Some(unknown) = filters.unknown(FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let mut until = crate::time::until(filters)?;
        if let Some(age) = filters.get("unused-for").first() {
            until = Some(crate::time::parse(age)?);
        }
        let flag = |name: &str| filters.get(name).first().map(|v| !matches!(v.as_str(), "false" | "0"));
        let flags = (flag("inuse"), flag("shared"), flag("private"));
        let wanted = |one: &CacheUsage| {
            let record = &one.record;
            (prune.all || !one.shared)
                && !one.in_use
                && until.is_none_or(|u| record.last_used.unwrap_or(record.created) < u)
                && (filters.get("id").is_empty()
                    || filters.get("id").iter().any(|id| record.key.starts_with(id.as_str())))
                && filters.exact("type", &record.kind)
                && filters.exact("description", &record.description)
                && flags.0.is_none_or(|f| f == one.in_use)
                && flags.1.is_none_or(|f| f == one.shared)
                && flags.2.is_none_or(|f| f != one.shared)
        };
        self.remove_cached(wanted, prune.keep_storage)
    }

    /// Removes of the cache what is above its ceiling, if it has one and nobody does that already; it is not waited for.
    pub fn trim_build_cache(&self) {
        let Some(limit) = self.inner.config.builds.cache_limit else { return };
        let engine = self.clone();
        tokio::task::spawn_blocking(move || match engine.trim_to(limit) {
            Ok((0, _)) => {}
            Ok((records, bytes)) => {
                tracing::info!(
                    "the cache of builds: {records} records above {limit} bytes removed, {bytes} bytes freed"
                );
            }
            Err(e) => tracing::warn!("removing what is too much of the cache of builds: {e}"),
        });
    }

    /// Removes the records that were not used for longest and that nobody has, until `limit` bytes are left; how many, and the
    /// bytes that were freed.
    fn trim_to(&self, limit: u64) -> Result<(usize, u64)> {
        let Ok(_one) = self.cache().trimming.try_lock() else { return Ok((0, 0)) };
        let own: u64 = self.cache_usage().iter().filter(|one| !one.shared).map(|one| one.record.size).sum();
        if own <= limit {
            return Ok((0, 0));
        }
        let (ids, freed) = self.remove_cached(|one| !one.shared && !one.in_use, limit.max(1))?;
        Ok((ids.len(), freed))
    }

    /// Removes records until no more than `keep` bytes are left of what no image has (0: all of them).
    fn remove_cached(&self, wanted: impl Fn(&CacheUsage) -> bool, keep: u64) -> Result<(Vec<String>, u64)> {
        let mut all = self.cache_usage();
        let total: u64 = all.iter().filter(|one| !one.shared).map(|one| one.record.size).sum();
        oldest_first(&mut all);
        let (ids, aside) = self.forget_cached(all.into_iter().filter(wanted), total, keep)?;
        let mut freed = 0;
        for (directory, size) in aside {
            match directory.close() {
                Ok(()) => freed += size,
                Err(e) => tracing::warn!("removing a cache mount: {e}"),
            }
        }
        freed += self.inner.images.collect_layers();
        self.forget_chains();
        let told = [("reclaimed".to_owned(), freed.to_string())].into();
        self.inner.events.tell("builder", "prune", "", told);
        Ok((ids, freed))
    }

    /// Forgets records until no more than `keep` of `total` bytes are left (0: all), but those that a build has got meanwhile;
    /// their IDs, and the directories of cache mounts with their bytes, which nobody finds any more.
    fn forget_cached(
        &self,
        unwanted: impl Iterator<Item = CacheUsage>,
        mut total: u64,
        keep: u64,
    ) -> Result<(Vec<String>, Vec<Aside>)> {
        let mut records = lock(&self.cache().records);
        let (mut gone, mut held) = (Vec::new(), Vec::new());
        for CacheUsage { record, shared, .. } in unwanted {
            if keep > 0 && total <= keep {
                break;
            }
            let Some(alone) = self.cache().hold_alone(&record.key) else { continue };
            total = total.saturating_sub(if shared { 0 } else { record.size });
            held.push(alone);
            gone.push(record);
        }
        self.inner
            .db
            .together(|write| gone.iter().try_for_each(|r| write.delete(Table::BuildCache, &r.key)))?;
        let mut aside = Vec::new();
        for record in &gone {
            records.remove(&record.key);
            let path = self.cache_mount_path(&record.key);
            if record.kind != CACHE_MOUNT || !path.is_dir() {
                continue;
            }
            // One that cannot be moved is the next build's, or swept at the next start.
            let parent = path.parent().unwrap_or(&path);
            let moved = tempfile::Builder::new().prefix("pruned-").tempdir_in(parent).and_then(|to| {
                std::fs::rename(&path, to.path())?;
                Ok(to)
            });
            match moved {
                Ok(to) => aside.push((to, record.size)),
                Err(e) => tracing::warn!("removing {}: {e}", path.display()),
            }
        }
        Ok((gone.iter().map(|record| record.id().to_owned()).collect(), aside))
    }

    /// Where secrets of builds may lie while a step has them: in memory, if the directory of sockets is there.
    pub fn secret_scratch(&self) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        const TMPFS: i64 = 0x0102_1994;
        let at = self.inner.config.run.join(SECRETS);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&at)?;
        match rustix::fs::statfs(&at)?.f_type as i64 {
            TMPFS => Ok(at),
            _ => Ok(self.scratch()),
        }
    }

    /// Secrets that a crash has left.
    pub(crate) fn sweep_secrets(&self) {
        let _ = std::fs::remove_dir_all(self.inner.config.run.join(SECRETS));
    }

    /// Directories of cache mounts without a record, which a crash has left.
    pub(crate) fn sweep_cache_mounts(&self) {
        let records = lock(&self.cache().records);
        for found in std::fs::read_dir(self.inner.config.root.join("build")).into_iter().flatten().flatten() {
            if !records.contains_key(found.file_name().to_string_lossy().as_ref()) {
                let _ = std::fs::remove_dir_all(found.path());
            }
        }
    }
}
