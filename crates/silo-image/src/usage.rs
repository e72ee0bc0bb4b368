//! What images take on disk: their layers unpacked, what is kept of these as archives, and manifests.

use std::collections::{HashMap, HashSet};

use crate::digest::Digest;
use crate::store::{Held, ImageStore};

/// Bytes on disk of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// All.
    pub size: u64,
    /// Of that, what other images have too.
    pub shared: u64,
}

/// Bytes on disk of all images.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Each byte once; what belongs to no image too.
    pub total: u64,
    /// By ID.
    pub images: HashMap<Digest, ImageUsage>,
}

/// The parts of an image: layers by chain, their archives by diff ID, manifests.
fn parts(held: &Held) -> HashSet<(&'static str, &Digest)> {
    let layers = held.layers.iter().flat_map(|l| [("layer", &l.chain), ("archive", &l.diff)]);
    layers.chain(held.extra.manifests.iter().map(|m| ("manifest", &m.digest))).collect()
}

impl ImageStore {
    /// What everything takes.
    pub fn usage(&self) -> Usage {
        let content = &self.layers.content;
        let index = self.lock();
        let mut users: HashMap<(&str, &Digest), usize> = HashMap::new();
        let mut sizes: HashMap<(&str, &Digest), u64> = HashMap::new();
        for held in index.images.values() {
            for layer in &held.layers {
                sizes.insert(("layer", &layer.chain), layer.size);
            }
            for part in parts(held) {
                *users.entry(part).or_default() += 1;
                if part.0 != "layer" {
                    sizes.entry(part).or_insert_with(|| match part.0 {
                        "archive" => content.kept_of(part.1),
                        _ => content.size(part.1).unwrap_or(0),
                    });
                }
            }
        }
        let of = |held: &Held| {
            let mut usage = ImageUsage::default();
            for part in parts(held) {
                let size = sizes.get(&part).copied().unwrap_or(0);
                usage.size += size;
                usage.shared += if users.get(&part).is_some_and(|n| *n > 1) { size } else { 0 };
            }
            usage
        };
        let images = index.images.iter().map(|(id, held)| (id.clone(), of(held))).collect();
        Usage { total: self.layers_size() + content.bytes(), images }
    }
}
