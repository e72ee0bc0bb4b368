//! Axis 2: where a bundle runs. Owns isolation drivers, the shim and the engine's end of the task protocol.
//!
//! Must not know: images, guests (the words "Linux image" or "Wine"), networks, the engine's records.

mod contract;

pub use contract::*;
