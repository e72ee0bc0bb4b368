//! Containers: one file a verb, each step beside its undo.

mod archive;
mod attach;
mod commit;
mod create;
mod exited;
mod freeze;
mod health;
mod ipc;
mod keeper;
mod layer;
mod lifecycle;
mod limits;
mod links;
mod list;
mod log_files;
mod logs;
mod machine;
mod mount_points;
mod names;
mod ready;
mod remove;
mod spare;
mod start;
mod stats;
mod update;
mod volumes;
mod wait;
mod warnings;

pub use archive::{Change, PathStat};
pub use attach::AttachOptions;
pub use commit::CommitOptions;
pub use logs::{LogOptions, LogStream};
pub use update::{DeviceLimit, DeviceUpdate, LimitsUpdate, Update, set_devices};
pub use wait::{WaitCondition, WaitOutcome};

pub(crate) use attach::detach_keys;
pub(crate) use health::watch_health;
pub(crate) use keeper::Writable;
pub(crate) use links::Linked;
pub(crate) use start::refuse_to_join;
