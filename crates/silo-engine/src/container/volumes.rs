//! The mounts of a container's volumes: had while it runs, or while somebody looks at its files.

use std::path::PathBuf;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids::random_id;
use crate::record::{ContainerRecord, VolumeRecord};
use crate::spec::MountSource;
use crate::volume_options;

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
            self.inner.volume_mounts.adopt(&volume, &record.id.0);
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
