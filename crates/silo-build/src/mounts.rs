//! `RUN --mount`: directories of the host, and how long a step has them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use silo_engine::guest::Guest;
use silo_engine::images::{Digest, State, copy_up};
use silo_engine::{Engine, InUse, MountSource, MountSpec};
use silo_image::layer::Resolved;
use tempfile::TempDir;
use tokio::sync::OwnedMutexGuard;

use crate::copy::{Form, Hashes, Item, Request, Tree, prepare};
use crate::dockerfile::ast::{Mount, MountKind, Sharing};
use crate::failure::{Failure, Result};
use crate::removals::Removals;
use crate::secrets::{self, Secrets};

/// Copies of one cache mount that builds have for themselves.
const MOST_PRIVATE: usize = 64;

type Turns = HashMap<String, Weak<tokio::sync::Mutex<()>>>;

/// Whose turn a locked cache mount is, as long as somebody has or wants it.
static TURNS: Mutex<Option<Turns>> = Mutex::new(None);

fn turn(key: &str) -> Arc<tokio::sync::Mutex<()>> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let turns = turns.get_or_insert_default();
    if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
        return turn;
    }
    turns.retain(|_, turn| turn.strong_count() > 0);
    let turn = Arc::default();
    turns.insert(key.to_owned(), Arc::downgrade(&turn));
    turn
}

/// Files that a mount shows, wherever they come from.
pub(crate) struct Files {
    pub(crate) tree: Arc<Tree>,
    /// Unpacked layers, uppermost first; none: the context.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) form: Form,
    /// Keeps the layers.
    pub(crate) _state: Option<Arc<State>>,
}

/// What the mounts of a step are.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) specs: Vec<MountSpec>,
    /// Variables of secrets.
    pub(crate) variables: Vec<String>,
    copies: Vec<TempDir>,
    _secrets: Vec<TempDir>,
    _turns: Vec<OwnedMutexGuard<()>>,
    _in_use: Vec<InUse>,
}

/// Where a step's mounts are made.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) engine: &'p Engine,
    pub(crate) guest: &'static dyn Guest,
    pub(crate) working_dir: &'p str,
    /// A directory for copies.
    pub(crate) scratch: &'p Path,
    pub(crate) removals: &'p Removals,
    pub(crate) secrets: &'p Secrets,
}

impl Place<'_> {
    /// Where a mount is in the guest.
    fn target(&self, mount: &Mount) -> Result<String> {
        let target = match (&mount.target, &mount.kind) {
            (Some(target), _) => target.clone(),
            (None, MountKind::Secret { id, .. }) => {
                format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(id))
            }
            (None, MountKind::Ssh { .. }) => String::new(),
            (None, _) => return Err(Failure::invalid("--mount: a target is needed")),
        };
        self.guest.next_working_dir(self.working_dir, &target).map_err(|e| Failure::invalid(e.to_string()))
    }
}

fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |e| Failure::internal(format!("{doing}: {e}"))
}

/// What a mount says, and of one that shows files what these are: what a step's result follows from.
pub(crate) fn meaning(mount: &Mount, files: Option<&Files>, hashes: &Hashes) -> Result<String> {
    let MountKind::Bind { source, .. } = &mount.kind else { return Ok(format!("{mount:?}")) };
    let Some(files) = files else { return Ok(format!("{mount:?}")) };
    let path = files.tree.inside(source).map_err(Failure::invalid)?;
    let items = vec![Item::Exact { tree: files.tree.clone(), path }];
    let request = Request::new("RUN --mount", items, "/".into(), true, files.form);
    let prepared = prepare(request, hashes).map_err(|e| Failure::invalid(e.to_string()))?;
    Ok(format!("{mount:?} {}", prepared.digest()))
}

/// The key of a cache mount's directory.
fn cache_key(guest: &dyn Guest, id: &str, copy: usize) -> String {
    Digest::of(format!("{} {CACHE} {id} {copy}", guest.os().as_str()).as_bytes()).hex().to_owned()
}

const CACHE: &str = "cache mount";

