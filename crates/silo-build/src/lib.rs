//! Dockerfile → stages → steps → image. A step that runs something runs it as a container of the engine, by the verbs that the
//! API calls; every other step writes a layer or changes the config.
//!
//! Owns: the Dockerfile language, the build's context, the cache's keys.
//! Must not know: HTTP, what an isolation is, where the engine keeps its files.

mod apply;
mod base;
mod build;
mod cancel;
pub mod context;
pub mod copy;
pub mod dockerfile;
mod failure;
pub mod ignore;
mod key;
mod mounts;
mod output;
pub mod plan;
#[cfg(test)]
mod plan_tests;
mod removals;
mod request;
mod room;
mod run;
mod secrets;
mod sources;
mod squash;
mod stage;
mod stages;
mod steps;
mod warnings;
mod work;

pub use build::build;
pub use cancel::cancel;
pub use request::{BuildRequest, ContextSource};
pub use secrets::Secrets;
