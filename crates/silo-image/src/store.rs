//! The store's index: images by ID, references to them, and what is asked of it.
//!
//! `images/<hex>.json` is an image's config, byte for byte; `references.json` maps names to IDs and is written last.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{ChainId, Digest};
use crate::error::{ImageError, Result, io};
use crate::holders::Holders;
use crate::layers::{LayerRecord, Layers, chains};
use crate::lease::{Claims, Leases};
use crate::reference::Reference;
use crate::registry::slots::Slots;
use crate::substitute::{Substituted, effective};

/// An image as it is shown.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its config.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// Names with tags as users write them, sorted.
    pub references: Vec<String>,
    /// Names with digests of manifests that registries have of it.
    pub digests: Vec<String>,
    /// Bytes of all its layers.
    pub size: u64,
    /// When.
    pub created: Option<Timestamp>,
    /// The image that it was committed from, if that is here.
    pub parent: Option<Digest>,
    /// When a name was last given.
    pub last_tagged: Option<Timestamp>,
    /// Uppermost unpacked layer.
    pub upper_dir: PathBuf,
    /// Lower ones, uppermost first.
    pub lower_dirs: Vec<PathBuf>,
}

/// A line of `docker history`.
#[derive(Debug, Clone)]
pub struct HistoryLine {
    /// The image's ID for the newest line, else `<missing>`.
    pub id: String,
    /// When.
    pub created: Option<Timestamp>,
    /// Command.
    pub created_by: String,
    /// Names.
    pub tags: Vec<String>,
    /// Bytes of its layer.
    pub size: u64,
    /// Message.
    pub comment: String,
}

/// What is kept beside a config.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Extra {
    pub(crate) parent: Option<Digest>,
    pub(crate) last_tagged: Option<Timestamp>,
    /// Manifests of it that registries have, the newest last, and indexes that it was chosen from.
    pub(crate) manifests: Vec<KeptManifest>,
    /// Its lowest layers, if another image's are here in their place.
    pub(crate) substituted: Option<Substituted>,
}

/// A manifest or index in the content, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

/// Manifests of an image that are kept.
const MAX_MANIFESTS: usize = 16;

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) raw: Vec<u8>,
    pub(crate) config: ImageConfig,
    /// Those that are here, lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) extra: Extra,
}

impl Held {
    /// Diff IDs of the layers that are here, lowest first.
    pub(crate) fn diffs(&self) -> Vec<Digest> {
        self.layers.iter().map(|l| l.diff.clone()).collect()
    }

    /// The layers that are this image's own or its parents', from its config: without those of a substitute.
    pub(crate) fn own_layers(&self) -> &[LayerRecord] {
        let others = self.extra.substituted.as_ref().map_or(0, |s| s.diffs.len());
        self.layers.get(others..).unwrap_or_default()
    }

    /// Bytes of each layer of its config, lowest first; those of a substitute are told of the lowest.
    fn sizes(&self) -> Vec<u64> {
        let own = self.own_layers();
        let Some(substituted) = &self.extra.substituted else { return own.iter().map(|l| l.size).collect() };
        let here: u64 = self.layers[..self.layers.len() - own.len()].iter().map(|l| l.size).sum();
        let rest = substituted.layers.iter().skip(1).map(|_| 0);
        std::iter::once(here).chain(rest).chain(own.iter().map(|l| l.size)).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) images: HashMap<Digest, Held>,
    /// Whole reference → image.
    pub(crate) references: BTreeMap<String, Digest>,
    /// Images on disk that could not be read; their layers are unknown, so none is collected while there are any.
    pub(crate) unread: usize,
    /// Their names.
    unread_references: BTreeMap<String, Digest>,
}

/// The images of one root directory.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) layers: Layers,
    images: PathBuf,
    references: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) index: Mutex<Index>,
    /// One change of layers at a time, so that collection never meets a layer without its image; what takes longer has a
    /// lease.
    pub(crate) writing: Mutex<()>,
    pub(crate) leases: Leases,
    /// Of builds under way.
    pub(crate) states: Holders<Held>,
    pub(crate) claims: Claims,
    /// One layer at a time: it has all processors.
    pub(crate) compressing: Mutex<()>,
    /// Of all pulls, and of all pushes.
    pub(crate) downloading: Slots,
    pub(crate) uploading: Slots,
}

