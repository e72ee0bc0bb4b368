//! Builds that are under way, by the names that clients gave them, to be ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Clients may give one name to several.
type Running = HashMap<String, Vec<watch::Sender<bool>>>;

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a build; one that there is not is none.
pub fn cancel(id: &str) {
    for build in running().as_ref().and_then(|all| all.get(id)).into_iter().flatten() {
        build.send_replace(true);
    }
}

/// A build that can be ended by its ID, as long as this is held.
pub(crate) struct Cancellable {
    id: String,
    wanted: watch::Receiver<bool>,
    sender: watch::Sender<bool>,
}

impl Cancellable {
    /// A build without an ID is ended by nobody.
    pub(crate) fn new(id: &str) -> Self {
        let (sender, wanted) = watch::channel(false);
        if !id.is_empty() {
            running().get_or_insert_default().entry(id.to_owned()).or_default().push(sender.clone());
        }
        Self { id: id.to_owned(), wanted, sender }
    }

    /// Ends when somebody wants that.
    pub(crate) async fn cancelled(&mut self) {
        if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let mut running = running();
        let Some(all) = running.as_mut() else { return };
        if let Some(builds) = all.get_mut(&self.id) {
            builds.retain(|sender| !sender.same_channel(&self.sender));
            if builds.is_empty() {
                all.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_one_build_leaves_another_of_its_name() {
        let (first, mut second) = (Cancellable::new("twice"), Cancellable::new("twice"));
        drop(first);
        assert!(!*second.wanted.borrow());
        cancel("twice");
        assert!(*second.wanted.borrow_and_update());
        drop(second);
        assert!(!running().as_ref().unwrap().contains_key("twice"));
    }
}
