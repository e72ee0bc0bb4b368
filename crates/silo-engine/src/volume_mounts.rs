//! The mounts of volumes that are one (`docker volume create -o device=…`): made for the first who uses it, gone with the
//! last. They are in the daemon's mount namespace, as dockerd's are; `docs/volumes.md` says why.
//!
//! Who uses one is not written down: after a crash it follows from the containers that run ([`Engine::sweep_volumes`]).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use silo_sandbox::mount_words;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::lock::lock;
use crate::record::{ContainerRecord, VolumeRecord};
use crate::spec::MountSource;
use crate::volume_options;

/// Who uses a volume: containers, and requests for the moment.
type Users = Arc<Mutex<BTreeSet<String>>>;

/// Who uses which volume.
#[derive(Debug, Default)]
pub(crate) struct VolumeMounts(Mutex<HashMap<String, Users>>);

/// Whether something is mounted at a volume's place.
fn is_mounted(at: &Path) -> Result<bool> {
    let inside = at.parent().map_or(Ok(Vec::new()), mount_words::mounted_below);
    let failed = |e| EngineError::internal(format!("looking for mounts at {}: {e}", at.display()));
    Ok(inside.map_err(failed)?.iter().any(|found| found == at))
}

fn unmount(volume: &VolumeRecord) {
    let dir = Path::new(&volume.mountpoint);
    if let Err(e) = mount_words::detach_below(dir.parent().unwrap_or(dir)) {
        tracing::warn!("error unmounting volume {}: {e}", volume.name);
    }
}

impl VolumeMounts {
    fn of(&self, name: &str) -> Users {
        lock(&self.0).entry(name.to_owned()).or_default().clone()
    }

    /// Makes the mount unless it is there. One volume at a time: a server that does not answer holds up its own users only.
    fn hold(&self, volume: &VolumeRecord, user: &str) -> Result<()> {
        let users = self.of(&volume.name);
        let mut users = lock(&users);
        let at = Path::new(&volume.mountpoint);
        if !is_mounted(at)? {
            volume_options::mount(&volume.options, at).map_err(|why| {
                EngineError::internal(format!("error while mounting volume '{}': {why}", volume.mountpoint))
            })?;
        }
        users.insert(user.to_owned());
        Ok(())
    }

    fn release(&self, volume: &VolumeRecord, user: &str) {
        let users = self.of(&volume.name);
        let mut users = lock(&users);
        if users.remove(user) && users.is_empty() {
            unmount(volume);
        }
    }

    /// Takes away what is mounted for nobody.
    fn sweep(&self, volume: &VolumeRecord) {
        let users = self.of(&volume.name);
        let users = lock(&users);
        if users.is_empty() {
            unmount(volume);
        }
    }

    /// Of a volume that goes. It has no user: a container that has it, or a request that looks at its files, keeps it.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        let known = lock(&self.0).get(name).cloned();
        if let Some(users) = known.map(|users| lock(&users).iter().cloned().collect::<Vec<_>>())
            && !users.is_empty()
        {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        lock(&self.0).remove(name);
        Ok(())
    }
}

/// Mounts that are used for as long as this is there.
pub(crate) struct HeldVolumes {
    engine: Engine,
    record: ContainerRecord,
    user: String,
}

impl Drop for HeldVolumes {
    fn drop(&mut self) {
        self.engine.release_volumes_by(&self.record, &self.user);
    }
}

impl Engine {
    /// A container's volumes that are mounts.
    fn mounted_volumes<'r>(&'r self, record: &'r ContainerRecord) -> impl Iterator<Item = VolumeRecord> + 'r {
        record.spec.mounts.iter().filter_map(|mount| {
            let MountSource::Volume { name, .. } = &mount.kind else { return None };
            self.inner.volumes.get(name).filter(|volume| volume_options::is_mount(&volume.options))
        })
    }

    fn hold_volumes_by(&self, record: &ContainerRecord, user: &str) -> Result<()> {
        let mounts = &self.inner.volume_mounts;
        let held = self.mounted_volumes(record).try_for_each(|volume| mounts.hold(&volume, user));
        held.inspect_err(|_| self.release_volumes_by(record, user))
    }

    fn release_volumes_by(&self, record: &ContainerRecord, user: &str) {
        self.mounted_volumes(record).for_each(|volume| self.inner.volume_mounts.release(&volume, user));
    }

    /// Makes the mounts that a container is to have while it runs. Blocking.
    pub(crate) fn hold_volumes(&self, record: &ContainerRecord) -> Result<()> {
        self.hold_volumes_by(record, &record.id.0)
    }

    /// A container does not run any more, or does not come to run.
    pub(crate) fn release_volumes(&self, record: &ContainerRecord) {
        self.release_volumes_by(record, &record.id.0);
    }

    /// Makes a container's mounts for the moment, for who looks at its files. Blocking.
    pub(crate) fn volumes_for_now(&self, record: &ContainerRecord) -> Result<HeldVolumes> {
        let user = random_id();
        self.hold_volumes_by(record, &user)?;
        Ok(HeldVolumes { engine: self.clone(), record: record.clone(), user })
    }

    /// A container that runs has been found: what it has is there already.
    pub(crate) fn adopt_volumes(&self, record: &ContainerRecord) {
        for volume in self.mounted_volumes(record) {
            lock(&self.inner.volume_mounts.of(&volume.name)).insert(record.id.0.clone());
        }
    }

    /// Takes away the mounts that a crash has left: those that no running container has.
    pub(crate) fn sweep_volumes(&self) {
        for entry in self.entries() {
            if entry.status().is_running() {
                self.adopt_volumes(&entry.record());
            }
        }
        for volume in self.inner.volumes.all() {
            if volume_options::is_mount(&volume.options) {
                self.inner.volume_mounts.sweep(&volume);
            }
        }
    }

    /// A file that leads to this daemon's mount namespace, where volumes are mounted: the one that lasts while daemons
    /// come and go.
    pub(crate) fn mounts_file(&self) -> PathBuf {
        self.config().run.join("mounts")
    }

    /// Makes that file.
    pub(crate) fn tell_mounts(&self) -> Result<()> {
        let (file, new) = (self.mounts_file(), self.config().run.join("mounts.new"));
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(format!("/proc/{}/ns/mnt", std::process::id()), &new)
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(|e| EngineError::internal(format!("making {}: {e}", file.display())))
    }
}
