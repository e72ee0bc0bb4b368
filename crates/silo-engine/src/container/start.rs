//! `start`: network → bundle → shim → program; each step beside its undo.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use jiff::Timestamp;
use silo_guest::{BundleRequest, MountKind, MountRequest, Namespaces, ProcessConfig};
use silo_sandbox::{Events, FailureKind, LogFile, Sandbox, SandboxError, ShimConfig};

use crate::engine::{Engine, Entry, blocking, log_path};
use crate::error::{EngineError, Result, guest_error};
use crate::joined::Joined;
use crate::lock::lock;
use crate::record::{ContainerRecord, Health, Status};
use crate::spares::Rest;
use crate::spec::{MountSource, NetworkMode};
use crate::{bundle, image, placement};

use super::create::is_set;
use std::sync::Arc;

/// A container that is about to run: what it has of network, and its shim.
pub(crate) struct Begun {
    pub(crate) joined: Joined,
    pub(crate) sandbox: Sandbox,
    pub(crate) events: Events,
    /// What is left of the spare that it was until it runs.
    pub(crate) rest: Option<Rest>,
}

/// How long a start waits for clients whose attach has been answered and whose connection is not here yet.
const ATTACH_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The supervisor's own network namespace: the shim has entered it before it reads the bundle.
pub(super) const SUPERVISORS_NETWORK: &str = "/proc/self/ns/net";

