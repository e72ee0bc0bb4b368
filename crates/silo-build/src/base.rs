//! The image that a stage begins with.

use std::collections::BTreeMap;

use serde_json::Value;
use silo_engine::Engine;
use silo_engine::images::{Credentials, ImageError, Platform, Reference, State};

use crate::failure::{Failure, Result};
use crate::output::StageOutput;

/// How Docker Hub is called in clients' configurations.
const HUB: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

/// Which images may be had, and how.
#[derive(Clone, Copy)]
pub(crate) struct Bases<'b> {
    pub(crate) engine: &'b Engine,
    /// Pull what is here too.
    pub(crate) pull: bool,
    pub(crate) credentials: &'b BTreeMap<String, Credentials>,
}

impl Bases<'_> {
    /// The state of an image, which is pulled if it is not here, or is of another platform than `platform`.
    pub(crate) async fn get(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &StageOutput<'_>,
    ) -> Result<State> {
        let images = self.engine.images();
        let here = |e: ImageError| match e {
            ImageError::NotFound(_) => Ok(None),
            e => Err(Failure::invalid(e.to_string())),
        };
        let found = images.state(name).map_or_else(here, |state| Ok(Some(state)))?;
        let found = found.filter(|state| platform.is_none_or(|p| p.matches(&state.config)));
        let is_id = name.strip_prefix("sha256:").unwrap_or(name).bytes().all(|b| b.is_ascii_hexdigit())
            && Reference::parse(name).is_err();
        match found {
            Some(state) if !self.pull || is_id => Ok(state),
            _ => {
                self.pull_image(name, platform, output).await?;
                let pulled = images.state(name).map_err(|e| Failure::invalid(e.to_string()))?;
                match platform.filter(|p| !p.matches(&pulled.config)) {
                    None => Ok(pulled),
                    Some(platform) => Err(Failure::invalid(format!(
                        "image with reference {name} was found but does not match the specified platform: wanted {platform}, actual: {}/{}",
                        pulled.config.os, pulled.config.architecture
                    ))),
                }
            }
        }
    }

    fn of_registry(&self, reference: &Reference) -> Credentials {
        let host = reference.to_string();
        let host = host.split('/').next().unwrap_or_default();
        let names: Vec<String> = match HUB.contains(&host) {
            true => HUB.iter().map(|name| (*name).to_owned()).collect(),
            false => vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")],
        };
        names.iter().find_map(|name| self.credentials.get(name)).cloned().unwrap_or_default()
    }

    async fn pull_image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        output: &StageOutput<'_>,
    ) -> Result<()> {
        let reference = Reference::parse(name).map_err(|e| Failure::invalid(e.to_string()))?;
        let credentials = self.of_registry(&reference);
        let mut lines = self.engine.image_pull(name, false, platform.cloned(), credentials).await?;
        while let Some(line) = lines.recv().await {
            let line = line.map_err(|e| Failure::internal(format!("pulling {name}: {e}")))?;
            let value: Option<Value> = serde_json::from_slice(&line).ok();
            if let Some(error) = value.as_ref().and_then(|v| v.get("error")).and_then(Value::as_str) {
                return Err(Failure::internal(error));
            }
            output.pass(line).await;
        }
        Ok(())
    }
}
