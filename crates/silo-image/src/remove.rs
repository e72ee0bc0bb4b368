//! `rmi`: dockerd's rules of what is untagged, what is deleted, and what is refused.

use std::collections::HashSet;

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::reference::Reference;
use crate::store::ImageStore;

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away.
    Untagged(String),
    /// An image was deleted (its ID).
    Deleted(String),
}

impl ImageStore {
    /// Removes by name or ID. `users` tells the containers of an image: (ID, runs).
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        noprune: bool,
        users: &dyn Fn(&str) -> Vec<(String, bool)>,
    ) -> Result<Vec<Removed>> {
        let _writing = self.writing.lock();
        let (id, names, by_id) = {
            let index = self.lock();
            let id = self.resolve(&index, name)?;
            let names: Vec<String> =
                index.references.iter().filter(|(_, of)| **of == id).map(|(n, _)| n.clone()).collect();
            let given = Reference::parse(name).ok().map(|r| r.to_string());
            let by_id = !given.is_some_and(|g| names.contains(&g));
            (id, names, by_id)
        };
        let short = &id.hex()[..12];
        let containers = users(id.as_str());
        let mut removed = Vec::new();
        if by_id {
            let repositories: HashSet<String> =
                names.iter().filter_map(|n| Some(Reference::parse(n).ok()?.familiar_name())).collect();
            if repositories.len() > 1 && !force {
                return Err(ImageError::Conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
                )));
            }
            self.refuse_used(short, &containers, force)?;
            self.take_names(&names, &mut removed)?;
        } else {
            let reference = Reference::parse(name)?;
            if names.len() == 1
                && let Some((container, running)) = containers.first()
            {
                if !force {
                    return Err(ImageError::Conflict(format!(
                        "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its referenced image {short}",
                        &container[..container.len().min(12)]
                    )));
                }
                // As dockerd: forced, the name goes and the image stays with its containers.
                let _ = running;
                self.take_names(&[reference.to_string()], &mut removed)?;
                return Ok(removed);
            }
            self.take_names(&[reference.to_string()], &mut removed)?;
            if names.len() > 1 {
                return Ok(removed);
            }
        }
        if !containers.is_empty() {
            return Ok(removed);
        }
        self.delete(&id, noprune, users, &mut removed);
        Ok(removed)
    }

    fn refuse_used(&self, short: &str, containers: &[(String, bool)], force: bool) -> Result<()> {
        let running = containers.iter().find(|(_, running)| *running);
        if let Some((container, _)) = running {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {}",
                &container[..container.len().min(12)]
            )));
        }
        if let Some((container, _)) = containers.first().filter(|_| !force) {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {}",
                &container[..container.len().min(12)]
            )));
        }
        Ok(())
    }

    fn take_names(&self, names: &[String], removed: &mut Vec<Removed>) -> Result<()> {
        let mut index = self.lock();
        for name in names {
            if index.references.remove(name).is_some()
                && let Ok(reference) = Reference::parse(name)
            {
                removed.push(Removed::Untagged(reference.familiar()));
            }
        }
        self.write_references(&index)
    }

    /// Deletes an image without names or containers, then its parents that have none either, then unused layers.
    fn delete(
        &self,
        id: &Digest,
        noprune: bool,
        users: &dyn Fn(&str) -> Vec<(String, bool)>,
        removed: &mut Vec<Removed>,
    ) {
        let mut next = Some(id.clone());
        while let Some(id) = next.take() {
            let mut index = self.lock();
            let has_children = index.images.values().any(|h| h.extra.parent.as_ref() == Some(&id));
            if removed.iter().any(|r| matches!(r, Removed::Deleted(_))) && has_children {
                break;
            }
            let Some(held) = index.images.remove(&id) else { break };
            self.forget_files(&id);
            removed.push(Removed::Deleted(id.to_string()));
            if let Some(parent) = held.extra.parent.filter(|_| !noprune) {
                let named = index.references.values().any(|of| *of == parent);
                if index.images.contains_key(&parent) && !named && users(parent.as_str()).is_empty() {
                    next = Some(parent);
                }
            }
        }
        if self.lock().unread > 0 {
            return;
        }
        let used: HashSet<Digest> =
            self.lock().images.values().flat_map(|h| h.layers.iter().map(|l| l.chain.clone())).collect();
        self.layers.collect(&used);
    }
}
