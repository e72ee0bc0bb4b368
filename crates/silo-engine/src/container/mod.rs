//! Containers: one file a verb, each step beside its undo.

mod archive;
mod attach;
mod commit;
mod create;
mod exited;
mod health;
mod lifecycle;
mod links;
mod list;
mod logs;
mod names;
mod remove;
mod start;
mod stats;
mod update;
mod wait;
mod warnings;

pub use archive::{Change, PathStat};
pub use attach::AttachOptions;
pub use commit::CommitOptions;
pub use logs::{LogOptions, LogStream};
pub use update::{LimitsUpdate, Update};
pub use wait::{WaitCondition, WaitOutcome};

pub(crate) use attach::detach_keys;
pub(crate) use health::watch_health;
