//! What outlives a build's future, which may be dropped at any time: work that must not be cut off, removals of containers,
//! and the build's directory, which goes when nothing works in it any more.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use silo_engine::{ContainerId, Engine};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Result, blocking};

/// How long the end of a build waits for them; after that they go on by themselves.
const LIMIT: Duration = Duration::from_secs(60);

/// Something that is kept.
pub(crate) type Held = Box<dyn Send>;

#[derive(Default)]
struct Left {
    tasks: Vec<JoinHandle<()>>,
    held: Vec<Held>,
}

/// What goes on while the build does, and after it.
#[derive(Default, Clone)]
pub(crate) struct Removals(Arc<Mutex<Left>>);

impl Removals {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut left = self.left();
        left.tasks.retain(|task| !task.is_finished());
        left.tasks.push(tokio::spawn(work));
    }

    /// Does work to its end, even when nobody waits for it any more: its result goes then.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (to, from) = oneshot::channel();
        self.spawn(async move {
            if let Err(unwanted) = to.send(work.await) {
                let _ = tokio::task::spawn_blocking(move || drop(unwanted)).await;
            }
        });
        from.await.unwrap_or_else(|_| Err(Failure::internal("a task panicked")))
    }

    /// The same for work that blocks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.whole(blocking(work)).await
    }

    /// Keeps something to the end; what came last goes first.
    pub(crate) fn hold(&self, held: impl Send + 'static) {
        self.left().held.push(Box::new(held));
    }

    /// Lets something go off the event loop.
    pub(crate) fn let_go(&self, held: Held) {
        self.spawn(async move {
            let _ = tokio::task::spawn_blocking(move || drop(held)).await;
        });
    }

    /// Removes a container, and lets go of what it had.
    pub(crate) fn begin(&self, engine: &Engine, id: ContainerId, held: Option<Held>) {
        let engine = engine.clone();
        self.spawn(async move {
            if let Err(e) = engine.remove(&id.0, true, true).await {
                tracing::warn!("a build's container {id}: {e}");
            }
            let _ = tokio::task::spawn_blocking(move || drop(held)).await;
        });
    }

    /// Waits for all of it, and lets go of what is held.
    pub(crate) async fn finish(&self) {
        let this = self.clone();
        let all = tokio::spawn(async move {
            loop {
                // A task may begin another.
                let tasks = std::mem::take(&mut this.left().tasks);
                if tasks.is_empty() {
                    break;
                }
                for task in tasks {
                    let _ = task.await;
                }
            }
            let mut held = std::mem::take(&mut this.left().held);
            let _ = tokio::task::spawn_blocking(move || while held.pop().is_some() {}).await;
        });
        if tokio::time::timeout(LIMIT, all).await.is_err() {
            tracing::warn!("work of a build that has ended goes on");
        }
    }
}
