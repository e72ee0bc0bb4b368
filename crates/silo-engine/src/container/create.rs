//! `create`: resolves image and defaults, checks, makes volumes and the directory, and writes the record last.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use silo_guest::{Guest, Namespaces, Os, Wish};
use silo_image::ImageConfig;
use silo_sandbox::Isolation;

use crate::db::Table;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::record::{ContainerId, ContainerRecord, State, VolumeRecord};
use crate::spec::{Config, ContainerSpec, NetworkMode};
use crate::{image, placement, signal};

/// Label of an image that says where its containers run unless they ask for something else.
const ISOLATION_LABEL: &str = "dev.silo.isolation";

impl Engine {
    /// Makes a container in state `created`; returns its ID and warnings.
    pub async fn create(
        &self,
        name: Option<String>,
        spec: ContainerSpec,
    ) -> Result<(ContainerId, Vec<String>)> {
        let engine = self.clone();
        blocking(move || engine.create_blocking(name, spec)).await
    }

    fn create_blocking(
        &self,
        name: Option<String>,
        mut spec: ContainerSpec,
    ) -> Result<(ContainerId, Vec<String>)> {
        let name = match name.filter(|n| !n.is_empty()) {
            Some(name) => super::names::check(&name)?,
            None => super::names::generate(|n| self.is_name_free(n)),
        };
        let image = self.inner.images.get(&spec.image).map_err(image::error)?;
        let config = &image.config;
        let os = Os::parse(&config.os).ok_or_else(|| {
            EngineError::invalid(format!("image {}: unknown operating system {:?}", spec.image, config.os))
        })?;
        check_platform(&spec, &image.config)?;
        let guest = placement::guest(os)?;
        merge(&mut spec.config, config, guest);
        if spec.config.entrypoint.iter().flatten().chain(spec.config.cmd.iter().flatten()).next().is_none() {
            return Err(EngineError::invalid("no command specified"));
        }
        if let Some(signal) = &spec.config.stop_signal {
            signal::parse(signal)?;
        }
        self.resolve_volumes_from(&mut spec, guest)?;
        self.resolve_links(&mut spec)?;
        self.resolve_networks(&mut spec)?;
        guest
            .check(&Wish {
                has_command: spec
                    .config
                    .entrypoint
                    .iter()
                    .flatten()
                    .chain(spec.config.cmd.iter().flatten())
                    .next()
                    .is_some(),
                init: spec.init,
                additional_groups: &spec.additional_groups,
                limits: &spec.limits,
                security: &spec.security,
                namespaces: &asked_namespaces(&spec),
            })
            .map_err(crate::error::guest_error)?;
        let labelled = config.config.labels.get(ISOLATION_LABEL);
        let labelled = labelled.map(|name| {
            Isolation::parse(name).ok_or_else(|| {
                EngineError::invalid(format!("image {}: label {ISOLATION_LABEL}: {name:?}", spec.image))
            })
        });
        let isolation = spec.isolation.or(labelled.transpose()?).unwrap_or(self.inner.config.isolation);
        let kernel = placement::facts(isolation).kernel;
        super::machine::refuse_of_another_kernel(&spec, kernel)?;
        super::limits::check(&spec.limits, spec.storage_size)?;
        let mut warnings = super::limits::take_precedence(&mut spec.limits, kernel);
        warnings.extend(super::warnings::discard(&mut spec.limits, &silo_sandbox::accounting(isolation))?);
        super::limits::effective(&spec.limits, kernel, &self.inner.config.root)?;
        let id = ContainerId(random_id());
        if spec.config.hostname.is_empty() {
            spec.config.hostname = self.default_hostname(&id, &spec.network);
        }
        let dir = self.dir(&id);
        let mut record = ContainerRecord {
            id: id.clone(),
            name,
            created: Timestamp::now(),
            image_id: image.id.to_string(),
            os,
            isolation,
            // Given when it is entered.
            id_range: 0,
            mounts: Vec::new(),
            state: State::default(),
            restart_count: 0,
            stopped_by_user: false,
            removes_volumes: false,
            adapters: Vec::new(),
            networks_changing: false,
            published: Vec::new(),
            health: None,
            spec,
        };
        let entry = self.enter(&mut record)?;
        let mut volumes = Vec::new();
        let made = self.make(&mut record, guest, &dir, &mut volumes);
        if let Err(e) = made.and_then(|()| self.store(&entry, &record, &volumes)) {
            self.inner.volumes.unmake(volumes.iter().map(|v| v.name.as_str()));
            self.leave(&entry);
            let _ = std::fs::remove_dir_all(&dir);
            return Err(e);
        }
        for volume in &volumes {
            self.inner.events.volume(&volume.name, "create");
        }
        self.inner.events.container(&record, "create", &[]);
        Ok((id, warnings))
    }

