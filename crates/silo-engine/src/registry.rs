//! The registry of a Windows container or image, to be looked into.

use crate::ByteStream;
use crate::container::Writable;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Kind, Result, guest_error};
use crate::stream::stream;
use crate::{image, placement};

impl Engine {
    /// The registry of a container, or of an image if there is no such container, as a tar of hive files named after their
    /// roots. `original`: what a container began with; of an image, what it was before its uppermost layer.
    pub async fn windows_registry(&self, name: &str, original: bool) -> Result<ByteStream> {
        let (os, layers, top, user) = match self.find(name) {
            Ok(entry) => {
                if !original {
                    self.write_out(&entry).await?;
                }
                let record = entry.record();
                let layers = self.inner.images.chain(&record.image_id).map_err(image::error)?;
                let top = if original { None } else { Some(self.writable(&entry).await?) };
                (record.os, layers, top, record.spec.config.user)
            }
            Err(e) if e.kind == Kind::NotFound => {
                let found = self.inner.images.get(name).map_err(image::error)?;
                let os = silo_guest::Os::parse(&found.config.os).ok_or_else(|| {
                    EngineError::invalid(format!("{name}: unknown operating system {:?}", found.config.os))
                })?;
                let mut layers = self.inner.images.chain(&found.id.to_string()).map_err(image::error)?;
                if original {
                    layers.remove(0);
                }
                (os, layers, None, found.config.config.user)
            }
            Err(e) => return Err(e),
        };
        blocking(move || {
            let mut bytes = Vec::new();
            let of = silo_guest::Changes {
                layers: &layers,
                top: top.as_ref().map(Writable::path),
                user: &user,
                time: (0, 0),
            };
            placement::guest(os)?.registry(&of, &mut bytes).map_err(guest_error)?;
            Ok(stream(move |to| to.write_all(&bytes)))
        })
        .await
    }
}
