//! Runs one OCI bundle on *this* kernel (namespaces, cgroup, seccomp, exec), and the task protocol.
//!
//! Its own runtime on clone3, the new mount API and rustix, and not `libcontainer`: see docs/architecture.md for
//! the measurement. Callers must be single-threaded: processes are made by fork.
//! Must not know: images, guests, the engine; whether it runs on a host or inside a microVM.

mod bundle;
mod caps;
pub mod cgroup;
mod container;
mod exec;
mod failure;
mod finish;
pub mod link;
mod mounts;
mod prepared;
pub mod protocol;
mod report;
pub mod seccomp;
mod signal;
pub mod tools;
mod waiting;

pub use bundle::{Bundle, STATUS_FD_ANNOTATION, WAITS_ANNOTATION};
pub use container::{Started, become_supervisor, start, told_status};
pub use exec::exec;
pub use finish::{Stdio, set_window_size};
pub use mounts::{assemble, detached};
pub use prepared::{Prepared, Taken};
pub use signal::signal;
pub use waiting::{SETTLED_ANNOTATION, Waiting};
