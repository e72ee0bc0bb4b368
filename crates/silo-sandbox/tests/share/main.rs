//! Shared folders as a program in the guest sees them, without a guest: server, relay and mount on one host.
//!
//! Needs root and `/dev/fuse`; otherwise the tests that mount say so and pass.

mod behaviour;
mod hostile;
mod mounted;

#[allow(dead_code, missing_docs)]
#[path = "../../../../inside/agent/src/share.rs"]
mod relay;
