//! A layer of what a build's step has changed: in a container, or in a directory that the builder has filled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_image::{BuiltLayer, LayerFiles, Reference, State};

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::spec::MountSource;
use crate::{image, placement};

/// The files of a layer to be.
#[derive(Debug, Clone)]
struct Top {
    path: PathBuf,
    /// The user whose registry is in it.
    user: String,
    /// Where the engine has mounted.
    mounts: Vec<PathBuf>,
    /// Nobody needs it any more.
    taken: bool,
}

impl Engine {
    /// Makes a layer of a stopped container's changes; `None`: there are none. `taken`: the container is to be removed, and
    /// its files may become the layer's.
    pub async fn layer_of_container(&self, name: &str, taken: bool) -> Result<Option<BuiltLayer>> {
        let (engine, entry) = (self.clone(), self.find(name)?);
        // A task of its own: who waits may go, and a removal must still wait for the files to be read.
        let made = tokio::spawn(async move { engine.layer_of_entry(&entry, taken).await });
        made.await.map_err(|e| EngineError::internal(format!("a task panicked: {e}")))?
    }

    async fn layer_of_entry(&self, entry: &Arc<Entry>, taken: bool) -> Result<Option<BuiltLayer>> {
        let _verb = entry.verb.lock().await;
        let record = entry.record();
        if record.state.status.is_running() {
            return Err(EngineError::conflict(format!("container {} is running", entry.id)));
        }
        let top = self.writable(entry).await?;
        let engine = self.clone();
        blocking(move || {
            let guest = placement::guest(record.os)?;
            let visible = guest.changes().1;
            let targets = record.spec.mounts.iter().filter_map(|m| guest.path_in_root(&m.target, "").ok());
            let mounts = targets.filter_map(|t| Some(Path::new("/").join(t.0.strip_prefix(visible).ok()?)));
            let own = guest.own_mount_points().iter().map(PathBuf::from);
            let top_of = Top {
                path: top.path().to_owned(),
                user: record.spec.config.user.clone(),
                mounts: own.chain(mounts).collect(),
                // A copy is nobody else's.
                taken: (taken && !top.is_elsewhere()) || top.stands_in().is_some(),
            };
            engine.make_layer(&record.image_id, &top_of)
        })
        .await
    }

    /// Makes a layer over an image or state of what is in `top`, a container's writable directory that no container has
    /// ([`silo_guest::BundleRequest::top`]); its files become the layer's.
    pub async fn layer_of_directory(&self, image: &str, top: &Path) -> Result<Option<BuiltLayer>> {
        let (engine, image) = (self.clone(), image.to_owned());
        let top = Top { path: top.to_owned(), user: String::new(), mounts: Vec::new(), taken: true };
        blocking(move || engine.make_layer(&image, &top)).await
    }

    /// Makes one layer of those that `image` has above those of `base`; `None`: there is nothing in them.
    pub async fn squashed_layer(&self, base: &State, image: &State) -> Result<Option<BuiltLayer>> {
        let (engine, above) = (self.clone(), image.diffs.len().saturating_sub(base.diffs.len()));
        let (below, base, image) = (base.diffs.clone(), base.config.clone(), image.id.to_string());
        blocking(move || {
            let os = silo_guest::Os::parse(&base.os);
            let guest = os.map(placement::guest).transpose()?;
            let guest = guest.filter(|guest| guest.changes_are_layer()).ok_or_else(|| {
                EngineError::invalid(format!("--squash is not supported for {} images", base.os))
            })?;
            let layers = engine.inner.images.get(&image).map_err(image::error)?;
            let layers: Vec<PathBuf> =
                [layers.upper_dir].into_iter().chain(layers.lower_dirs).take(above).collect();
            let scratch = engine.scratch();
            let made = tempfile::Builder::new().prefix("squash-").tempdir_in(&scratch);
            let failed = |e: std::io::Error| EngineError::internal(format!("squashing layers: {e}"));
            let top = made.map_err(failed)?;
            let upper = top.path().join(guest.changes().0);
            std::fs::create_dir(&upper).map_err(failed)?;
            silo_image::layer::squash(&layers, &upper).map_err(failed)?;
            let changes = silo_guest::Changes { layers: &[], top: Some(top.path()), user: "", time: (0, 0) };
            let write = |to: &mut dyn std::io::Write| {
                guest.capture(&changes, to).map_err(|e| std::io::Error::other(e.to_string()))
            };
            let images = &engine.inner.images;
            images.build_layer(&base.os, &below, LayerFiles::Taken(&upper), write).map_err(image::error)
        })
        .await
    }

