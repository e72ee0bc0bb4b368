//! What a client wants built.

use std::collections::BTreeMap;
use std::io::Read;

use silo_engine::ContainerSpec;
use silo_engine::images::Credentials;

use crate::secrets::Secrets;

/// A build as asked for.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Path in the context, empty: `Dockerfile`.
    pub dockerfile: String,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Only the image's ID is told.
    pub quiet: bool,
    /// No step is taken from the cache.
    pub no_cache: bool,
    /// Images are pulled even if they are here.
    pub pull: bool,
    /// A step's container goes when the step has succeeded.
    pub remove: bool,
    /// It goes in any case.
    pub force_remove: bool,
    /// All that the build adds to its base becomes one layer.
    pub squash: bool,
    /// `--build-arg`; `None`: the name without a value.
    pub arguments: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// Images whose layers may serve as cache.
    pub cache_from: Vec<String>,
    /// Stage to build, empty: the last.
    pub target: String,
    /// `os/architecture[/variant]`, empty: what `FROM` leads to.
    pub platform: String,
    /// What containers of steps have of limits, network and isolation.
    pub container: ContainerSpec,
    /// Who asks, by registry.
    pub credentials: BTreeMap<String, Credentials>,
    /// What steps may ask for.
    pub secrets: Secrets,
    /// By which the build may be cancelled.
    pub id: String,
}

/// Where the context comes from.
pub enum ContextSource {
    /// An archive, compressed or not.
    Archive(Box<dyn Read + Send>),
    /// URL of an archive, a Dockerfile or a git repository.
    Remote(String),
}
