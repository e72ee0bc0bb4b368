//! The files of a container that has a kernel of its own: they are asked for, of the machine that it runs in, or of one that
//! is booted for the moment.
//!
//! The host never mounts what such a container has written. What the engine has to look through as a whole comes as the
//! archive of a layer, and is unpacked as one that was pulled: [`Engine::writable`].

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use silo_image::layer::{Found, Limits};
use silo_sandbox::{Sandbox, SandboxError, ShimConfig, Tool, ToolStream};
use tempfile::TempDir;
use tokio::sync::OwnedMutexGuard;

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result, guest_error, sandbox_error};
use crate::ids::random_id;
use crate::placement::{self, Kernel};
use crate::record::{ContainerId, ContainerRecord, Status};

use super::volumes::HeldVolumes;

/// How long somebody who wants a resting container's files waits for others that have them.
const TURN: Duration = Duration::from_secs(60);
/// Most bytes of a file that an exec's user is looked up in.
const ACCOUNTS: u64 = 1 << 20;
/// Most bytes of a tool's answer that is no archive.
const ANSWER: u64 = 4 << 20;

/// How long a size waits for what is not on the disk yet.
const WRITTEN: Duration = Duration::from_secs(5);

/// Names of what is in a container's directory for a moment.
const COPY: &str = "copy-";
/// Directory, in a container's, of the shim that boots a machine for files alone.
const SHIM: &str = "files";

/// Somebody who can be asked for a container's files.
pub(crate) struct Keeper {
    sandbox: Sandbox,
    /// Of a machine that was booted for the files: no other has them meanwhile.
    turn: Option<(OwnedMutexGuard<()>, HeldVolumes)>,
    runtime: tokio::runtime::Handle,
}

/// A container's writable directory, or a copy of it that goes when this is dropped.
pub(crate) struct Writable {
    path: PathBuf,
    copy: Option<TempDir>,
    /// It is on a disk of its own, which is mounted as long as this is there.
    disk: Option<OwnedFd>,
}

impl Writable {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It cannot be moved to where the engine's other files are.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.disk.is_some()
    }

    /// The path, if what is mounted is not made of it.
    pub(crate) fn stands_in(&self) -> Option<PathBuf> {
        self.copy.as_ref().map(|_| self.path.clone())
    }
}

/// A running container's root, or copies of some of its files.
pub(crate) enum View {
    Root(PathBuf),
    Copies(TempDir),
}

impl View {
    pub(crate) fn path(&self) -> &Path {
        match self {
            View::Root(path) => path,
            View::Copies(dir) => dir.path(),
        }
    }
}

/// What a tool, or reading its output, has failed at.
pub(crate) fn tool_error(error: io::Error) -> EngineError {
    match ToolStream::failure(&error) {
        Some(failure) => sandbox_error(SandboxError::Failed(failure.clone())),
        None => EngineError::internal(format!("the container's files: {error}")),
    }
}

/// Whether a container's files are in a machine only.
pub(crate) fn are_asked_for(record: &ContainerRecord) -> bool {
    placement::facts(record.isolation).kernel == Kernel::Own
}

impl Keeper {
    pub(crate) async fn tool(&self, tool: Tool) -> Result<ToolStream> {
        self.sandbox.tool(random_id(), tool).await.map_err(sandbox_error)
    }

    /// A tool's whole output; the inner error is the tool's or the link's.
    async fn output(&self, tool: Tool) -> Result<io::Result<Vec<u8>>> {
        let mut stream = self.tool(tool).await?;
        blocking(move || {
            let mut bytes = Vec::new();
            let read = (&mut stream).take(ANSWER).read_to_end(&mut bytes).and_then(|_| stream.finish());
            Ok(read.map(|()| bytes))
        })
        .await
    }

    /// What is at a path; no such file is `NotFound`.
    pub(crate) async fn stat(&self, path: &Path) -> Result<Found> {
        let bytes = self.output(Tool::Stat { path: path.to_owned() }).await?.map_err(tool_error)?;
        serde_json::from_slice(&bytes).map_err(|e| tool_error(io::Error::other(e)))
    }
}

/// The names in a container's root, asked for. Blocking.
pub(crate) struct AskedNames<'k>(pub(crate) &'k Keeper);