impl Mounts {
    /// None yet, with the turns of all `mounts` that are locked. All builds take theirs in one order: else two that want the
    /// same would wait for each other.
    pub(crate) async fn locked(place: Place<'_>, mounts: &[Mount]) -> Result<Self> {
        let mut keys = BTreeSet::new();
        for mount in mounts {
            if let MountKind::Cache { id, sharing: Sharing::Locked, .. } = &mount.kind {
                let target = place.target(mount)?;
                keys.insert(cache_key(place.guest, id.as_deref().unwrap_or(&target), 0));
            }
        }
        let mut this = Self::default();
        for key in keys {
            this._turns.push(turn(&key).lock_owned().await);
        }
        Ok(this)
    }

    /// Makes one more mount. `files`: of a `bind`, and of a `cache` that begins with some.
    pub(crate) async fn add(
        &mut self,
        place: Place<'_>,
        mount: &Mount,
        files: Option<Arc<Files>>,
    ) -> Result<()> {
        let target = place.target(mount)?;
        let (kind, read_only) = match &mount.kind {
            MountKind::Bind { source, writable, .. } => {
                let files = files.ok_or_else(|| Failure::internal("a bind mount of no files"))?;
                (self.bind(place, files, source, *writable).await?, !writable)
            }
            MountKind::Tmpfs { size } => {
                let options = size.iter().map(|bytes| format!("size={bytes}")).collect();
                (MountSource::Tmpfs { options, by_mount: true }, false)
            }
            MountKind::Cache { read_only, .. } => {
                (self.cache(place, &mount.kind, &target, files).await?, *read_only)
            }
            MountKind::Ssh { required: false, .. } => return Ok(()),
            MountKind::Secret { id, env, required, mode, uid, gid } => {
                let Some(value) = place.secrets.get(id, *required)? else { return Ok(()) };
                if let Some(name) = env {
                    self.variables.push(secrets::variable(name, id, value)?);
                    // Only the variable, where no file is named.
                    if mount.target.is_none() {
                        return Ok(());
                    }
                }
                let (engine, value, owner) = (place.engine.clone(), value.to_vec(), (*mode, *uid, *gid));
                let made = place.removals.blocking(move || secrets::file(&engine, &value, owner));
                let (directory, path) = made.await?;
                self._secrets.push(directory);
                (MountSource::Bind { source: text(&path)?, create: false }, true)
            }
            MountKind::Ssh { id, .. } => {
                return Err(Failure::invalid(format!(
                    "ssh {id}: no agent: the classic API, which this client speaks, has none"
                )));
            }
        };
        self.specs.push(MountSpec {
            kind,
            target,
            read_only,
            mode: String::new(),
            propagation: String::new(),
            non_recursive: false,
        });
        Ok(())
    }

    /// Directories that only this step's mounts show, of which a container that is left may have need.
    pub(crate) fn own(&self) -> impl Iterator<Item = PathBuf> {
        self.copies.iter().map(|copy| copy.path().to_owned())
    }

