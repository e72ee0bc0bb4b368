//! Network namespaces: made by a thread that lives only for that, furnished from within.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use silo_sys::netlink::Socket;
use silo_sys::netns;

use crate::error::{NetworkError, Result, kernel};
use crate::links;

/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// Nothing deep is called there, and a small stack is quicker to map.
const STACK: usize = 256 * 1024;

/// Makes a namespace with loopback up and runs `furnish` in it, with a netlink socket of that namespace.
pub(crate) fn create<T: Send>(
    furnish: impl FnOnce(&OwnedFd, &mut Socket) -> Result<T> + Send,
) -> Result<(OwnedFd, T)> {
    // The thread takes its namespace along when it ends; the descriptor is what keeps it.
    on_a_thread(move || {
        netns::unshare_network().map_err(kernel("making a network namespace"))?;
        let namespace = netns::current_network().map_err(kernel("opening a new network namespace"))?;
        let mut socket =
            Socket::open().map_err(kernel("opening a netlink socket in a new network namespace"))?;
        socket
            .change(links::set_up(LOOPBACK))
            .map_err(kernel("bringing loopback up in a new network namespace"))?;
        // As in every container of Docker's: any user may listen on any port and ping. Here, because a container with a
        // user namespace of its own may not set them.
        for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")] {
            let path = format!("/proc/sys/net/ipv4/{name}");
            std::fs::write(&path, value).map_err(kernel(format!("writing {path}")))?;
        }
        let made = furnish(&namespace, &mut socket)?;
        Ok((namespace, made))
    })
}

/// Runs `furnish` in a namespace that was made before.
pub(crate) fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    furnish: impl FnOnce(&mut Socket) -> Result<T> + Send,
) -> Result<T> {
    on_a_thread(move || {
        netns::enter_network(namespace).map_err(kernel("entering a network namespace"))?;
        let mut socket = Socket::open().map_err(kernel("opening a netlink socket in a network namespace"))?;
        furnish(&mut socket)
    })
}

fn on_a_thread<T: Send>(make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, make)
            .map_err(kernel("starting a thread for a network namespace"))?;
        thread.join().unwrap_or_else(|_| {
            Err(NetworkError::Kernel {
                doing: "making a network namespace".to_owned(),
                source: std::io::Error::other("the thread for it panicked"),
            })
        })
    })
}
