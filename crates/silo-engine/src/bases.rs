//! Bases made here, in the place of those that images were built on elsewhere: which, and made if there is none yet.

use std::io::BufWriter;
use std::sync::Mutex;

use silo_guest::{BaseLayers, Guest, Lineage, LineageLayer};
use silo_image::{Candidate, ImageError, ImageStore, Reference, Substitute};

use crate::engine::Engine;
use crate::image;
use crate::lock::lock;

/// Bytes between the maker of a base and the store.
const PIECE: usize = 256 << 10;

/// One base is made at a time: whoever waits finds it made.
static MAKING: Mutex<()> = Mutex::new(());

type Result<T> = std::result::Result<T, ImageError>;

impl Engine {
    /// What takes the place of an image's lowest layers, there when this returns. `say` hears what takes long.
    pub(crate) fn substitute(
        &self,
        candidate: &Candidate<'_>,
        say: &dyn Fn(&str),
    ) -> Result<Option<Substitute>> {
        let Some(guest) = silo_guest::Os::parse(&candidate.config.os).and_then(silo_guest::of) else {
            return Ok(None);
        };
        let Some(found) = self.base_layers(guest, candidate)? else { return Ok(None) };
        let is_here = || self.inner.images.get(&found.base).is_ok();
        if !is_here() {
            let settings = &self.inner.config.bases;
            if settings.no_build {
                return Err(ImageError::Absent(format!(
                    "image {} is built on {}, whose local base {} is not here: run `silo base build {}`",
                    candidate.name, found.family, found.base, found.family
                )));
            }
            let _one = lock(&MAKING);
            if !is_here() {
                say(&format!("Building the local base {}, once: this takes minutes", found.base));
                self.make_base(guest, &found, say)?;
            }
        }
        Ok(Some(Substitute { layers: found.layers, base: found.base }))
    }

    fn base_layers(&self, guest: &dyn Guest, candidate: &Candidate<'_>) -> Result<Option<BaseLayers>> {
        let history = candidate.history();
        let texts = |list: &[silo_image::Digest]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let diffs = texts(&candidate.config.rootfs.diff_ids);
        let layers: Vec<LineageLayer<'_>> = (candidate.layers.iter().zip(&diffs).enumerate())
            .map(|(i, (layer, diff))| LineageLayer {
                digest: layer.digest.as_str(),
                diff,
                foreign: layer.is_foreign(),
                urls: &layer.urls,
                size: layer.size,
                created_by: history.get(i).map_or("", |entry| &entry.created_by),
            })
            .collect();
        let known: Vec<_> =
            candidate.known.iter().map(|(diffs, base)| (texts(diffs), base.clone())).collect();
        let lineage = Lineage {
            name: candidate.name,
            labels: &candidate.config.config.labels,
            annotations: candidate.annotations,
            os_features: &candidate.config.os_features,
            layers: &layers,
            known: &known,
            digests: &self.inner.config.bases.digests,
        };
        guest.base_layers(&lineage).map_err(|e| ImageError::Invalid(e.to_string()))
    }

    fn make_base(&self, guest: &dyn Guest, wanted: &BaseLayers, say: &dyn Fn(&str)) -> Result<()> {
        let failed = |doing: &str, source| ImageError::Io { doing: doing.to_owned(), source };
        let settings = &self.inner.config.bases;
        // What a crash leaves there goes with the store's own at the next start.
        let work = tempfile::tempdir_in(self.inner.config.root.join("tmp"))
            .map_err(|e| failed("making a directory for the base", e))?;
        let (reader, writer) = std::io::pipe().map_err(|e| failed("making a pipe", e))?;
        let images: &ImageStore = &self.inner.images;
        let (built, loaded) = std::thread::scope(|scope| {
            // Ends with an error if what is written is cut off.
            let loading = scope.spawn(|| images.load(Box::new(reader), None, &|_| Ok(None), &mut |_| {}));
            let mut to = BufWriter::with_capacity(PIECE, writer);
            let packages = settings.packages.as_deref();
            let built =
                guest.build_base(&wanted.family, packages, work.path(), &mut |step| say(step), &mut to);
            let flushed = std::io::Write::flush(&mut to);
            drop(to);
            let built = built.map_err(|e| e.to_string()).and(flushed.map_err(|e| e.to_string()));
            (built, loading.join())
        });
        built.map_err(|e| failed(&format!("the base {}", wanted.base), std::io::Error::other(e)))?;
        let loaded = loaded.map_err(|_| failed("loading the base", std::io::Error::other("panicked")))??;
        for image in loaded {
            self.tell_image(
                "load",
                &image.id.to_string(),
                image.references.first().map_or("", String::as_str),
            );
        }
        Ok(())
    }

    /// Gives the base made here the name of the image that it stands for, whose registry cannot be reached; the base's own
    /// name. `None`: there is no such base, or the image is here.
    pub(crate) fn stand_in(&self, reference: &Reference) -> Option<&'static str> {
        let whole = reference.to_string();
        let base = silo_guest::all().into_iter().find_map(|guest| guest.stands_for(&whole))?;
        if reference.digest.is_some() || self.inner.images.get(&whole).is_ok() {
            return None;
        }
        let id = self.inner.images.tag(base, &whole).map_err(image::error).ok()?;
        self.tell_image("tag", &id, &reference.familiar());
        Some(base)
    }
}
