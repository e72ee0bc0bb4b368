//! `ps` and `inspect`.

use regex_lite::Regex;

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::filters::Filters;
use crate::record::{ContainerRecord, ContainerSummary, Status};

use super::keeper::are_asked_for;

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

impl Engine {
    /// Containers, newest first. `limit` 0: all; without `all` or a status filter only running ones.
    pub async fn list(
        &self,
        all: bool,
        limit: usize,
        size: bool,
        filters: &Filters,
    ) -> Result<Vec<ContainerSummary>> {
        if let Some(unknown) = filters.unknown(FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        for status in filters.get("status") {
            if !["created", "running", "paused", "restarting", "removing", "exited", "dead"]
                .contains(&status.as_str())
            {
                return Err(EngineError::invalid(format!("invalid filter 'status={status}'")));
            }
        }
        for health in filters.get("health") {
            if !["starting", "healthy", "unhealthy", "none"].contains(&health.as_str()) {
                return Err(EngineError::invalid(format!("invalid filter 'health={health}'")));
            }
        }
        let exited: Vec<u32> = filters
            .get("exited")
            .iter()
            .map(|c| c.parse().map_err(|_| EngineError::invalid(format!("invalid filter 'exited={c}'"))))
            .collect::<Result<_>>()?;
        let moment = |name: &str| -> Result<Option<jiff::Timestamp>> {
            filters.get(name).first().map(|c| Ok(self.container(c)?.created)).transpose()
        };
        let names = name_patterns(filters.get("name"));
        let links = if names.is_empty() { Default::default() } else { self.link_names() };
        let (before, since) = (moment("before")?, moment("since")?);
        let ancestors = self.ancestors(filters)?;
        let only_running = !all && limit == 0 && !filters.has("status") && !filters.has("exited");
        let mut records: Vec<ContainerRecord> = self.entries().iter().map(|e| e.record()).collect();
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        records.retain(|r| {
            (!only_running || r.state.status.is_running() || r.state.status == Status::Restarting)
                && before.is_none_or(|b| r.created < b)
                && since.is_none_or(|s| r.created > s)
                && (exited.is_empty()
                    || (r.state.started_at.is_some()
                        && !r.state.status.is_running()
                        && exited.contains(&r.state.exit_code)))
                && (ancestors.is_empty() || ancestors.contains(&r.image_id))
                && (filters.get("name").is_empty() || named(r, links.get(&r.id.0), &names))
                && passes(r, filters)
        });
        if limit > 0 {
            records.truncate(limit);
        }
        let mut list = Vec::with_capacity(records.len());
        for record in records {
            let size = if size { Some(self.sizes(&record).await?) } else { None };
            list.push(ContainerSummary { record, size });
        }
        Ok(list)
    }

    fn ancestors(&self, filters: &Filters) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for name in filters.get("ancestor") {
            match self.inner.images.get(name) {
                Ok(image) => ids.extend(self.inner.images.with_descendants(&image.id)),
                Err(_) => ids.push(format!("no image {name}")),
            }
        }
        Ok(ids)
    }

    /// (`SizeRw`, `SizeRootFs`).
    async fn sizes(&self, record: &ContainerRecord) -> Result<(u64, u64)> {
        let image = self.inner.images.get(&record.image_id).map_or(0, |i| i.size);
        let own = self.own_bytes(record).await?;
        Ok((own, own + image))
    }

    /// Bytes of what a container has written.
    pub(crate) async fn own_bytes(&self, record: &ContainerRecord) -> Result<u64> {
        let dir = self.dir(&record.id);
        let machine = are_asked_for(record).then(|| self.machine_config(record));
        if machine.is_some() && record.state.status.is_running() {
            self.written(record).await;
        }
        let top = self.top_disk(record);
        blocking(move || {
            Ok(match (machine, top) {
                (Some(machine), _) => silo_sandbox::machine_usage(&dir, &machine),
                (None, Some(top)) => silo_sandbox::top_usage(&dir, &top),
                (None, None) => silo_image::disk_usage(&dir.join("top")).map_or(0, |u| u.0),
            })
        })
        .await
    }

    /// One container.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<ContainerSummary> {
        let record = self.find(name)?.record();
        let size = if size { Some(self.sizes(&record).await?) } else { None };
        Ok(ContainerSummary { record, size })
    }

    /// Image ID → number of containers made from it.
    pub fn image_containers(&self) -> std::collections::HashMap<String, u64> {
        let mut counts = std::collections::HashMap::new();
        for entry in self.entries() {
            *counts.entry(entry.with(|r| r.image_id.clone())).or_insert(0) += 1;
        }
        counts
    }

    /// Containers that use an image: (ID, runs).
    pub(crate) fn users_of_image(&self, image: &str) -> Vec<(String, bool)> {
        self.entries()
            .iter()
            .map(AsRef::<Entry>::as_ref)
            .filter(|e| e.with(|r| r.image_id == image))
            .map(|e| (e.id.0.clone(), e.status().is_running()))
            .collect()
    }
}

fn passes(r: &ContainerRecord, filters: &Filters) -> bool {
    let any = |name: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(name);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let health = r.health.as_ref().map_or("none", |h| h.status.as_str());
    let port = |wanted: &str, list: &[String]| {
        let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (Ok(low), Ok(high)) = (low.parse::<u16>(), high.parse::<u16>()) else { return false };
        (low..=high).any(|p| list.contains(&format!("{p}/{protocol}")))
    };
    let published: Vec<String> =
        r.spec.ports.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)).collect();
    any("id", &|w| r.id.0.starts_with(w))
        && any("status", &|w| w == r.state.status.as_str())
        && any("health", &|w| w == health)
        && any("isolation", &|w| w == r.isolation.as_str() || w == "default")
        && any("is-task", &|w| w == "false" || w == "0")
        && any("network", &|w| {
            let networks = &r.spec.networks;
            networks.iter().any(|e| e.network == w || (!w.is_empty() && e.network_id.starts_with(w)))
        })
        && any("volume", &|w| r.mounts.iter().any(|m| m.name == w || m.destination == w || m.source == w))
        && any("expose", &|w| port(w, &r.spec.config.exposed_ports))
        && any("publish", &|w| port(w, &published))
        && filters.labels("label", &r.spec.config.labels)
}

/// `--filter name=`: regular expressions, which match anywhere in a name unless anchored. As with dockerd what is none
/// matches nothing and is no error.
fn name_patterns(wanted: &[String]) -> Vec<Regex> {
    wanted.iter().filter_map(|w| Regex::new(w).ok()).collect()
}

/// Whether a name of the container passes, with or without its leading slash; `linked`: those by others' links to it.
fn named(r: &ContainerRecord, linked: Option<&Vec<String>>, patterns: &[Regex]) -> bool {
    std::iter::once(&r.name).chain(linked.into_iter().flatten()).any(|name| {
        let whole = format!("/{name}");
        patterns.iter().any(|p| p.is_match(name) || p.is_match(&whole))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_pattern_that_is_none_matches_nothing_and_spoils_no_other() {
        let kept = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
            name_patterns(&wanted).iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kept(&["^/web-\\d+$", "a|b", "x.*y"]), ["^/web-\\d+$", "a|b", "x.*y"]);
        assert!(kept(&["web("]).is_empty());
        assert_eq!(kept(&["web(", "db"]), ["db"]);
    }
}
