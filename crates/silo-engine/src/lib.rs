//! The heart: what exists and what state it is in. Containers, execs, volumes, events; database; crash recovery.
//!
//! Owns the records and their changes, and is the only crate that knows both axes (`placement.rs`).
//! Must not know: HTTP, Docker's JSON, how a bundle is run.

mod error;
mod filters;
mod record;
mod spec;

pub use error::{EngineError, Kind, Result};
pub use filters::Filters;
pub use record::*;
pub use spec::*;
