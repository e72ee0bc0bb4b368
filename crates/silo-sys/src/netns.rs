//! Network namespaces: a fresh one for the calling thread, and the descriptor that keeps it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::thread::UnshareFlags;

/// Moves the calling thread, and no other, into a fresh network namespace. Meant for a thread that ends soon after: there
/// is no way back but by a descriptor of the old namespace.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: of all flags only CLONE_FILES breaks Rust's assumptions (descriptors seen from other threads); a network
    // namespace is no memory and no descriptor table.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Moves the calling thread, and no other, into a network namespace; see [`unshare_network`].
pub fn enter_network(namespace: impl std::os::fd::AsFd) -> io::Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The network namespace of the calling thread. It lives as long as the descriptor or a process in it; no file names it.
pub fn current_network() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_moves() {
        let inode = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let before = inode();
        let moved = std::thread::spawn(move || unshare_network().map(|()| inode())).join().unwrap();
        match moved {
            Ok(inside) => assert_ne!(inside, before),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!(inode(), before);
        assert!(current_network().is_ok());
    }
}
