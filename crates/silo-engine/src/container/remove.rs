//! `rm` and `container prune`.

use std::sync::Arc;

use crate::db::Table;
use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::record::{ContainerRecord, Status};

impl Engine {
    /// Removes a container; a running one only by `force`. `volumes`: its anonymous volumes go too.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<()> {
        let entry = self.find(name)?;
        if force {
            entry.stop_restarting(true);
            // Not after a stop's patience: what holds the verb hears of the end.
            if let Ok(sandbox) = entry.running() {
                self.note(&entry, |r| r.spec.auto_remove = false);
                let _ = sandbox.shutdown().await;
            }
        }
        let _verb = entry.verb.lock().await;
        let status = entry.status();
        if status == Status::Removing {
            return Err(EngineError::conflict(format!(
                "removal of container {} is already in progress",
                entry.id
            )));
        }
        if !force {
            let shown = entry.with(|r| r.name.clone());
            match status {
                Status::Paused => {
                    return Err(EngineError::conflict(format!(
                        "cannot remove container \"/{shown}\": container is paused and must be unpaused first"
                    )));
                }
                Status::Running | Status::Restarting => {
                    return Err(EngineError::conflict(format!(
                        "cannot remove container \"/{shown}\": container is {}: stop the container before removing or force remove",
                        status.as_str()
                    )));
                }
                _ => {}
            }
        }
        entry.stop_restarting(true);
        entry.changed.send_modify(|_| {});
        // `--rm` may have been quicker: what the kill ends, this removal removes.
        self.note(&entry, |r| r.spec.auto_remove = false);
        self.kill_entry(&entry).await?;
        self.remove_entry(&entry, volumes).await
    }

    /// Removes a container that does not run. Gone already: fine.
    pub(crate) async fn remove_entry(&self, entry: &Arc<Entry>, volumes: bool) -> Result<()> {
        let first = {
            let mut first = false;
            self.note(entry, |r| {
                first = r.state.status != Status::Removing;
                r.removes_volumes = volumes;
                r.state.status = Status::Removing;
            });
            first
        };
        if !first {
            return Ok(());
        }
        let record = entry.record();
        let dir = self.dir(&entry.id);
        let _files = match entry.files_turn().await {
            Ok(turn) => turn,
            Err(e) => {
                self.note(entry, |r| r.state.status = Status::Dead);
                return Err(e);
            }
        };
        let engine = self.clone();
        let id = entry.id.clone();
        let own = if volumes { self.only_of(&record) } else { Vec::new() };
        let rows = own.clone();
        let (cgroup, sockets) = (self.cgroup(&entry.id), self.sockets(&entry.id));
        let result = blocking(move || {
            // A shim that was killed when its container's end was known has left what it was about to take away.
            for socket in sockets {
                if let Err(e) = silo_sandbox::clean_up_if_killed(&cgroup, &socket) {
                    tracing::warn!("cleaning up after a shim: {e}");
                }
            }
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(EngineError::internal(format!("removing {}: {e}", dir.display())));
                }
                _ => {}
            }
            // All or none: a daemon that is killed here leaves no volume that nobody knows of.
            engine.inner.db.together(|write| {
                rows.iter().try_for_each(|name| write.delete(Table::Volumes, name))?;
                write.delete(Table::Containers, &id.0)
            })
        })
        .await;
        if let Err(e) = result {
            self.note(entry, |r| {
                r.state.status = Status::Dead;
                r.state.error.clone_from(&e.message);
            });
            return Err(e);
        }
        self.inner.execs.forget(&entry.id);
        self.leave(entry);
        self.inner.events.container(&record, "destroy", &[]);
        entry.changed.send_modify(|p| p.removed = true);
        let engine = self.clone();
        blocking(move || {
            engine.inner.volumes.unmake(own.iter().map(String::as_str));
            own.iter().for_each(|name| engine.inner.events.volume(name, "destroy"));
            Ok(())
        })
        .await
    }

    /// A container's anonymous volumes that no other has.
    fn only_of(&self, record: &ContainerRecord) -> Vec<String> {
        let used = self.volumes_in_use();
        let alone = |name: &str| used.get(name).is_none_or(|users| users.iter().all(|u| *u == record.id.0));
        let own = record.mounts.iter().filter(|m| m.anonymous && alone(&m.name));
        own.filter(|m| self.volume(&m.name).is_ok()).map(|m| m.name.clone()).collect()
    }

    /// Removes all stopped containers that pass the filters; returns their IDs and the bytes they had.
    pub async fn prune_containers(&self, filters: &Filters) -> Result<(Vec<String>, u64)> {
        if let Some(unknown) = filters.unknown(&["until", "label", "label!"]) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let until = crate::time::until(filters)?;
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for entry in self.entries() {
            let record = entry.record();
            let idle = matches!(record.state.status, Status::Created | Status::Exited | Status::Dead);
            let labels = &record.spec.config.labels;
            let unwanted = filters.has("label!") && filters.labels("label!", labels);
            // A build's is between its steps.
            if !idle
                || record.spec.of_build
                || unwanted
                || !filters.labels("label", labels)
                || until.is_some_and(|u| record.created >= u)
            {
                continue;
            }
            bytes += self.own_bytes(&record).await?;
            let _verb = entry.verb.lock().await;
            if entry.status().is_running() {
                continue;
            }
            self.remove_entry(&entry, false).await?;
            removed.push(record.id.0);
        }
        self.inner.events.tell(
            "container",
            "prune",
            "",
            [("reclaimed".to_owned(), bytes.to_string())].into(),
        );
        Ok((removed, bytes))
    }
}