impl ImageStore {
    /// Opens (or makes) the store below `root`; what a crash left half-done is removed. `keep`: leases taken before
    /// anything is collected.
    pub fn open(root: &Path, keep: impl FnOnce(&Self)) -> Result<Self> {
        let store = Self {
            layers: Layers::open(root)?,
            images: root.join("images"),
            references: root.join("references.json"),
            scratch: root.join("tmp"),
            index: Mutex::default(),
            writing: Mutex::new(()),
            leases: Leases::default(),
            states: Holders::default(),
            claims: Claims::default(),
            compressing: Mutex::new(()),
            downloading: Slots::default(),
            uploading: Slots::default(),
        };
        let _ = std::fs::remove_dir_all(&store.scratch);
        for dir in [&store.images, &store.scratch] {
            std::fs::create_dir_all(dir).map_err(io(format!("making {}", dir.display())))?;
        }
        store.read()?;
        keep(&store);
        // What a crash left of work that came to no image.
        store.collect();
        Ok(store)
    }

    fn read(&self) -> Result<()> {
        let mut index = self.lock();
        let new = self.suspects()?;
        for entry in std::fs::read_dir(&self.images).map_err(io("reading images"))?.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(hex) = name.strip_suffix(".json").filter(|n| !n.contains('.')) else {
                // What a crash left of an image whose config was not there yet, or not any more.
                let of = name.strip_suffix(".extra.json").map(|hex| self.images.join(format!("{hex}.json")));
                if of.is_some_and(|config| !config.exists())
                    || name.starts_with(silo_sys::atomic_file::TEMP_PREFIX)
                {
                    let _ = std::fs::remove_file(&path);
                }
                continue;
            };
            let raw = std::fs::read(&path).map_err(io(format!("reading {}", path.display())))?;
            let id = Digest::of(&raw);
            if id.hex() != hex {
                tracing::error!("{} is not what its name says; it is left alone", path.display());
                index.unread += 1;
                continue;
            }
            match self.held(raw, &id, self.extra(&id)) {
                Ok(held) => {
                    index.images.insert(id, held);
                }
                Err(e) if new.contains(&id) => {
                    tracing::warn!("image {id} was new when the machine stopped; it is removed: {e}");
                    self.forget_files(&id);
                }
                Err(e) => {
                    tracing::error!("image {id}: {e}; it and its layers are left alone");
                    index.unread += 1;
                }
            }
        }
        match std::fs::read(&self.references) {
            Ok(text) => {
                let all: BTreeMap<String, Digest> =
                    serde_json::from_slice(&text).map_err(|e| io("reading references.json")(e.into()))?;
                let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    all.into_iter().partition(|(_, id)| index.images.contains_key(id));
                index.references = known;
                // Of an image that cannot be read now; a name of one that is gone goes.
                index.unread_references =
                    unknown.into_iter().filter(|(_, id)| self.config_path(id).exists()).collect();
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io("reading references.json")(e)),
        }
        Ok(())
    }

    /// Looks at what may not have been on disk when the machine stopped; returns the images.
    fn suspects(&self) -> Result<HashSet<Digest>> {
        let settle = |dir: &Path| self.layers.unsynced.settle(dir).map_err(io("syncing images"));
        let mut suspects = settle(&self.images)?;
        suspects.extend(settle(self.references.parent().unwrap_or(Path::new("/")))?);
        let mut images = HashSet::new();
        for suspect in suspects {
            let text = std::fs::read(&suspect.marked).unwrap_or_default();
            let name = suspect.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = Digest::of(&text);
            let is_config = name == format!("{}.json", id.hex());
            let is_ours = name == "references.json" || name.ends_with(".extra.json");
            if is_config || (is_ours && serde_json::from_slice::<serde_json::Value>(&text).is_ok()) {
                suspect.clear().map_err(io(format!("keeping {name}")))?;
                images.extend(is_config.then_some(id));
            } else {
                tracing::warn!("{name} was new when the machine stopped and is not whole; it is removed");
                suspect.remove();
            }
        }
        Ok(images)
    }

    fn extra(&self, id: &Digest) -> Extra {
        let text = self.layers.unsynced.read(&self.extra_path(id)).ok();
        text.and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
    }

    pub(crate) fn held(&self, raw: Vec<u8>, id: &Digest, extra: Extra) -> Result<Held> {
        let config: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|e| ImageError::Invalid(format!("image config {id} cannot be read: {e}")))?;
        let mut layers = Vec::new();
        let diffs = effective(&config.rootfs.diff_ids, extra.substituted.as_ref())?;
        for (diff, chain) in diffs.iter().zip(chains(&diffs)) {
            let layer = self.layers.get(&chain);
            layers
                .push(layer.ok_or_else(|| ImageError::Invalid(format!("layer {diff} of {id} is missing")))?);
        }
        Ok(Held { raw, config, layers, extra })
    }

    pub(crate) fn config_path(&self, id: &Digest) -> PathBuf {
        self.images.join(format!("{}.json", id.hex()))
    }

    fn extra_path(&self, id: &Digest) -> PathBuf {
        self.images.join(format!("{}.extra.json", id.hex()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an image whose layers are there.
    pub(crate) fn enter(
        &self,
        raw: Vec<u8>,
        parent: Option<Digest>,
        substituted: Option<Substituted>,
    ) -> Result<Digest> {
        let id = Digest::of(&raw);
        let mut index = self.lock();
        if index.images.contains_key(&id) {
            return Ok(id);
        }
        let held = self.held(raw, &id, Extra { parent, substituted, ..self.extra(&id) })?;
        self.write_extra(&id, &held.extra)?;
        // An image is on disk when its layers are.
        let later = self.layers.unsynced.is_pending(&self.extra_path(&id))
            || held.layers.iter().any(|l| !self.layers.is_synced(&l.chain));
        self.layers
            .unsynced
            .write(&self.config_path(&id), &held.raw, later)
            .map_err(io("writing an image's config"))?;
        index.images.insert(id.clone(), held);
        Ok(id)
    }

    fn write_extra(&self, id: &Digest, extra: &Extra) -> Result<()> {
        let text = serde_json::to_vec(extra).map_err(|e| io("image record")(e.into()))?;
        self.write_small(&self.extra_path(id), &text).map_err(io("writing an image's record"))
    }

    pub(crate) fn write_references(&self, index: &Index) -> Result<()> {
        let mut all: BTreeMap<&String, &Digest> = index.unread_references.iter().collect();
        all.extend(&index.references);
        let text = serde_json::to_vec_pretty(&all).map_err(|e| io("references")(e.into()))?;
        self.write_small(&self.references, &text).map_err(io("writing references.json"))
    }

    /// Writes what may speak of images that are not on disk yet.
    fn write_small(&self, path: &Path, text: &[u8]) -> std::io::Result<()> {
        let unsynced = &self.layers.unsynced;
        unsynced.write(path, text, unsynced.any())
    }

    /// Removes layers and content that no image and no running work needs; returns the layers' bytes.
    pub(crate) fn collect(&self) -> u64 {
        self.leases.collecting(|mut chains, mut blobs| {
            let index = self.lock();
            // Of an image that cannot be read nobody knows what it needs.
            if index.unread > 0 {
                return 0;
            }
            for held in index.images.values() {
                chains.extend(held.layers.iter().map(|l| l.chain.clone()));
                blobs.extend(held.extra.manifests.iter().map(|m| m.digest.clone()));
            }
            drop(index);
            self.layers.collect(&chains, &blobs)
        })
    }

    /// Notes that a registry has an image under a digest: `name` without tag, the manifests kept before.
    pub(crate) fn known_as(&self, id: &Digest, name: &Reference, manifests: Vec<KeptManifest>) -> Result<()> {
        let mut index = self.lock();
        let Some(held) = index.images.get_mut(id) else { return Err(ImageError::NotFound(id.to_string())) };
        let kept = &mut held.extra.manifests;
        kept.retain(|k| !manifests.contains(k));
        kept.extend(manifests);
        let old = kept.len().saturating_sub(MAX_MANIFESTS);
        kept.drain(..old);
        self.write_extra(id, &held.extra)?;
        index.references.insert(name.to_string(), id.clone());
        self.write_references(&index)
    }

    /// Gives an image a name; one that another image had moves.
    pub(crate) fn name(&self, id: &Digest, reference: &Reference) -> Result<()> {
        if reference.digest.is_some() {
            return Err(ImageError::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let mut index = self.lock();
        if !index.images.contains_key(id) {
            return Err(ImageError::NotFound(id.to_string()));
        }
        index.references.insert(reference.to_string(), id.clone());
        self.write_references(&index)?;
        if let Some(held) = index.images.get_mut(id) {
            held.extra.last_tagged = Some(Timestamp::now());
            self.write_extra(id, &held.extra)?;
        }
        Ok(())
    }

    pub(crate) fn forget_files(&self, id: &Digest) {
        self.layers.unsynced.remove(&self.config_path(id));
        self.layers.unsynced.remove(&self.extra_path(id));
    }

    /// The ID that a user means by a name, a digest or the beginning of an ID.
    pub(crate) fn resolve(&self, index: &Index, name: &str) -> Result<Digest> {
        let not_found = || ImageError::NotFound(shown(name));
        if let Some(id) = Digest::parse(name).or_else(|| Digest::parse(&format!("sha256:{name}"))) {
            let known = index.images.contains_key(&id) || self.states.get(&id).is_some();
            return if known { Ok(id) } else { Err(not_found()) };
        }
        if let Ok(reference) = Reference::parse(name) {
            if let Some(id) = index.references.get(&reference.to_string()) {
                return Ok(id.clone());
            }
            // The digest says it all.
            if let Some(id) = index.references.get(&reference.canonical()) {
                return Ok(id.clone());
            }
            if let Some(digest) = &reference.digest
                && index.images.contains_key(digest)
            {
                return Ok(digest.clone());
            }
        }
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = index.images.keys().filter(|id| id.hex().starts_with(hex));
            return match (found.next(), found.next()) {
                (Some(id), None) => Ok(id.clone()),
                (Some(_), Some(_)) => Err(ImageError::Ambiguous(name.to_owned())),
                (None, _) => Err(not_found()),
            };
        }
        Reference::parse(name)?;
        Err(not_found())
    }

    fn image(&self, index: &Index, id: &Digest, held: &Held) -> Image {
        let all = index.references.iter().filter(|(_, of)| *of == id);
        let all = all.filter_map(|(name, _)| Reference::parse(name).ok());
        let (digests, references): (Vec<Reference>, Vec<Reference>) = all.partition(|r| r.digest.is_some());
        let familiar = |list: Vec<Reference>| list.iter().map(Reference::familiar).collect();
        let mut dirs: Vec<PathBuf> = held.layers.iter().rev().map(|l| self.layers.dir(&l.chain)).collect();
        let upper_dir = if dirs.is_empty() { PathBuf::new() } else { dirs.remove(0) };
        Image {
            id: id.clone(),
            config: held.config.clone(),
            references: familiar(references),
            digests: familiar(digests),
            size: held.layers.iter().map(|l| l.size).sum(),
            created: held.config.created,
            parent: held.extra.parent.clone().filter(|p| index.images.contains_key(p)),
            last_tagged: held.extra.last_tagged,
            upper_dir,
            lower_dirs: dirs,
        }
    }

    /// An image, or a build's state.
    fn known<'i>(&self, index: &'i Index, id: &Digest) -> Option<Cow<'i, Held>> {
        let state = || self.states.get(id).map(Cow::Owned);
        index.images.get(id).map(Cow::Borrowed).or_else(state)
    }

    /// One image.
    pub fn get(&self, name: &str) -> Result<Image> {
        let index = self.lock();
        let id = self.resolve(&index, name)?;
        let held = self.known(&index, &id).ok_or_else(|| ImageError::NotFound(shown(name)))?;
        Ok(self.image(&index, &id, &held))
    }

    /// All images, newest first.
    pub fn list(&self) -> Vec<Image> {
        let index = self.lock();
        let mut all: Vec<Image> =
            index.images.iter().map(|(id, held)| self.image(&index, id, held)).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// Unpacked layers, uppermost first.
    pub fn chain(&self, name: &str) -> Result<Vec<PathBuf>> {
        let index = self.lock();
        let id = self.resolve(&index, name)?;
        let held = self.known(&index, &id).ok_or_else(|| ImageError::NotFound(shown(name)))?;
        if held.layers.is_empty() {
            return Err(ImageError::Invalid(format!("image {name} has no layers")));
        }
        Ok(held.layers.iter().rev().map(|l| self.layers.dir(&l.chain)).collect())
    }

    /// The chain ID of all layers of an image.
    pub fn chain_id(&self, name: &str) -> Result<ChainId> {
        let index = self.lock();
        let id = self.resolve(&index, name)?;
        let held = self.known(&index, &id);
        held.and_then(|held| held.layers.last().map(|layer| layer.chain.clone()))
            .ok_or_else(|| ImageError::Invalid(format!("image {name} has no layers")))
    }

    /// Whether a chain ID is that of all layers of an image here.
    pub fn has_chain(&self, hex: &str) -> bool {
        let index = self.lock();
        // Of an image that cannot be read nobody knows the layers.
        index.unread > 0
            || self.states.any(|held| held.layers.last().is_some_and(|l| l.chain.hex() == hex))
            || index.images.values().any(|held| held.layers.last().is_some_and(|l| l.chain.hex() == hex))
    }

    /// An image and all that build on its layers.
    pub fn with_descendants(&self, id: &Digest) -> Vec<String> {
        let index = self.lock();
        let Some(base) = index.images.get(id) else { return Vec::new() };
        let base: Vec<&Digest> = base.layers.iter().map(|l| &l.chain).collect();
        index
            .images
            .iter()
            .filter(|(other, held)| {
                *other == id
                    || (held.layers.len() > base.len()
                        && !base.is_empty()
                        && base.iter().zip(&held.layers).all(|(a, b)| **a == b.chain))
            })
            .map(|(id, _)| id.to_string())
            .collect()
    }

    /// Names and moves: `docker tag`.
    pub fn tag(&self, name: &str, reference: &str) -> Result<String> {
        let reference = Reference::parse(reference)?;
        let id = self.resolve(&self.lock(), name)?;
        self.name(&id, &reference)?;
        Ok(id.to_string())
    }

    /// Lines of history, newest first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryLine>> {
        let index = self.lock();
        let id = self.resolve(&index, name)?;
        let held = index.images.get(&id).ok_or_else(|| ImageError::NotFound(shown(name)))?;
        let image = self.image(&index, &id, held);
        let mut sizes = held.sizes().into_iter();
        let mut lines: Vec<HistoryLine> = held
            .config
            .history
            .iter()
            .map(|h| HistoryLine {
                id: "<missing>".to_owned(),
                created: h.created,
                created_by: h.created_by.clone(),
                tags: Vec::new(),
                size: if h.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
                comment: h.comment.clone(),
            })
            .collect();
        if lines.is_empty() {
            lines.extend(sizes.map(|size| HistoryLine {
                id: "<missing>".to_owned(),
                created: held.config.created,
                created_by: String::new(),
                tags: Vec::new(),
                size,
                comment: String::new(),
            }));
        }
        lines.reverse();
        if let Some(first) = lines.first_mut() {
            first.id = id.to_string();
            first.tags = image.references;
        }
        Ok(lines)
    }

    /// Bytes of all layers, each once.
    pub(crate) fn layers_size(&self) -> u64 {
        self.layers.all().iter().map(|l| l.size).sum()
    }

    /// Bytes of an image's layers that other images have too.
    pub fn shared_size(&self, id: &Digest) -> u64 {
        let index = self.lock();
        let Some(held) = index.images.get(id) else { return 0 };
        held.layers
            .iter()
            .filter(|l| {
                index.images.iter().any(|(o, h)| o != id && h.layers.iter().any(|x| x.chain == l.chain))
            })
            .map(|l| l.size)
            .sum()
    }
}

/// A name as dockerd repeats it in "No such image: …".
fn shown(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) => reference.familiar(),
        Err(_) => name.to_owned(),
    }
}
