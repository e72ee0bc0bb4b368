//! What a build makes on its way to an image: states, which are configs over layers that nobody lists, and layers.
//!
//! A state is found by its ID alone, as long as somebody holds it; so are its layers. In the end one is [entered](ImageStore::enter_state).

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::{ContainerConfig, HistoryEntry, ImageConfig};
use crate::digest::{ChainId, Digest};
use crate::error::Result;
use crate::holders::Holders;
use crate::layers::{Keep, LayerRecord, chains};
use crate::lease::Lease;
use crate::make::{encode, read_written};
use crate::reference::Reference;
use crate::store::{Extra, Held, ImageStore};
use crate::substitute::{Substituted, effective};

/// A layer that is here and belongs to no image yet; it stays as long as this is held.
#[derive(Debug)]
pub struct BuiltLayer {
    /// Digest of its plain tar.
    pub diff: Digest,
    /// What it makes of the layers below.
    pub chain: ChainId,
    /// Bytes of its files.
    pub size: u64,
    /// What keeps it.
    pub lease: Lease,
}

/// Where the files of a new layer are, beside its archive.
#[derive(Debug, Clone, Copy)]
pub enum LayerFiles<'a> {
    /// Nowhere: the archive is unpacked.
    Packed,
    /// In a directory, as they are in an unpacked layer: it is taken.
    Taken(&'a Path),
}

/// What a step makes of a state.
#[derive(Debug, Clone)]
pub struct NextState {
    /// Defaults for containers.
    pub config: ContainerConfig,
    /// Its line of history; the time is the state's too.
    pub entry: HistoryEntry,
    /// Diff ID of the layer that it adds.
    pub layer: Option<Digest>,
    /// Author from now on (`MAINTAINER`).
    pub author: Option<String>,
}

/// A state; while it is held it can be run by its ID.
#[derive(Debug)]
pub struct State {
    /// The ID of the image that it would be.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// Diff IDs of its layers here, lowest first: those of the config, unless a base's take the place of some.
    pub diffs: Vec<Digest>,
    raw: Vec<u8>,
    substituted: Option<Substituted>,
    states: Holders<Held>,
    _lease: Lease,
}

impl Drop for State {
    fn drop(&mut self) {
        self.states.release(&self.id);
    }
}

impl State {
    /// Chain ID of its layers; `None`: it has none.
    pub fn chain(&self) -> Option<ChainId> {
        chains(&self.diffs).pop()
    }
}

/// The JSON of a config, always the same for the same.
fn write_config(config: &ImageConfig) -> Result<Vec<u8>> {
    let history: Vec<Value> = config.history.iter().map(|h| json!(h)).collect();
    let mut value = json!({
        "architecture": config.architecture, "os": config.os,
        "created": config.created.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        "config": config.config.to_json(),
        "rootfs": {"type": "layers", "diff_ids": config.rootfs.diff_ids},
        "history": history,
    });
    for (name, text) in [
        ("author", &config.author),
        ("comment", &config.comment),
        ("os.version", &config.os_version),
        ("variant", &config.variant),
    ] {
        if !text.is_empty() {
            value[name] = text.clone().into();
        }
    }
    encode(&value)
}

/// Knows whether more than end marks was written.
struct Looked<W> {
    to: W,
    has_entries: bool,
}

impl<W: Write> Write for Looked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.has_entries = self.has_entries || bytes[..n].iter().any(|b| *b != 0);
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

impl ImageStore {
    /// Holds the state that an image is.
    pub fn state(&self, name: &str) -> Result<State> {
        let held = {
            let index = self.lock();
            let id = self.resolve(&index, name)?;
            let held = index.images.get(&id).cloned().or_else(|| self.states.get(&id));
            held.ok_or_else(|| crate::ImageError::NotFound(name.to_owned()))?
        };
        self.hold(held.raw, held.extra.substituted)
    }

    /// Holds a state without layers (`FROM scratch`).
    pub fn empty_state(&self, os: &str, architecture: &str, variant: &str) -> Result<State> {
        self.hold(
            write_config(&ImageConfig {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.to_owned(),
                ..Default::default()
            })?,
            None,
        )
    }

