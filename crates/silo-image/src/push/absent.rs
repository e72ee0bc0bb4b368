//! Layers that are not here, another image's being in their place: found where they are pushed to, mounted there, or
//! described by where they can be had. None is ever sent.

use crate::error::{ImageError, Result};
use crate::manifest::Descriptor;
use crate::progress::{Tell, Told};
use crate::reference::Reference;
use crate::registry::client::{Access, Client};
use crate::substitute::Substituted;

/// The descriptors of such layers for a manifest in a repository, lowest first: the originals where that can be.
pub(super) fn place(
    client: &Client,
    repository: &Reference,
    substituted: Option<&Substituted>,
    tell: Tell<'_>,
) -> Result<Vec<Descriptor>> {
    let Some(substituted) = substituted else { return Ok(Vec::new()) };
    substituted.layers.iter().map(|layer| place_one(client, repository, substituted, layer, tell)).collect()
}

fn place_one(
    client: &Client,
    repository: &Reference,
    substituted: &Substituted,
    layer: &Descriptor,
    tell: Tell<'_>,
) -> Result<Descriptor> {
    let id = || layer.digest.hex()[..12].to_owned();
    if layer.is_foreign() {
        tell(Told::State { id: id(), state: "Skipped foreign layer" });
        return Ok(layer.clone());
    }
    let path = &repository.path;
    if client.has_blob(path, &layer.digest, Access::Push)?.is_some() {
        tell(Told::State { id: id(), state: "Layer already exists" });
        return Ok(layer.clone());
    }
    let from =
        substituted.repository.as_ref().and_then(|r| r.strip_prefix(&format!("{}/", repository.domain)));
    if let Some(from) = from.filter(|from| from != path)
        && client.mount(path, &layer.digest, from)?
    {
        tell(Told::Remark { id: id(), state: format!("Mounted from {from}") });
        return Ok(layer.clone());
    }
    let described = substituted.described(layer).ok_or_else(|| {
        ImageError::Invalid(format!(
            "base layer {} is neither here nor in {}, and nothing says where it can be had: pull the image from a registry that has it",
            layer.digest,
            repository.repository()
        ))
    })?;
    let url = described.urls.first().cloned().unwrap_or_default();
    tell(Told::Remark { id: id(), state: format!("Referenced at {url}") });
    Ok(described)
}
