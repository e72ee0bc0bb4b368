//! `pull`: reference → manifest → this platform's → config → layers side by side → image; its name last.

mod download;
mod layers;

use std::sync::Arc;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::layers::{WINDOWS, chains};
use crate::lease::Lease;
use crate::manifest::{Choice, DescribedPlatform, Descriptor, Document, MAX_CONFIG, Manifest, choose};
use crate::progress::{Tell, Told};
use crate::pull::download::Source;
use crate::reference::Reference;
use crate::registry::client::{Client, Fetched};
use crate::registry::error::RegistryError;
use crate::registry::{Cancel, Credentials, RegistrySettings};
use crate::store::{Held, ImageStore, KeptManifest};
use crate::substitute::{Candidate, Decide, Substituted, effective};

/// Manifests of an index that are looked at for their platforms.
const MAX_LOOKED_AT: usize = 1000;

/// What is pulled, and as whom.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Name with tag or digest.
    pub reference: Reference,
    /// All tags of its repository instead.
    pub all_tags: bool,
    /// Which image of an index.
    pub choice: Choice,
    /// Who asks.
    pub credentials: Credentials,
}

/// A manifest as a registry has it: `docker manifest`, `docker service`.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its type, digest and size.
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// What it is for.
    pub platforms: Vec<DescribedPlatform>,
}

/// dockerd's words for what a registry said of a name.
fn refused(error: RegistryError, reference: &Reference) -> ImageError {
    let name = reference.familiar_name();
    match &error {
        RegistryError::Refused { code, .. } if matches!(code.as_str(), "DENIED" | "UNAUTHORIZED") => {
            ImageError::Absent(format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login': {error}"
            ))
        }
        RegistryError::Refused { code, .. } if code == "NAME_UNKNOWN" => {
            ImageError::Absent(format!("repository {name} not found: {error}"))
        }
        RegistryError::Refused { code, .. } if code == "MANIFEST_UNKNOWN" => {
            ImageError::Absent(format!("manifest for {} not found: {error}", reference.familiar()))
        }
        RegistryError::Refused { status: 404, .. } => {
            ImageError::Absent(format!("manifest for {} not found: {error}", reference.familiar()))
        }
        _ => error.into(),
    }
}

/// The tag or digest of a reference.
fn which(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    }
}

/// Notes where layers that are not fetched can be had: of a mirror's, from whom it mirrors.
fn had_from(substituted: Substituted, client: &Client, reference: &Reference) -> Substituted {
    let host = match client.endpoint.mirror {
        true => format!("https://{}", reference.domain),
        false => client.endpoint.url.clone(),
    };
    Substituted {
        source: Some(format!("{host}/v2/{}", reference.path)),
        repository: Some(reference.repository()),
        ..substituted
    }
}

/// An image's manifest, and the index that it was chosen from.
struct Found {
    top: Fetched,
    image: Box<Manifest>,
    kept: Vec<(Vec<u8>, String)>,
}