    fn make(
        &self,
        record: &mut ContainerRecord,
        guest: &dyn Guest,
        dir: &Path,
        volumes: &mut Vec<VolumeRecord>,
    ) -> Result<()> {
        record.mounts = self.mount_points(&mut record.spec, guest, volumes)?;
        self.fill_volumes(record, guest)?;
        let top = dir.join("top");
        std::fs::create_dir_all(&top)
            .map_err(|e| EngineError::internal(format!("making {}: {e}", top.display())))
    }

    /// Restores containers from the database into memory.
    pub(crate) fn restore(&self) -> Result<()> {
        for mut record in self.inner.db.all::<ContainerRecord>(Table::Containers)? {
            record.spec.complete_networks();
            self.enter(&mut record)?;
        }
        Ok(())
    }

    /// The host name of a container that is given none: that of the network it is in, or its own short ID.
    fn default_hostname(&self, id: &ContainerId, network: &NetworkMode) -> String {
        match network {
            NetworkMode::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            NetworkMode::Container(other) => match self.find(other) {
                Ok(other) => other.with(|r| r.spec.config.hostname.clone()),
                Err(_) => id.short().to_owned(),
            },
            _ => id.short().to_owned(),
        }
    }
}

/// The namespaces that are asked for; those of another container without their paths, which it has only while it runs.
fn asked_namespaces(spec: &ContainerSpec) -> Namespaces {
    let of_container = |mode: &str| mode.starts_with("container:").then(PathBuf::new);
    Namespaces {
        host_pid: spec.pid_mode == "host",
        pid: of_container(&spec.pid_mode),
        host_ipc: spec.ipc_mode == "host",
        ipc: of_container(&spec.ipc_mode),
        shm: super::ipc::shm(&spec.ipc_mode),
        host_cgroup: spec.cgroupns_mode == "host",
        host_uts: spec.uts_mode == "host",
        ..Default::default()
    }
}

fn check_platform(spec: &ContainerSpec, image: &ImageConfig) -> Result<()> {
    let mut parts = spec.platform.split('/');
    let (os, arch) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let fits = (os.is_empty() || os == image.os || os == image.architecture)
        && (arch.is_empty() || arch == image.architecture);
    if fits {
        return Ok(());
    }
    Err(EngineError::not_found(format!(
        "image with reference {} was found but does not match the specified platform: wanted {}, actual: {}/{}",
        spec.image, spec.platform, image.os, image.architecture
    )))
}