impl silo_guest::Names for AskedNames<'_> {
    fn has(&self, directory: &Path, name: &str) -> Option<bool> {
        let Self(keeper) = self;
        let is_there = |path: &Path| keeper.runtime.block_on(keeper.stat(path)).is_ok();
        if is_there(&directory.join(name)) {
            return Some(true);
        }
        is_there(&directory.join(".")).then_some(false)
    }

    fn all(&self, directory: &Path) -> Vec<OsString> {
        let Self(keeper) = self;
        let tool = keeper.runtime.block_on(keeper.tool(Tool::Names { path: directory.to_owned() }));
        let mut bytes = Vec::new();
        let read = tool.map(|mut stream| {
            (&mut stream).take(ANSWER).read_to_end(&mut bytes).and_then(|_| stream.finish())
        });
        let names: Option<Vec<OsString>> = match read {
            Ok(Ok(())) => serde_json::from_slice::<Vec<String>>(&bytes).ok(),
            _ => None,
        }
        .map(|names| names.into_iter().map(OsString::from).collect());
        names.unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            let sandbox = self.sandbox.clone();
            self.runtime.spawn(async move {
                match sandbox.shutdown().await {
                    // Of one that did not boot.
                    Ok(()) | Err(SandboxError::Gone) => {}
                    Err(e) => tracing::warn!("a machine that was booted for its files: {e}"),
                }
                drop(turn);
            });
        }
    }
}

impl Entry {
    /// The right to a resting container's files: whoever starts or removes it, or looks at them, has it meanwhile.
    pub(crate) async fn files_turn(&self) -> Result<OwnedMutexGuard<()>> {
        tokio::time::timeout(TURN, self.files.clone().lock_owned()).await.map_err(|_| {
            EngineError::conflict(format!("the files of container {} are in use by another request", self.id))
        })
    }
}

impl Engine {
    /// Sockets of the shims that a container can have.
    pub(super) fn sockets(&self, id: &ContainerId) -> [PathBuf; 2] {
        let socket = self.socket(id);
        [socket.with_extension(SHIM), socket]
    }

