//! The heart: what exists and what state it is in. Containers, execs, volumes, events; database; crash recovery.
//!
//! Owns the records and their changes, and is the only crate that knows both axes (`placement.rs`).
//! Must not know: HTTP, Docker's JSON, how a bundle is run.

mod bases;
mod build_cache;
mod build_limit;
mod build_records;
mod bundle;
mod container;
mod db;
mod engine;
mod error;
mod events;
mod exec;
mod execs;
mod filters;
mod ids;
mod image;
mod image_registry;
mod joined;
mod lock;
mod mount_mode;
mod network_book;
mod networks;
mod placement;
mod ports;
mod record;
mod recover;
mod registry;
mod signal;
pub mod size;
mod spares;
mod spec;
mod stream;
mod system;
pub mod time;
mod volume;
mod volume_mounts;
mod volume_options;
mod volumes;

pub use build_cache::CachePrune;
pub use build_limit::BuildSettings;
pub use build_records::{CACHE_MOUNT, CacheRecord, CacheUsage, InUse, REGULAR};
pub use container::{
    AttachOptions, Change, CommitOptions, DeviceLimit, DeviceUpdate, LimitsUpdate, LogOptions, LogStream,
    PathStat, Update, WaitCondition, WaitOutcome, set_devices,
};
pub use engine::{BaseSettings, ContainerPaths, Engine, EngineConfig};
pub use error::{EngineError, Kind, Result};
pub use filters::Filters;
pub use mount_mode::MountMode;
pub use networks::{
    AdapterChange, AdapterState, Configuration, MAX_EGRESS, MAX_INGRESS, NetworkRequest, NetworkUser,
    NetworkView, OPERATORS_FIELDS, limit_text,
};
pub use record::*;
pub use spares::PoolState;
pub use spec::*;
pub use system::{DiskUsage, Info};

pub use silo_guest as guest;
pub use silo_image as images;
pub use silo_network as network;
pub use silo_sandbox as sandbox;

/// Bytes on their way to a client; an error ends them.
pub type ByteStream = tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>;