/// The container's config over the image's, as dockerd merges them.
fn merge(config: &mut Config, image: &ImageConfig, guest: &dyn Guest) {
    let base = &image.config;
    if config.user.is_empty() {
        config.user.clone_from(&base.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&base.working_dir);
    }
    let own = std::mem::take(&mut config.env);
    config.env = merge_env(&base.env, &own, guest);
    match (&config.entrypoint, &config.cmd) {
        (None, cmd) => {
            if cmd.as_ref().is_none_or(Vec::is_empty) {
                config.cmd = base.cmd.clone();
                config.args_escaped = base.args_escaped;
            }
            config.entrypoint = base.entrypoint.clone();
        }
        (Some(entrypoint), _) if entrypoint.iter().all(String::is_empty) => config.entrypoint = None,
        _ => {}
    }
    let mut labels = base.labels.clone();
    labels.append(&mut config.labels);
    config.labels = labels;
    for (list, more) in
        [(&mut config.volumes, &base.volumes), (&mut config.exposed_ports, &base.exposed_ports)]
    {
        for item in more {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
    if config.stop_signal.as_ref().is_none_or(String::is_empty) {
        config.stop_signal = Some(base.stop_signal.clone()).filter(|s| !s.is_empty());
    }
    if config.shell.is_empty() {
        config.shell.clone_from(&base.shell);
    }
    if config.on_build.is_empty() {
        config.on_build.clone_from(&base.on_build);
    }
    if let Some(theirs) = &base.healthcheck {
        let theirs = image::healthcheck(theirs);
        match &mut config.healthcheck {
            None => config.healthcheck = Some(theirs),
            Some(own) => {
                if own.test.is_empty() {
                    own.test = theirs.test;
                }
                for (own, theirs) in [
                    (&mut own.interval, theirs.interval),
                    (&mut own.timeout, theirs.timeout),
                    (&mut own.start_period, theirs.start_period),
                    (&mut own.start_interval, theirs.start_interval),
                    (&mut own.retries, theirs.retries),
                ] {
                    if *own == 0 {
                        *own = theirs;
                    }
                }
            }
        }
    }
}

/// The container's environment and what it does not name of the image's, in dockerd's order; `NAME` alone takes a
/// variable away when the process starts.
fn merge_env(image: &[String], own: &[String], guest: &dyn Guest) -> Vec<String> {
    let name_of = |entry: &str| -> String {
        let name = env_name(entry);
        if guest.env_case_sensitive() { name.to_owned() } else { name.to_uppercase() }
    };
    let mut all: Vec<String> = Vec::new();
    for entry in own {
        match all.iter().position(|e| name_of(e) == name_of(entry)) {
            Some(i) => all[i].clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    for entry in image {
        if !all.iter().any(|e| name_of(e) == name_of(entry)) {
            all.push(entry.clone());
        }
    }
    for (name, value) in guest.default_env() {
        if name == "PATH" && !all.iter().any(|e| name_of(e) == name_of(&name)) {
            all.push(format!("{name}={value}"));
        }
    }
    all
}

/// Windows has hidden variables such as `=C:`: the name is never empty.
fn env_name(entry: &str) -> &str {
    let end = entry.char_indices().skip(1).find(|(_, c)| *c == '=').map_or(entry.len(), |(i, _)| i);
    &entry[..end]
}

/// Whether the entry has a value: `NAME` alone is not given to a process.
pub(crate) fn is_set(entry: &str) -> bool {
    env_name(entry).len() < entry.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_merge_by_name() {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let guest = placement::guest(Os::Linux).unwrap();
        let merged = merge_env(&own(&["PATH=/bin", "A=1", "B=2"]), &own(&["A=3", "B", "C=4=5"]), guest);
        assert_eq!(merged, ["A=3", "B", "C=4=5", "PATH=/bin"]);
        assert_eq!(merged.iter().filter(|e| is_set(e)).count(), 3);
        let merged = merge_env(&[], &own(&["X=1"]), guest);
        assert_eq!(merged[0], "X=1");
        assert!(merged[1].starts_with("PATH="));
    }

    #[test]
    fn entrypoint_and_command() {
        let guest = placement::guest(Os::Linux).unwrap();
        let own = |l: &[&str]| Some(l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let mut image = ImageConfig::default();
        image.config.entrypoint = own(&["/e"]);
        image.config.cmd = own(&["c"]);
        let check = |entrypoint, cmd, expected: &[&str]| {
            let mut config = Config { entrypoint, cmd, ..Default::default() };
            merge(&mut config, &image, guest);
            let got: Vec<String> =
                config.entrypoint.into_iter().flatten().chain(config.cmd.into_iter().flatten()).collect();
            assert_eq!(got, expected);
        };
        check(None, None, &["/e", "c"]);
        check(None, own(&["x"]), &["/e", "x"]);
        check(own(&["/o"]), None, &["/o"]);
        check(own(&[""]), own(&["x"]), &["x"]);
    }
}