    /// Whoever can be asked for the files of a container with a kernel of its own.
    pub(crate) async fn keeper(&self, entry: &Arc<Entry>) -> Result<Keeper> {
        let runtime = tokio::runtime::Handle::current();
        if let Ok(sandbox) = entry.running() {
            return Ok(Keeper { sandbox, turn: None, runtime });
        }
        let turn = entry.files_turn().await?;
        let record = entry.record();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!("container {} is being removed", entry.id)));
        }
        // Started while this waited.
        if let Ok(sandbox) = entry.running() {
            return Ok(Keeper { sandbox, turn: None, runtime });
        }
        let dir = self.dir(&entry.id);
        let shims = dir.join(SHIM);
        let shim = ShimConfig {
            socket: self.socket(&entry.id).with_extension(SHIM),
            isolation: record.isolation,
            machine: self.machine_config(&record),
            owner: record.id_range,
            volumes: self.inner.volumes.root().to_owned(),
            files_of: Some(dir),
            ..Default::default()
        };
        let (engine, made) = (self.clone(), shims.clone());
        let volumes = blocking(move || {
            let volumes = engine.volumes_for_now(&record)?;
            engine.bundle_for_files(&record)?;
            std::fs::create_dir_all(&made)
                .map_err(|e| EngineError::internal(format!("making {}: {e}", made.display())))?;
            Ok(volumes)
        })
        .await?;
        let failed = |e: SandboxError| EngineError::internal(format!("booting a machine for its files: {e}"));
        let (sandbox, _) =
            Sandbox::spawn(&self.inner.config.executable, &shims, &shim).await.map_err(failed)?;
        let keeper = Keeper { sandbox, turn: Some((turn, volumes)), runtime };
        keeper.sandbox.start(None).await.map_err(failed)?;
        Ok(keeper)
    }

    fn copies(&self, dir: &Path) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(COPY)
            .tempdir_in(dir)
            .map_err(|e| EngineError::internal(format!("making a directory in {}: {e}", dir.display())))
    }

    /// Removes the copies that a daemon that is gone has left.
    pub(crate) fn sweep_copies(&self, dir: &Path) {
        for found in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if found.file_name().to_string_lossy().starts_with(COPY)
                && let Err(e) = std::fs::remove_dir_all(found.path())
            {
                tracing::warn!("removing {}: {e}", found.path().display());
            }
        }
    }

    /// A container's writable directory.
    pub(crate) async fn writable(&self, entry: &Arc<Entry>) -> Result<Writable> {
        let record = entry.record();
        if !are_asked_for(&record) {
            let (dir, top) = (self.dir(&entry.id), self.top_disk(&record));
            let Some(top) = top else {
                return Ok(Writable { path: dir.join("top"), copy: None, disk: None });
            };
            return blocking(move || {
                let disk = silo_sandbox::open_top(&dir, &top)
                    .map_err(|e| EngineError::internal(format!("the container's files: {e}")))?;
                let path = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
                Ok(Writable { path, copy: None, disk: Some(disk) })
            })
            .await;
        }
        let keeper = self.keeper(entry).await?;
        let mut stream = keeper.tool(Tool::Top).await?;
        let copy = self.copies(&self.dir(&entry.id))?;
        let bytes = silo_sandbox::machine_limit(&self.machine_config(&record));
        blocking(move || {
            let limits = Limits { bytes, ..Default::default() };
            let unpacked = silo_image::layer::unpack(&mut stream, copy.path(), &limits);
            // The tool's own words, if it has failed, say more than where its archive breaks off.
            if unpacked.is_ok() || has_failed(&mut stream) {
                stream.finish().map_err(tool_error)?;
            }
            drop(keeper);
            unpacked.map_err(|e| EngineError::conflict(format!("the container's files: {e}")))?;
            Ok(Writable { path: copy.path().to_owned(), copy: Some(copy), disk: None })
        })
        .await
    }

    /// Has a running container's files be on its disk, as far as that is soon done: how much there is can be seen there.
    pub(crate) async fn written(&self, record: &ContainerRecord) {
        let write = async {
            let keeper = self.keeper(&self.find(&record.id.0)?).await?;
            keeper.output(Tool::Sync).await?.map_err(tool_error)
        };
        match tokio::time::timeout(WRITTEN, write).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::debug!("container {}: writing its files: {e}", record.id),
            Err(_) => tracing::debug!("container {}: its files are still being written", record.id),
        }
    }

    /// A running container's root as [`silo_guest::Guest::process`] wants to see it.
    pub(crate) async fn accounts(&self, entry: &Arc<Entry>, working_dir: &str) -> Result<View> {
        let record = entry.record();
        if !are_asked_for(&record) {
            return Ok(root_of(&record));
        }
        // A full disk keeps nobody from looking into a container.
        let copies = self.copies(&self.config().run)?;
        let guest = placement::guest(record.os)?;
        let files = guest.account_files();
        if files.is_empty() && working_dir.is_empty() {
            return Ok(View::Copies(copies));
        }
        let keeper = Arc::new(self.keeper(entry).await?);
        if !working_dir.is_empty() {
            let typed = guest.path_in_root(working_dir, "").map_err(guest_error)?.0;
            let (asked, path) = (keeper.clone(), typed.clone());
            let spelled = blocking(move || Ok(guest.spelled(&AskedNames(&asked), &path))).await?;
            // Whoever looks for it finds it as it is spelled there.
            if spelled != typed {
                let path = copies.path().join(spelled.strip_prefix("/").unwrap_or(&spelled));
                std::fs::create_dir_all(&path)
                    .map_err(|e| EngineError::internal(format!("making {}: {e}", path.display())))?;
            }
        }
        for file in files {
            let tool = Tool::Read { path: Path::new("/").join(file), most: ACCOUNTS };
            let bytes = match keeper.output(tool).await? {
                Ok(bytes) => bytes,
                // None there, or none that can be read: as on the host.
                Err(e) if ToolStream::failure(&e).is_some() => continue,
                Err(e) => return Err(tool_error(e)),
            };
            let path = copies.path().join(file);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, bytes))
                .map_err(|e| EngineError::internal(format!("writing {}: {e}", path.display())))?;
        }
        Ok(View::Copies(copies))
    }

    /// A running container's root as [`silo_guest::Guest::flushed`] wants to see it.
    pub(crate) async fn flush_report(&self, entry: &Arc<Entry>) -> Result<View> {
        let record = entry.record();
        if !are_asked_for(&record) {
            return Ok(root_of(&record));
        }
        let copies = self.copies(&self.dir(&entry.id))?;
        let Some(directory) = placement::guest(record.os)?.flush_report() else {
            return Ok(View::Copies(copies));
        };
        let keeper = self.keeper(entry).await?;
        let path = Path::new("/").join(directory);
        match keeper.stat(&path).await {
            Err(e) if e.kind == crate::error::Kind::NotFound => return Ok(View::Copies(copies)),
            other => drop(other?),
        }
        let mut stream = keeper.tool(Tool::Pack { path, prefix: directory.to_owned() }).await?;
        blocking(move || {
            let limits = Limits { bytes: ANSWER, entries: 1024 };
            silo_image::layer::unpack(&mut stream, copies.path(), &limits)
                .map_err(|e| EngineError::conflict(format!("the container's files: {e}")))?;
            stream.finish().map_err(tool_error)?;
            Ok(View::Copies(copies))
        })
        .await
    }
}

fn root_of(record: &ContainerRecord) -> View {
    View::Root(PathBuf::from(format!("/proc/{}/root", record.state.pid)))
}

/// A tool has failed, as its end says; one that goes on has not.
fn has_failed(stream: &mut ToolStream) -> bool {
    stream.read(&mut [0]).is_err_and(|e| ToolStream::failure(&e).is_some())
}