    /// Makes a build's last state an image under names; returns its ID. `base`: what it was built on.
    pub async fn enter_built(&self, state: &State, base: &State, names: &[Reference]) -> Result<String> {
        let id = self.inner.images.enter_state(state, Some(base.id.clone()), names).map_err(image::error)?;
        for name in names {
            self.tell_image("tag", id.as_str(), &name.familiar());
        }
        Ok(id.to_string())
    }

    /// A build leaves a container to the user, and what it was made of as an image. `own`: directories of its mounts that go
    /// with it; its other files of the build (the context, caches, secrets) it has no more.
    pub fn hand_over(&self, name: &str, own: &[PathBuf]) -> Result<()> {
        let entry = self.find(name)?;
        let state = self.inner.images.state(&entry.with(|r| r.image_id.clone())).map_err(image::error)?;
        self.inner.images.enter_state(&state, None, &[]).map_err(image::error)?;
        let dir = self.dir(&entry.id);
        let mut moved: Vec<(&PathBuf, PathBuf)> = Vec::new();
        for (number, from) in own.iter().enumerate() {
            let to = dir.join(format!("mount-{number}"));
            std::fs::rename(from, &to)
                .map_err(|e| EngineError::internal(format!("moving {}: {e}", from.display())))?;
            moved.push((from, to));
        }
        // It is written again at the next start, without secrets.
        if !entry.with(|r| r.spec.hidden_env.0.is_empty()) {
            let bundle = dir.join("config.json");
            std::fs::remove_file(&bundle)
                .map_err(|e| EngineError::internal(format!("removing {}: {e}", bundle.display())))?;
        }
        self.change(&entry, |r| {
            r.spec.of_build = false;
            r.spec.hidden_env = Default::default();
            r.spec.mounts.retain_mut(|mount| {
                let MountSource::Bind { source, .. } = &mut mount.kind else { return true };
                let found = moved.iter().find_map(|(from, to)| {
                    Some(to.join(Path::new(source.as_str()).strip_prefix(from).ok()?))
                });
                let found = found.and_then(|path| path.into_os_string().into_string().ok());
                found.map(|path| *source = path).is_some()
            });
        })
    }

    fn make_layer(&self, image: &str, top: &Top) -> Result<Option<BuiltLayer>> {
        let images = &self.inner.images;
        // Held, and with the layers that are here of it.
        let state = images.state(image).map_err(image::error)?;
        let image = images.get(image).map_err(image::error)?;
        let os = silo_guest::Os::parse(&image.config.os)
            .ok_or_else(|| EngineError::invalid(format!("unknown operating system {:?}", image.config.os)))?;
        let guest = placement::guest(os)?;
        let below = &state.diffs;
        let mut layers = image.lower_dirs;
        if !below.is_empty() {
            layers.insert(0, image.upper_dir);
        }
        let upper = top.path.join(guest.changes().0);
        let lower: Vec<PathBuf> = layers.iter().map(|layer| layer.join(guest.layer_files())).collect();
        silo_image::layer::strip_mount_points(&upper, &lower, top.mounts.iter().map(PathBuf::as_path))
            .map_err(|e| EngineError::internal(format!("what the engine has mounted: {e}")))?;
        let now = jiff::Timestamp::now();
        let changes = silo_guest::Changes {
            layers: &layers,
            top: Some(&top.path),
            user: &top.user,
            time: (now.as_second(), i64::from(now.subsec_nanosecond())),
        };
        let files = if top.taken && guest.changes_are_layer() && upper.is_dir() {
            LayerFiles::Taken(&upper)
        } else {
            LayerFiles::Packed
        };
        image::captured(guest, &changes, |write| images.build_layer(&image.config.os, below, files, write))
    }
}