impl ImageStore {
    /// Pulls; the store is as before unless all of an image is here. Tells of nothing before the manifest is found. Of what
    /// `decide` has a substitute for nothing is fetched.
    pub fn pull(
        &self,
        settings: &Arc<RegistrySettings>,
        options: &PullOptions,
        decide: Decide<'_>,
        cancel: &Cancel,
        tell: Tell<'_>,
    ) -> Result<Vec<String>> {
        let mut last = None;
        let endpoints = settings.endpoints(&options.reference.domain, true)?;
        for endpoint in endpoints {
            let mirror = endpoint.mirror;
            let part = cancel.child();
            let client = match Client::connect(settings, endpoint, &options.credentials, &part) {
                Ok(client) => client,
                Err(e) if mirror || e.is_absence() => {
                    last = Some(e.into());
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            let result = self.pull_from(&client, options, decide, tell);
            if result.is_err() {
                // Layers that came in whole and are nobody's now; whoever changes the store meanwhile leaves them to the next.
                if let Ok(_writing) = self.writing.try_lock() {
                    self.collect();
                }
            }
            match result {
                // What a copy does not have, or has wrong, the original may have.
                Err(e) if mirror && cancel.check().is_ok() => {
                    tracing::info!("mirror {}: {e}", client.endpoint.url);
                    last = Some(e);
                }
                Err(_) if cancel.check().is_err() => return Err(RegistryError::Cancelled.into()),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Cancelled.into()))
    }

    fn pull_from(
        &self,
        client: &Client,
        options: &PullOptions,
        decide: Decide<'_>,
        tell: Tell<'_>,
    ) -> Result<Vec<String>> {
        let reference = &options.reference;
        if !options.all_tags {
            let id = self.pull_one(client, reference, options, decide, tell)?;
            return Ok(vec![id]);
        }
        let tags = client.tags(&reference.path).map_err(|e| refused(e, reference))?;
        let mut ids = Vec::new();
        for tag in tags {
            // A tag that is none cannot be named either.
            let Ok(tagged) = reference.tagged(&tag) else { continue };
            ids.push(self.pull_one(client, &tagged, options, decide, tell)?);
        }
        Ok(ids)
    }

    fn find(client: &Client, reference: &Reference, choice: &Choice) -> Result<Found> {
        let path = &reference.path;
        let top = client.manifest(path, &which(reference)).map_err(|e| refused(e, reference))?;
        let document = Document::read(&top.bytes, &top.media_type)?;
        let mut kept = vec![(top.bytes.clone(), top.media_type.clone())];
        let image = match document {
            Document::Image(image) => image,
            Document::Index(all) => {
                let chosen = choose(&all, choice)?;
                let fetched =
                    client.manifest(path, chosen.digest.as_str()).map_err(|e| refused(e, reference))?;
                if fetched.bytes.len() as u64 != chosen.size {
                    return Err(ImageError::Invalid(format!(
                        "manifest {} has {} bytes, its index says {}",
                        chosen.digest,
                        fetched.bytes.len(),
                        chosen.size
                    )));
                }
                let Document::Image(image) = Document::read(&fetched.bytes, &chosen.media_type)? else {
                    return Err(ImageError::Invalid(format!(
                        "index {} leads to another index ({}), which is not supported",
                        top.digest, chosen.digest
                    )));
                };
                kept.push((fetched.bytes, chosen.media_type.clone()));
                image
            }
        };
        image.check()?;
        Ok(Found { top, image, kept })
    }

    fn pull_one(
        &self,
        client: &Client,
        reference: &Reference,
        options: &PullOptions,
        decide: Decide<'_>,
        tell: Tell<'_>,
    ) -> Result<String> {
        let found = Self::find(client, reference, &options.choice)?;
        tell(Told::About { id: which(reference), text: format!("Pulling from {}", reference.path) });
        let blobs = &found.image.layers;
        let mut needed: Vec<Digest> = blobs.iter().map(|b| b.digest.clone()).collect();
        needed.extend(found.kept.iter().map(|(bytes, _)| Digest::of(bytes)));
        let _blobs = self.leases.take(Vec::new(), needed);
        let id = found.image.config.digest.clone();
        let here = self.lock().images.get(&id).cloned();
        let is_new = here.is_none();
        let raw = match &here {
            Some(held) => held.raw.clone(),
            None => client.small_blob(&reference.path, &id, MAX_CONFIG)?,
        };
        let config: ImageConfig = serde_json::from_slice(&raw).map_err(|e| {
            ImageError::Invalid(format!("image config {id} of {}: {e}", reference.familiar()))
        })?;
        if !["linux", WINDOWS].contains(&config.os.as_str()) {
            return Err(ImageError::Invalid(format!(
                "cannot download image with operating system {:?}: {}",
                config.os,
                reference.familiar()
            )));
        }
        let diffs = &config.rootfs.diff_ids;
        if diffs.len() != blobs.len() {
            return Err(ImageError::Invalid(format!(
                "invalid manifest of {}: {} layers, and {} in its config",
                reference.familiar(),
                blobs.len(),
                diffs.len()
            )));
        }
        let name = reference.familiar();
        let candidate = Candidate {
            name: &name,
            config: &config,
            layers: blobs,
            annotations: &found.image.annotations,
            known: &self.known_substitutes(),
        };
        let (substituted, _base) = self.substituted(&candidate, here, decide)?;
        let substituted = substituted.map(|s| had_from(s, client, reference));
        let (own, first) =
            (effective(diffs, substituted.as_ref())?, substituted.as_ref().map_or(0, |s| s.layers.len()));
        let _chains = self.leases.take(chains(&own), Vec::new());
        let from = Source { client, repository: &reference.path };
        // An image that is here may have been removed since it was looked at.
        if is_new || chains(&own).iter().any(|c| self.layers.get(c).is_none()) {
            for layer in &blobs[..first] {
                tell(Told::State { id: layer.digest.hex()[..12].to_owned(), state: "Skipped base layer" });
            }
            let repository = reference.repository();
            layers::bring(self, &from, (&config.os, &own), &blobs[first..], &repository, tell)?;
        }
        let news = self.enter_pulled(raw, reference, &found, substituted)?;
        tell(Told::Message(format!("Digest: {}", found.top.digest)));
        if let Some(platform) = options.choice.platform.as_ref().filter(|p| !p.matches(&config)) {
            tell(Told::Message(format!(
                "WARNING: image with reference {} was found but its platform ({}/{}) does not match the specified platform ({platform})",
                reference.familiar(),
                config.os,
                config.architecture
            )));
        }
        let status = if news { "Downloaded newer image" } else { "Image is up to date" };
        tell(Told::Message(format!("Status: {status} for {}", reference.familiar())));
        Ok(id.to_string())
    }

    /// What took the place of layers before, by their diff IDs, the lowest first.
    pub(crate) fn known_substitutes(&self) -> Vec<(Vec<Digest>, String)> {
        let index = self.lock();
        let of = |held: &Held| {
            let substituted = held.extra.substituted.as_ref()?;
            let lowest = held.config.rootfs.diff_ids.get(..substituted.layers.len())?;
            Some((lowest.to_vec(), substituted.base.clone()))
        };
        index.images.values().filter_map(of).collect()
    }

    /// What takes the place of an image's lowest layers, and a lease of it: as before if the image is `here`, else as decided.
    pub(crate) fn substituted(
        &self,
        candidate: &Candidate<'_>,
        here: Option<Held>,
        decide: Decide<'_>,
    ) -> Result<(Option<Substituted>, Lease)> {
        // Who collects holds the leases and asks for the index: a lease is taken without it, and what it is of looked at after.
        let leased = |diffs: &[Digest]| {
            let lease = self.leases.take(chains(diffs), Vec::new());
            chains(diffs).iter().all(|c| self.layers.get(c).is_some()).then_some(lease)
        };
        if let Some(held) = here {
            let before = held.extra.substituted;
            if let Some(lease) = leased(before.as_ref().map_or(&[], |s| &s.diffs)) {
                return Ok((before, lease));
            }
        }
        let Some(substitute) = decide(candidate)? else {
            return Ok((None, self.leases.take(Vec::new(), Vec::new())));
        };
        let diffs = {
            let index = self.lock();
            let id = self.resolve(&index, &substitute.base)?;
            index.images.get(&id).map(Held::diffs).unwrap_or_default()
        };
        let lease = leased(&diffs).filter(|_| !diffs.is_empty());
        let lease = lease.ok_or_else(|| ImageError::NotFound(substitute.base.clone()))?;
        let layers = candidate.layers.get(..substitute.layers).unwrap_or_default().to_vec();
        Ok((
            Some(Substituted { layers, diffs, base: substitute.base, source: None, repository: None }),
            lease,
        ))
    }

    /// Enters an image whose layers are here; whether its name led elsewhere, or nowhere, before.
    fn enter_pulled(
        &self,
        raw: Vec<u8>,
        reference: &Reference,
        found: &Found,
        substituted: Option<Substituted>,
    ) -> Result<bool> {
        let _writing = self.writing.lock();
        let mut kept = Vec::new();
        for (bytes, media_type) in &found.kept {
            let digest = self.layers.content.put(bytes)?;
            kept.push(KeptManifest { digest, media_type: media_type.clone() });
        }
        let id = self.enter(raw, None, substituted)?;
        let name = reference.canonical();
        let before = self.lock().references.get(&name).cloned();
        self.known_as(&id, &reference.at(found.top.digest.clone()), kept)?;
        let news = before.as_ref() != Some(&id);
        if reference.digest.is_none() && news {
            self.name(&id, reference)?;
        }
        Ok(news)
    }

    /// What a registry, or a mirror of it, has under a name.
    pub fn describe(
        settings: &Arc<RegistrySettings>,
        reference: &Reference,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Described> {
        let mut last = RegistryError::Cancelled.into();
        for endpoint in settings.endpoints(&reference.domain, true)? {
            let mirror = endpoint.mirror;
            let client = match Client::connect(settings, endpoint, credentials, cancel) {
                Ok(client) => client,
                Err(e) if mirror || e.is_absence() => {
                    last = e.into();
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            match Self::describe_from(&client, reference) {
                Err(e) if mirror => last = e,
                other => return other,
            }
        }
        Err(last)
    }

    fn describe_from(client: &Client, reference: &Reference) -> Result<Described> {
        let path = &reference.path;
        let top = client.manifest(path, &which(reference)).map_err(|e| refused(e, reference))?;
        let document = Document::read(&top.bytes, &top.media_type)?;
        let platforms = match document {
            Document::Index(all) => {
                all.into_iter().take(MAX_LOOKED_AT).filter_map(|d: Descriptor| d.platform).collect()
            }
            Document::Image(image) => {
                let raw = client.small_blob(path, &image.config.digest, MAX_CONFIG)?;
                let config: ImageConfig = serde_json::from_slice(&raw).unwrap_or_default();
                vec![DescribedPlatform {
                    architecture: config.architecture,
                    os: config.os,
                    os_version: config.os_version,
                    variant: config.variant,
                    os_features: Vec::new(),
                }]
            }
        };
        let media_type = match top.media_type.as_str() {
            "" => serde_json::from_slice::<serde_json::Value>(&top.bytes)
                .ok()
                .and_then(|v| v["mediaType"].as_str().map(str::to_owned))
                .unwrap_or_default(),
            given => given.to_owned(),
        };
        Ok(Described { media_type, digest: top.digest, size: top.bytes.len() as u64, platforms })
    }

    /// Proves credentials to a registry by its host; an identity token if it gives one.
    pub fn log_in(
        settings: &Arc<RegistrySettings>,
        domain: &str,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        Ok(Client::find(settings, domain, credentials, cancel)?.log_in()?)
    }

    /// Begins to fetch a file from any web server, for [`ImageStore::import`]: its whole URL and content.
    pub fn open_url(
        settings: &Arc<RegistrySettings>,
        url: &str,
        cancel: &Cancel,
    ) -> Result<(String, Box<dyn std::io::Read + Send>)> {
        Ok(crate::registry::url::open(settings, url, cancel)?)
    }

    /// Repositories that match a term, as the index gives them.
    pub fn search(
        settings: &Arc<RegistrySettings>,
        term: &str,
        limit: u32,
        credentials: &Credentials,
        cancel: &Cancel,
    ) -> Result<Vec<serde_json::Value>> {
        Ok(crate::registry::search::search(settings, term, limit, credentials, cancel)?)
    }
}
