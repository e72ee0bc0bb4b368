//! The Docker Engine API: HTTP to engine calls and back. No state, no file, no process.
//!
//! Owns routes, Docker's JSON and HTTP statuses. Must not know: how anything is done.

// `HostConfig` as inspect shows it is one JSON literal of some seventy fields.
#![recursion_limit = "256"]

mod build;
mod containers;
mod error;
mod exec;
mod images;
mod names;
mod networks;
mod params;
mod registries;
mod registry;
mod router;
mod server;
mod stream;
mod swarm;
mod system;
mod version;
mod volumes;

pub use server::serve;
pub use version::{MAX_VERSION, MIN_VERSION};
