//! The key of a step: the digest of all that its result follows from.

use serde_json::json;
use silo_engine::images::{ContainerConfig, Digest, State};

/// What beside the layers below, the config and the instruction counts is `meaning`: arguments in effect, digests of files.
pub(crate) fn key(before: &State, config: &ContainerConfig, instruction: &str, meaning: &[String]) -> String {
    let text = json!([
        1,
        before.config.os,
        before.config.architecture,
        before.config.variant,
        before.diffs,
        before.config.config.to_json(),
        config.to_json(),
        instruction,
        meaning,
    ]);
    Digest::of(text.to_string().as_bytes()).hex().to_owned()
}
