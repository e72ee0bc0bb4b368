//! `rmi`: dockerd's rules of what is untagged, what is deleted, and what is refused.

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

/// All that a removal did.
#[derive(Debug, Default)]
pub struct Removal {
    /// Step by step.
    pub steps: Vec<Removed>,
    /// Bytes of layers that are gone.
    pub freed: u64,
}

/// At most one tag, and all names of one repository: they go with the image.
fn is_single(names: &[Reference]) -> bool {
    names.iter().filter(|n| n.digest.is_none()).count() <= 1
        && names.windows(2).all(|two| two[0].repository() == two[1].repository())
}

impl ImageStore {
    /// Removes by name or ID. `users` tells the containers of an image: (ID, runs).
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        noprune: bool,
        users: &dyn Fn(&str) -> Vec<(String, bool)>,
    ) -> Result<Removal> {
        let _writing = self.writing.lock();
        let (id, names) = {
            let index = self.lock();
            let id = self.resolve(&index, name)?;
            let names = index.references.iter().filter(|(_, of)| **of == id);
            let names: Vec<Reference> = names.filter_map(|(n, _)| Reference::parse(n).ok()).collect();
            (id, names)
        };
        let given = Reference::parse(name).ok().map(|r| r.canonical());
        let given = names.iter().find(|n| Some(n.to_string()) == given);
        let short = &id.hex()[..12];
        let containers = users(id.as_str());
        let mut removal = Removal::default();
        let removed = &mut removal.steps;
        match given {
            None => {
                if !is_single(&names) && !force {
                    return Err(ImageError::Conflict(format!(
                        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
                    )));
                }
                self.refuse_used(short, &containers, force)?;
                self.take_names(&names, removed)?;
            }
            Some(given) => {
                let used = containers.first().filter(|_| is_single(&names));
                if let Some((container, _)) = used.filter(|_| !force) {
                    return Err(ImageError::Conflict(format!(
                        "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its referenced image {short}",
                        &container[..container.len().min(12)]
                    )));
                }
                // With the last tag of a repository its digests go.
                let others = names.iter().filter(|n| *n != given && n.repository() == given.repository());
                let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
                    others.partition(|n| n.digest.is_some());
                let mut gone = vec![given.clone()];
                if given.digest.is_none() && tags.is_empty() {
                    gone.extend(digests.into_iter().cloned());
                }
                self.take_names(&gone, removed)?;
                // As dockerd: forced, the name goes and the image stays with its containers.
                if gone.len() < names.len() || used.is_some() {
                    return Ok(removal);
                }
            }
        }
        if !containers.is_empty() {
            return Ok(removal);
        }
        removal.freed = self.delete(&id, noprune, users, removed);
        Ok(removal)
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

    fn take_names(&self, names: &[Reference], removed: &mut Vec<Removed>) -> Result<()> {
        let mut index = self.lock();
        for name in names {
            if index.references.remove(&name.to_string()).is_some() {
                removed.push(Removed::Untagged(name.familiar()));
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
    ) -> u64 {
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
        self.collect()
    }
}