impl Engine {
    /// Starts a container. Already running: `NotModified`.
    pub async fn start(&self, name: &str, console_size: Option<(u16, u16)>) -> Result<()> {
        let entry = self.find(name)?;
        let _verb = entry.verb.lock().await;
        match entry.status() {
            Status::Running => return Err(EngineError::not_modified("container is already running")),
            Status::Paused => {
                return Err(EngineError::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        if let Some(size) = console_size {
            self.note(&entry, |r| r.spec.console_size = size);
        }
        self.note(&entry, |r| {
            r.stopped_by_user = false;
            r.restart_count = 0;
        });
        entry.stop_restarting(false);
        self.start_entry(&entry).await
    }

    /// The steps; the caller holds the container's verb.
    pub(crate) async fn start_entry(&self, entry: &Arc<Entry>) -> Result<()> {
        let result = self.start_steps(entry).await;
        if let Err(failure) = &result {
            // Clients that wait for output see the end of their stream.
            lock(&entry.early).clear();
            self.release_volumes(&entry.record());
            *lock(&entry.sandbox) = None;
            self.stop_names(&entry.id);
            let code = failure_code(&failure.message);
            self.note(entry, |r| {
                r.state.status = if r.state.started_at.is_none() { Status::Created } else { Status::Exited };
                r.state.error.clone_from(&failure.message);
                r.state.exit_code = code;
                r.state.pid = 0;
                r.adapters.clear();
                r.published.clear();
            });
            entry.changed.send_modify(|p| {
                p.ended += 1;
                p.exit_code = code;
                p.error = Some(failure.message.clone());
            });
            if entry.with(|r| r.spec.auto_remove) {
                let _ = self.remove_entry(entry, true).await;
            }
        }
        result
    }

    async fn start_steps(&self, entry: &Arc<Entry>) -> Result<()> {
        let _files = entry.files_turn().await?;
        self.name_networks(entry);
        let _starting = self.inner.spares.starting();
        let begun = match self.begin_with_spare(entry).await {
            Some(begun) => begun,
            None => self.begin(entry).await?,
        };
        let had_spare = begun.rest.is_some();
        let started = self.start_begun(entry, begun).await;
        if started.is_err() && had_spare {
            // It was a spare's, and nobody has written to it.
            silo_sandbox::forget_handed_over(&self.dir(&entry.id));
        }
        started
    }

    /// The rest of the steps.
    async fn start_begun(&self, entry: &Arc<Entry>, begun: Begun) -> Result<()> {
        let Begun { joined, sandbox, events, rest: _rest } = begun;
        // A step's layers are met once.
        if !entry.with(|r| r.spec.of_build) {
            self.want_spares(entry);
        }
        let record = entry.record();
        let adapters = joined.adapters.clone();
        let undo = |engine: &Engine| engine.leave_networks(&record.id, &adapters);
        let published = match self.publish(&record, &joined.adapters).await {
            Ok(p) => p,
            Err(e) => {
                undo(self);
                return Err(e);
            }
        };
        // `docker run` attaches first: whose attach has been answered must not miss the first output.
        let mut attaching = entry.attaching.subscribe();
        let _ = tokio::time::timeout(ATTACH_LIMIT, attaching.wait_for(|count| *count == 0)).await;
        self.attach_early(entry, &sandbox).await;
        self.network_events(&record, "connect");
        self.inner.events.joined(&record);
        let pid = match sandbox.start(joined.namespace).await {
            Ok(pid) => pid,
            Err(e) => {
                self.network_events(&record, "disconnect");
                self.inner.events.left(&record);
                self.unpublish(&record.id).await;
                undo(self);
                return Err(start_error(e));
            }
        };
        *lock(&entry.sandbox) = Some(sandbox.clone());
        // Who came since the clients were handed over above.
        self.attach_early(entry, &sandbox).await;
        let checked = health_wanted(&record);
        self.note(entry, |r| {
            r.state.status = Status::Running;
            r.state.pid = pid;
            r.state.exit_code = 0;
            r.state.error.clear();
            r.state.oom_killed = false;
            r.state.started_at = Some(Timestamp::now());
            for endpoint in &mut r.spec.networks {
                if let Some(adapter) = joined.adapters.iter().find(|a| a.network == endpoint.network) {
                    endpoint.network_id.clone_from(&adapter.network_id);
                }
            }
            r.adapters = joined.adapters;
            r.published = published;
            r.health = checked.then(|| Health { status: "starting".into(), ..Default::default() });
        });
        entry.changed.send_modify(|p| p.error = None);
        let record = entry.record();
        self.inner.events.container(&record, "start", &[]);
        self.supervise(entry, events);
        Ok(())
    }

    /// What a container's shim has to know.
    pub(crate) fn shim_config(&self, record: &ContainerRecord) -> ShimConfig {
        ShimConfig {
            socket: self.socket(&record.id),
            terminal: record.spec.config.tty,
            console_size: record.spec.console_size,
            stdin: record.spec.config.open_stdin,
            stdin_once: record.spec.config.stdin_once,
            log: (record.spec.log.driver != "none").then(|| LogFile {
                path: log_path(&self.dir(&record.id)),
                max_size: record.spec.log.max_size,
                max_files: record.spec.log.max_files,
            }),
            isolation: record.isolation,
            machine: self.machine_config(record),
            owner: record.id_range,
            volumes: self.inner.volumes.root().to_owned(),
            top: self.top_disk(record),
            files_of: None,
            open_files: 0,
            spare: None,
        }
    }

    /// The container's network and bundle, and a shim of its own beside.
    async fn begin(&self, entry: &Arc<Entry>) -> Result<Begun> {
        let record = entry.record();
        let dir = self.dir(&entry.id);
        let mut shim = self.shim_config(&record);
        let (engine, of) = (self.clone(), record.clone());
        let ready = blocking(move || engine.ready_machine(&of)).await;
        shim.machine.ready = ready.unwrap_or_else(|e| {
            tracing::warn!("container {}: what could be ready for it: {e}", record.id);
            None
        });
        // The shim starts up while network and bundle are made.
        let (joined, spawned) = tokio::join!(
            self.furnish(entry, None),
            Sandbox::spawn(&self.inner.config.executable, &dir, &shim)
        );
        // A shim whose connection is dropped before its start ends.
        let joined = joined?;
        match spawned {
            Ok((sandbox, events)) => Ok(Begun { joined, sandbox, events, rest: None }),
            Err(e) => {
                self.leave_networks(&entry.id, &joined.adapters);
                Err(EngineError::internal(format!("starting the shim: {e}")))
            }
        }
    }

    /// Makes the container's network, in a namespace that was made before if there is one, and its bundle.
    pub(crate) async fn furnish(&self, entry: &Arc<Entry>, namespace: Option<OwnedFd>) -> Result<Joined> {
        let (engine, this, record) = (self.clone(), entry.clone(), entry.record());
        blocking(move || {
            engine.finish_leaving(&this);
            engine.hold_volumes(&record)?;
            let joined = engine.join_networks(&record, namespace)?;
            match engine.write_bundle(&record, &joined) {
                Ok(()) => Ok(joined),
                Err(e) => {
                    engine.leave_networks(&record.id, &joined.adapters);
                    Err(e)
                }
            }
        })
        .await
    }

    /// Hands over the clients that came before there was a shim.
    async fn attach_early(&self, entry: &Entry, sandbox: &Sandbox) {
        let early = std::mem::take(&mut *lock(&entry.early));
        for (attach, client) in early {
            if let Err(e) = sandbox.attach(attach, client).await {
                tracing::warn!("container {}: attaching a client: {e}", entry.id);
            }
        }
    }

    /// Writes `config.json`, `rootfs.json` and the generated files of `/etc`.
    pub(crate) fn write_bundle(&self, record: &ContainerRecord, joined: &Joined) -> Result<()> {
        let Some(disk) = self.top_disk(record) else { return self.write_bundle_here(record, joined) };
        let made = silo_sandbox::with_top(&self.dir(&record.id), &disk, || {
            Ok(self.write_bundle_here(record, joined))
        });
        made.map_err(|e| EngineError::internal(format!("--storage-opt size: {e}")))?
    }

    fn write_bundle_here(&self, record: &ContainerRecord, joined: &Joined) -> Result<()> {
        let dir = self.dir(&record.id);
        let guest = placement::guest(record.os)?;
        let spec = &record.spec;
        let links = self.linked(record)?;
        let network_files = self.network_files(record, joined, &links);
        for (name, text) in &network_files {
            bundle::write(&dir, name, text.as_bytes(), 0o644)?;
        }
        let layers = self.inner.images.chain(&record.image_id).map_err(image::error)?;
        let mounts = self.mounts_of(record)?;
        let mut env: Vec<String> = spec.config.env.iter().filter(|e| is_set(e)).cloned().collect();
        env.extend(links.iter().flat_map(|l| l.env.iter().cloned()));
        env.extend(spec.hidden_env.0.iter().cloned());
        let process = ProcessConfig {
            args: spec
                .config
                .entrypoint
                .iter()
                .flatten()
                .chain(spec.config.cmd.iter().flatten())
                .cloned()
                .collect(),
            args_escaped: spec.config.args_escaped,
            env,
            working_dir: spec.config.working_dir.clone(),
            user: spec.config.user.clone(),
            additional_groups: spec.additional_groups.clone(),
            terminal: spec.config.tty,
            console_size: spec.console_size,
            privileged: false,
        };
        let chain = self.inner.images.chain_id(&record.image_id).map_err(image::error)?;
        let kernel = placement::facts(record.isolation).kernel;
        let limits = super::limits::effective(&spec.limits, kernel, &dir)?;
        let request = BundleRequest {
            container_id: &record.id.0,
            process: &process,
            init: spec.init,
            hostname: &spec.config.hostname,
            domainname: &spec.config.domainname,
            layers: &layers,
            chain: chain.as_str(),
            top: &dir.join("top"),
            dir: &dir,
            cache: &self.inner.config.root,
            mounts: &mounts,
            limits: &limits,
            security: &spec.security,
            namespaces: &self.namespaces(record)?,
            cgroup: &self.cgroup(&record.id),
            id_range: record.id_range,
            identity: placement::facts(record.isolation).identity,
            annotations: &spec.annotations,
            discarded: spec.auto_remove,
        };
        let made = guest.bundle(&request).map_err(guest_error)?;
        bundle::write_config(&dir, &made.spec)?;
        let rootfs = serde_json::to_vec(&made.rootfs)
            .map_err(|e| EngineError::internal(format!("writing the bundle: {e}")))?;
        bundle::write(&dir, "rootfs.json", &rootfs, 0o600)
    }

    fn namespaces(&self, record: &ContainerRecord) -> Result<Namespaces> {
        let spec = &record.spec;
        let of_container = |mode: &str, kind: &str| -> Result<Option<PathBuf>> {
            let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
            let other = self.find(other)?;
            let (pid, running) = other.with(|r| (r.state.pid, r.state.status.is_running()));
            if !running {
                return Err(EngineError::conflict(format!(
                    "cannot join {kind} namespace of a non running container: {}",
                    other.id
                )));
            }
            refuse_to_join(&other, kind)?;
            Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/{kind}"))))
        };
        Ok(Namespaces {
            network: Some(PathBuf::from(SUPERVISORS_NETWORK)),
            host_network: spec.network == NetworkMode::Host,
            host_pid: spec.pid_mode == "host",
            pid: of_container(&spec.pid_mode, "pid")?,
            host_ipc: spec.ipc_mode == "host",
            ipc: of_container(&spec.ipc_mode, "ipc")?,
            shm: self.shm_of(&spec.ipc_mode)?,
            host_uts: spec.uts_mode == "host",
            // As dockerd: private on v2 (which a kernel of its own has), the host's on v1 unless asked for.
            host_cgroup: spec.cgroupns_mode == "host"
                || (spec.cgroupns_mode.is_empty()
                    && silo_sandbox::cgroup_version() == 1
                    && placement::facts(record.isolation).kernel == placement::Kernel::Shared),
        })
    }

    fn mounts_of(&self, record: &ContainerRecord) -> Result<Vec<MountRequest>> {
        let mut list = Vec::new();
        for mount in &record.spec.mounts {
            let kind = match &mount.kind {
                MountSource::Bind { source, .. } => {
                    if !std::path::Path::new(source).exists() {
                        return Err(EngineError::invalid(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                        )));
                    }
                    MountKind::Bind { source: source.into(), subpath: PathBuf::new(), mounter: None }
                }
                MountSource::Volume { name, subpath, .. } => {
                    self.volume_mount(name, subpath, placement::guest(record.os)?)?
                }
                MountSource::Tmpfs { options, .. } => MountKind::Tmpfs { options: options.clone() },
            };
            list.push(MountRequest {
                kind,
                target: mount.target.clone(),
                read_only: mount.read_only,
                propagation: mount.propagation.clone(),
                non_recursive: mount.non_recursive,
            });
        }
        Ok(list)
    }
}

/// Nothing of a kernel of its own can be shared.
pub(crate) fn refuse_to_join(other: &Entry, kind: &str) -> Result<()> {
    match placement::facts(other.with(|r| r.isolation)).kernel {
        placement::Kernel::Shared => Ok(()),
        placement::Kernel::Own => Err(EngineError::conflict(format!(
            "cannot join the {kind} of container {}: it has a kernel of its own",
            other.id
        ))),
    }
}

fn health_wanted(record: &ContainerRecord) -> bool {
    record.spec.config.healthcheck.as_ref().is_some_and(|h| h.test.first().is_some_and(|t| t != "NONE"))
}

/// In the words that the docker client knows its exit codes 126 and 127 by; the program's fault is the request's.
fn start_error(error: SandboxError) -> EngineError {
    let text = format!("failed to create task for container: unable to start container process: {error}");
    match error {
        SandboxError::Failed(f)
            if matches!(
                f.kind,
                FailureKind::ProgramNotFound | FailureKind::ProgramNotExecutable | FailureKind::Invalid
            ) =>
        {
            EngineError::invalid(text)
        }
        _ => EngineError::internal(text),
    }
}

/// dockerd's exit code of a container whose program could not be started.
fn failure_code(message: &str) -> u32 {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        127
    } else if message.contains("permission denied") || message.contains("exec format error") {
        126
    } else {
        128
    }
}
