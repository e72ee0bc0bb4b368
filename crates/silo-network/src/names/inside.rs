//! A thread that does things in network namespaces: sockets stay where they were made, wherever they are used.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use silo_sys::netns;

/// Nothing deep is called there.
const STACK: usize = 256 * 1024;

type Job = Box<dyn FnOnce(&io::Result<()>) + Send>;

/// The thread; it ends with its last handle.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    jobs: Sender<(Arc<OwnedFd>, Job)>,
}

impl Inside {
    /// Starts it.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, todo) = channel::<(Arc<OwnedFd>, Job)>();
        let home = netns::current_network()?;
        let run = move || {
            for (namespace, job) in todo {
                job(&netns::enter_network(&*namespace));
                drop(namespace);
                // Away from it, so that it can end. A thread that is lost in a namespace is none to go on with.
                if let Err(e) = netns::enter_network(&home) {
                    tracing::error!("names: no way back into the host's network namespace: {e}");
                    return;
                }
            }
        };
        thread::Builder::new().name("names-ns".to_owned()).stack_size(STACK).spawn(run)?;
        Ok(Self { jobs })
    }

    /// Runs this in a namespace and waits.
    pub(super) fn run<T: Send + 'static>(
        &self,
        namespace: &Arc<OwnedFd>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = channel();
        self.send(
            namespace,
            move |result| {
                let _ = tell.send(result);
            },
            work,
        )?;
        told.recv().map_err(|_| gone())?
    }

    /// The same for who must not block.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        namespace: &Arc<OwnedFd>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.send(
            namespace,
            move |result| {
                let _ = tell.send(result);
            },
            work,
        )?;
        told.await.map_err(|_| gone())?
    }

    fn send<T: Send + 'static>(
        &self,
        namespace: &Arc<OwnedFd>,
        tell: impl FnOnce(io::Result<T>) + Send + 'static,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<()> {
        let job: Job = Box::new(move |entered: &io::Result<()>| {
            tell(match entered {
                Ok(()) => work(),
                Err(e) => Err(io::Error::new(e.kind(), format!("entering a network namespace: {e}"))),
            });
        });
        self.jobs.send((namespace.clone(), job)).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread for network namespaces ended")
}