    /// Holds what a step makes of a state. An error if its layers are not here (any more).
    pub fn next_state(&self, before: &State, next: NextState) -> Result<State> {
        let mut config = before.config.clone();
        config.created = next.entry.created;
        config.comment.clone_from(&next.entry.comment);
        config.config = next.config;
        config.author = next.author.unwrap_or(config.author);
        config.history.push(HistoryEntry { empty_layer: next.layer.is_none(), ..next.entry });
        config.rootfs.diff_ids.extend(next.layer);
        self.hold(write_config(&config)?, before.substituted.clone())
    }

    /// Holds a state with the files of another (`after`) as one layer more than `before` has.
    pub fn squashed_state(&self, before: &State, after: &State, next: NextState) -> Result<State> {
        let mut config = after.config.clone();
        config.created = next.entry.created;
        config.rootfs.diff_ids.clone_from(&before.config.rootfs.diff_ids);
        config.rootfs.diff_ids.extend(next.layer);
        for line in config.history.iter_mut().skip(before.config.history.len()) {
            line.empty_layer = true;
        }
        config.history.push(next.entry);
        self.hold(write_config(&config)?, before.substituted.clone())
    }

    fn hold(&self, raw: Vec<u8>, substituted: Option<Substituted>) -> Result<State> {
        let id = Digest::of(&raw);
        let config: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|e| crate::ImageError::Invalid(format!("image config {id} cannot be read: {e}")))?;
        let diffs = effective(&config.rootfs.diff_ids, substituted.as_ref())?;
        // The lease first: what is seen then stays.
        let lease = self.leases.take(chains(&diffs), Vec::new());
        let extra = Extra { substituted: substituted.clone(), ..Extra::default() };
        let held = self.held(raw.clone(), &id, extra)?;
        self.states.hold(&id, held);
        Ok(State { id, config, diffs, raw, substituted, states: self.states.clone(), _lease: lease })
    }

    /// Makes an image of a state, under names; returns its ID. `parent`: the image that it was built on.
    pub fn enter_state(&self, state: &State, parent: Option<Digest>, names: &[Reference]) -> Result<Digest> {
        // No prune between an image and its name.
        let _writing = self.writing.lock();
        let id =
            self.enter(state.raw.clone(), parent.filter(|p| *p != state.id), state.substituted.clone())?;
        for name in names {
            self.name(&id, name)?;
        }
        Ok(id)
    }

    /// Leases a chain's uppermost layer, whether it is here or not.
    pub fn keep_chain(&self, chain: ChainId) -> Lease {
        self.leases.take(vec![chain], Vec::new())
    }

    /// Bytes of a chain's uppermost layer, if it is here.
    pub fn chain_size(&self, chain: &ChainId) -> Option<u64> {
        self.layers.get(chain).map(|layer| layer.size)
    }

    /// Whether an image has the layer.
    pub fn is_in_image(&self, chain: &ChainId) -> bool {
        self.lock().images.values().any(|held| held.layers.iter().any(|l| l.chain == *chain))
    }

    /// Removes layers that nothing needs any more; returns their bytes.
    pub fn collect_layers(&self) -> u64 {
        let _writing = self.writing.lock();
        self.collect()
    }

    /// Makes a layer over `below` (diff IDs, lowest first) of an image of `os`, from the archive that `write` writes.
    /// `None`: the archive is empty.
    pub fn build_layer(
        &self,
        os: &str,
        below: &[Digest],
        files: LayerFiles<'_>,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Option<BuiltLayer>> {
        let below = chains(below);
        let mut has_entries = false;
        let write = |to: &mut dyn Write| {
            let mut to = Looked { to, has_entries: false };
            let written = write(&mut to);
            has_entries = to.has_entries;
            written
        };
        let mut fresh = match files {
            LayerFiles::Taken(tree) => read_written(write, |tar| self.layers.record(tree, tar))?,
            LayerFiles::Packed => self.unpack_written(os, &below, write)?,
        };
        if !has_entries {
            return Ok(None);
        }
        if let LayerFiles::Taken(tree) = files {
            fresh.take(tree)?;
        }
        let _writing = self.writing.lock();
        let record = self.layers.keep(fresh, below.last(), None, &Keep::Record)?;
        let lease = self.keep_chain(record.chain.clone());
        let LayerRecord { chain, diff, size, .. } = record;
        Ok(Some(BuiltLayer { diff, chain, size, lease }))
    }
}
