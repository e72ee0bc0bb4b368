//! Names of containers on networks: an embedded DNS server (RFC 1035) for each container, as dockerd has.
//!
//! The engine tells who is called what on which network ([`Names::set`]), and for each running container what it may ask for
//! ([`Names::serve`]). Its server's sockets are made in the container's network namespace; one thread of the daemon serves
//! all of them. A name is found on networks that the asking container is in; what no container is called is asked upstream.
//! All of it lives with the daemon: after a restart the engine tells it again.

mod answer;
mod directory;
mod forward;
mod inside;
mod message;
mod record;
mod redirect;
mod server;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

pub use answer::fuzz_dns_message;
pub use record::{NamedEndpoint, ResolverForm, Upstream, View};

use crate::error::{NetworkError, kernel};
use inside::Inside;
use server::{Container, Shared};

/// Who is found under which name, and the servers that say so.
#[derive(Debug)]
pub struct Names {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reactor: Option<Reactor>,
    servers: HashMap<String, Server>,
}

#[derive(Debug)]
struct Server {
    container: Arc<Container>,
    /// Device and inode of its namespace.
    place: (u64, u64),
    task: AbortHandle,
}

/// The threads: started with the first server, ended with the last handle.
#[derive(Debug)]
struct Reactor {
    handle: Handle,
    inside: Inside,
    _stop: oneshot::Sender<()>,
}

impl Reactor {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            let _ = runtime.block_on(stopped);
        };
        std::thread::Builder::new().name("names".to_owned()).spawn(run)?;
        Ok(Self { handle, inside: Inside::start()?, _stop: stop })
    }
}

impl Default for Names {
    fn default() -> Self {
        let forwarded = Arc::new(Semaphore::new(server::FORWARDED_IN_ALL));
        let shared = Arc::new(Shared { directory: Default::default(), forwarded });
        Self { shared, state: Mutex::default() }
    }
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an endpoint's names, in place of those it had.
    pub fn set(&self, endpoint: NamedEndpoint) {
        self.shared.directory.write().unwrap_or_else(PoisonError::into_inner).set(endpoint);
    }

    /// An endpoint's names are found no more.
    pub fn forget(&self, endpoint_id: &str) {
        self.shared.directory.write().unwrap_or_else(PoisonError::into_inner).forget(endpoint_id);
    }

    /// Serves a container in its network namespace; returns what its `resolv.conf` names. A server that it has there goes on
    /// with the new view. The namespace lives at least until [`Names::stop`].
    pub fn serve(
        &self,
        container_id: &str,
        namespace: BorrowedFd<'_>,
        form: ResolverForm,
        view: View,
    ) -> Result<IpAddr, NetworkError> {
        let failed = || kernel(format!("starting the name server of {container_id}"));
        let place = rustix::fs::fstat(namespace).map_err(io::Error::from).map_err(failed())?;
        let place = (place.st_dev, place.st_ino);
        if let Some(server) = self.state().servers.get(container_id)
            && server.place == place
            && !server.task.is_finished()
        {
            server.container.set_view(view);
            return Ok(server::address(form).into());
        }
        self.stop(container_id);
        let namespace = Arc::new(namespace.try_clone_to_owned().map_err(failed())?);
        let (handle, inside) = {
            let mut state = self.state();
            let reactor = match state.reactor.take() {
                Some(reactor) => reactor,
                None => Reactor::start().map_err(failed())?,
            };
            let reactor = state.reactor.insert(reactor);
            (reactor.handle.clone(), reactor.inside.clone())
        };
        let sockets = inside.run(&namespace, move || server::open(form)).map_err(failed())?;
        let namespace = match form {
            ResolverForm::Loopback => Some(namespace),
            ResolverForm::Link => None,
        };
        let way = forward::Way { namespace, inside };
        let container = Arc::new(Container::new(self.shared.clone(), view, way));
        let task = handle.spawn(server::serve(container.clone(), sockets)).abort_handle();
        self.state().servers.insert(container_id.to_owned(), Server { container, place, task });
        Ok(server::address(form).into())
    }

    /// What a container may ask for has changed. Without a server of its own: nothing.
    pub fn set_view(&self, container_id: &str, view: View) {
        if let Some(server) = self.state().servers.get(container_id) {
            server.container.set_view(view);
        }
    }

    /// Ends a container's server. None: nothing.
    pub fn stop(&self, container_id: &str) {
        if let Some(server) = self.state().servers.remove(container_id) {
            server.task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