    /// Makes a file that the step's program is; its path in the guest.
    pub(crate) fn script(
        &mut self,
        scratch: &Path,
        directory: &str,
        guest: &dyn Guest,
        name: &str,
        body: &str,
    ) -> Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let at = |e: std::io::Error| Failure::internal(format!("writing a script: {e}"));
        let file = scratch.join(name);
        std::fs::write(&file, body).map_err(at)?;
        for path in [scratch, &file] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(at)?;
        }
        let target = guest.next_working_dir("/", directory).map_err(|e| Failure::invalid(e.to_string()))?;
        let path = guest.next_working_dir(&target, name).map_err(|e| Failure::invalid(e.to_string()))?;
        self.specs.push(MountSpec {
            kind: MountSource::Bind { source: text(scratch)?, create: false },
            target,
            read_only: true,
            mode: String::new(),
            propagation: String::new(),
            non_recursive: false,
        });
        Ok(path)
    }

    async fn bind(
        &mut self,
        place: Place<'_>,
        files: Arc<Files>,
        source: &str,
        writable: bool,
    ) -> Result<MountSource> {
        let (scratch, source) = (place.scratch.to_owned(), source.to_owned());
        let made = place.removals.blocking(move || bind(&scratch, &files, &source, writable));
        let (source, copy) = made.await?;
        self.copies.extend(copy);
        Ok(source)
    }

    async fn cache(
        &mut self,
        place: Place<'_>,
        kind: &MountKind,
        target: &str,
        files: Option<Arc<Files>>,
    ) -> Result<MountSource> {
        let MountKind::Cache { id, source, sharing, mode, uid, gid, .. } = kind else {
            return Err(Failure::internal("no cache mount"));
        };
        let id = id.as_deref().unwrap_or(target).to_owned();
        let mut key = cache_key(place.guest, &id, 0);
        if let Sharing::Private = sharing {
            let mut all = (0..MOST_PRIVATE).map(|n| cache_key(place.guest, &id, n));
            let free = all.find_map(|key| Some((place.engine.hold_cache_alone(&key)?, key)));
            let (alone, free) = free.ok_or_else(|| {
                Failure::invalid(format!("cache mount {id}: {MOST_PRIVATE} builds have it"))
            })?;
            self._in_use.push(alone);
            key = free;
        }
        let description = format!("cached mount {target} from {CACHE} {id:?}");
        let (engine, source, owner) = (place.engine.clone(), source.clone(), (*mode, *uid, *gid));
        let made = place.removals.blocking(move || {
            let (path, made, in_use) = engine.cache_mount(&key, &description)?;
            if made {
                begin_cache(&path, files.as_deref(), &source, owner)?;
            }
            Ok((text(&path)?, in_use))
        });
        let (source, in_use) = made.await?;
        self._in_use.push(in_use);
        Ok(MountSource::Bind { source, create: false })
    }
}

/// Where a mount's source leads among files: the path without links, in the spelling that it has there.
fn source_of(files: &Files, source: &str) -> Result<Resolved> {
    let failed = |why: String| Failure::invalid(format!("--mount: {source}: {why}"));
    let path = files.tree.inside(source).map_err(failed)?;
    files.tree.resolve(&path).map_err(|e| failed(e.to_string()))
}

/// Fills a new cache mount. `owner`: mode, user, group.
fn begin_cache(
    path: &Path,
    files: Option<&Files>,
    source: &str,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    if let Some(files) = files {
        let from = source_of(files, source)?.path;
        let failed = |e: std::io::Error| Failure::invalid(format!("--mount: {source}: {e}"));
        copy_up(&files.layers, files.form.files, &from, path).map_err(failed)?;
    }
    let failed = |e: std::io::Error| Failure::internal(format!("a cache mount at {}: {e}", path.display()));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    chown(path, Some(uid), Some(gid)).map_err(failed)
}

/// What a bind mount shows, and the copy that this may be.
fn bind(
    scratch: &Path,
    files: &Files,
    source: &str,
    writable: bool,
) -> Result<(MountSource, Option<TempDir>)> {
    let failed = |e: std::io::Error| Failure::invalid(format!("--mount: {source}: {e}"));
    let missing = || Failure::invalid(format!("--mount: failed to find {source}: no such file or directory"));
    let found = source_of(files, source)?;
    let seen = found.seen.ok_or_else(missing)?;
    if files.layers.is_empty() && !writable {
        // Nothing changes the context.
        return Ok((MountSource::Bind { source: text(seen.path())?, create: false }, None));
    }
    // Writes are thrown away, and several layers are one directory.
    let made = tempfile::Builder::new().prefix("mount-").tempdir_in(scratch);
    let copy = made.map_err(io(format!("making a directory in {}", scratch.display())))?;
    let from = seen.path().to_owned();
    let is_directory = from.is_dir();
    let (layers, inside) = match files.layers.is_empty() {
        true => match is_directory {
            true => (vec![from], PathBuf::new()),
            false => {
                let parent = from.parent().unwrap_or(Path::new("/")).to_owned();
                (vec![parent], PathBuf::from(from.file_name().unwrap_or_default()))
            }
        },
        false => (files.layers.clone(), found.path),
    };
    let of = if files.layers.is_empty() { "" } else { files.form.files };
    copy_up(&layers, of, &inside, copy.path()).map_err(failed)?;
    let path = match is_directory {
        true => copy.path().to_owned(),
        false => copy.path().join(inside.file_name().unwrap_or_default()),
    };
    Ok((MountSource::Bind { source: text(&path)?, create: false }, Some(copy)))
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::invalid(format!("{}: no name in UTF-8", path.display())))
}
