//! Safe wrappers over Linux: atomic files, opening beneath, mounts, processes, sockets; nearly all `unsafe` of the house.
//!
//! Must not know: anything of Silo.

pub mod atomic_file;
pub mod beneath;
pub mod block;
pub mod entropy;
pub mod identity;
pub mod kvm;
pub mod links;
pub mod mount;
pub mod mount_words;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod routes;
pub mod socket;
pub mod tap;
pub mod traffic;
