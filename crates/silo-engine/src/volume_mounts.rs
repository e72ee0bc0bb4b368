//! The mounts of volumes that are one (`docker volume create -o device=…`): made for the first who uses it, gone with the
//! last. They are in the daemon's mount namespace, as dockerd's are; `docs/volumes.md` says why.
//!
//! Who uses one is not written down: after a crash it follows from the containers that run (`container/volumes.rs`).

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use silo_sandbox::mount_words;

use crate::error::{EngineError, Result};
use crate::lock::lock;
use crate::record::VolumeRecord;
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
    pub(crate) fn hold(&self, volume: &VolumeRecord, user: &str) -> Result<()> {
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

    pub(crate) fn release(&self, volume: &VolumeRecord, user: &str) {
        let users = self.of(&volume.name);
        let mut users = lock(&users);
        if users.remove(user) && users.is_empty() {
            unmount(volume);
        }
    }

    /// A user that was there before this daemon: what it has is mounted already.
    pub(crate) fn adopt(&self, volume: &VolumeRecord, user: &str) {
        lock(&self.of(&volume.name)).insert(user.to_owned());
    }

    /// Takes away what is mounted for nobody.
    pub(crate) fn sweep(&self, volume: &VolumeRecord) {
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
