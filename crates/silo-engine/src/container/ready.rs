//! What of a container can be brought up before anybody asks for it: the guest's ready state on an image's layers.

use std::path::{Path, PathBuf};

use silo_guest::{BundleRequest, Limits, Namespaces, ProcessConfig, Security};
use silo_sandbox::{Isolation, ReadyState};

use crate::engine::Engine;
use crate::error::{EngineError, Result, guest_error};
use crate::lock::lock;
use crate::record::{ContainerId, ContainerRecord};
use crate::spares::{Ready, remove};
use crate::{bundle, image, placement};

use super::start::SUPERVISORS_NETWORK;

/// Where the bundles for machines are, below the root.
const READY: &str = "ready";
/// The chain that one is of, in its directory.
const CHAIN: &str = "chain";
/// The digest of one, in its directory.
const DIGEST: &str = "digest";
/// Host ids in them, which no machine sees.
const RANGE: u32 = 1 << 16;
/// One at a time writes one.
static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Processor time beside that of containers, which have 1024.
const BEHIND: u64 = 100;

impl Engine {
    /// What is to be brought up for containers like this one, if its guest has something.
    pub(super) fn ready_of(&self, record: &ContainerRecord) -> Result<Option<Ready>> {
        let (spec, user) = (&record.spec, &record.spec.config.user);
        let targets: Vec<&str> = spec.mounts.iter().map(|mount| &*mount.target).collect();
        let state = placement::guest(record.os)?.ready_state(user, &spec.limits, &targets);
        let Some(state) = state else { return Ok(None) };
        let chain = self.inner.images.chain_id(&record.image_id).map_err(image::error)?;
        Ok(Some(Ready {
            os: record.os,
            image: record.image_id.clone(),
            user: user.clone(),
            key: format!("{state} {}", chain.as_str()),
        }))
    }

    /// What a machine of this container's own is to have brought up, if that has written nothing yet; the bundle for it is
    /// written if it is not there.
    pub(super) fn ready_machine(&self, record: &ContainerRecord) -> Result<Option<ReadyState>> {
        let own = placement::facts(record.isolation).kernel == placement::Kernel::Own;
        // A template's scratch has the usual size.
        if !own || record.spec.storage_size != 0 {
            return Ok(None);
        }
        let Some(ready) = self.ready_of(record)? else { return Ok(None) };
        let name: String =
            ready.key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let dir = self.inner.config.root.join(READY).join(&name);
        let reading =
            |path: &Path, e: String| EngineError::internal(format!("reading {}: {e}", path.display()));
        // The last file that is written.
        let known = dir.join(DIGEST);
        let digest = match std::fs::read_to_string(&known) {
            Ok(digest) => digest,
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(reading(&known, e.to_string())),
            Err(_) => {
                let _one = lock(&WRITING);
                std::fs::create_dir_all(&dir)
                    .map_err(|e| EngineError::internal(format!("making {}: {e}", dir.display())))?;
                self.write_ready_bundle(&name, &dir, RANGE, record.isolation, &ready)?;
                // Everything that is brought up by it: what this version writes, another may write otherwise.
                let mut written = String::new();
                for file in [bundle::CONFIG, "rootfs.json"] {
                    let path = dir.join(file);
                    let text = std::fs::read(&path).map_err(|e| reading(&path, e.to_string()))?;
                    // Names in an order that is always the same.
                    let value: serde_json::Value =
                        serde_json::from_slice(&text).map_err(|e| reading(&path, e.to_string()))?;
                    written += &value.to_string();
                }
                let digest = silo_image::Digest::of(written.as_bytes()).to_string();
                let chain = self.inner.images.chain_id(&ready.image).map_err(image::error)?;
                bundle::write(&dir, CHAIN, chain.hex().as_bytes(), 0o600)?;
                bundle::write(&dir, DIGEST, digest.as_bytes(), 0o600)?;
                digest
            }
        };
        Ok(Some(ReadyState { key: format!("{} {digest}", ready.key), of: ready.key, bundle: dir }))
    }

    /// Forgets the bundles that were written for machines, but of chains that are kept.
    pub(crate) fn sweep_ready(&self, keep: &dyn Fn(&str) -> bool) {
        let _one = lock(&WRITING);
        let entries = std::fs::read_dir(self.inner.config.root.join(READY)).into_iter().flatten().flatten();
        for entry in entries {
            let chain = std::fs::read_to_string(entry.path().join(CHAIN)).unwrap_or_default();
            if !keep(&chain) {
                remove(&entry.path());
            }
        }
    }

    /// Writes the bundle that brings it up, for a sandbox `id`, into its directory `dir`.
    pub(super) fn write_ready_bundle(
        &self,
        id: &str,
        dir: &Path,
        id_range: u32,
        isolation: Isolation,
        ready: &Ready,
    ) -> Result<()> {
        let layers: Vec<PathBuf> = self.inner.images.chain(&ready.image).map_err(image::error)?;
        let chain = self.inner.images.chain_id(&ready.image).map_err(image::error)?;
        let process = ProcessConfig { user: ready.user.clone(), ..Default::default() };
        let namespaces = Namespaces { network: Some(SUPERVISORS_NETWORK.into()), ..Default::default() };
        let request = BundleRequest {
            container_id: id,
            process: &process,
            init: false,
            hostname: "",
            domainname: "",
            layers: &layers,
            chain: chain.as_str(),
            top: &dir.join("top"),
            dir,
            cache: &self.inner.config.root,
            mounts: &[],
            limits: &Limits { cpu_shares: BEHIND, ..Default::default() },
            security: &Security::default(),
            namespaces: &namespaces,
            cgroup: &self.cgroup(&ContainerId(id.to_owned())),
            id_range,
            identity: placement::facts(isolation).identity,
            annotations: &Default::default(),
            discarded: false,
        };
        let made = placement::guest(ready.os)?.warm_up(&request).map_err(guest_error)?;
        bundle::write_config(dir, &made.spec)?;
        let rootfs = serde_json::to_vec(&made.rootfs)
            .map_err(|e| EngineError::internal(format!("writing the bundle: {e}")))?;
        bundle::write(dir, "rootfs.json", &rootfs, 0o600)
    }
}
