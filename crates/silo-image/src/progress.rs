//! What long work tells on its way, in the words that docker's client draws.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two bytes counts of one thing.
const PAUSE: Duration = Duration::from_millis(100);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A line of its own.
    Message(String),
    /// A line of its own about something, such as a tag.
    About {
        /// What about.
        id: String,
        /// Sentence.
        text: String,
    },
    /// The state of a layer (12 digits), which replaces the one before.
    State {
        /// Layer.
        id: String,
        /// `Pull complete`.
        state: &'static str,
    },
    /// As [`Told::State`], with more words.
    Remark {
        /// Layer.
        id: String,
        /// `Mounted from library/busybox`.
        state: String,
    },
    /// How far a layer is in a state.
    Bytes {
        /// Layer.
        id: String,
        /// `Downloading`.
        state: &'static str,
        /// Bytes done.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A tag was pushed.
    Pushed {
        /// Tag.
        tag: String,
        /// Of the manifest.
        digest: String,
        /// Bytes of the manifest.
        size: u64,
    },
}

/// Who is told; by any thread.
pub type Tell<'a> = &'a (dyn Fn(Told) + Sync);

/// Tells bytes of one thing, not too often.
pub(crate) struct Meter<'a> {
    tell: Tell<'a>,
    id: String,
    state: &'static str,
    total: u64,
    last: Mutex<Option<Instant>>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(tell: Tell<'a>, id: &str, state: &'static str, total: u64) -> Self {
        Self { tell, id: id.to_owned(), state, total, last: Mutex::new(None) }
    }

    /// So many bytes are done.
    pub(crate) fn at(&self, current: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|l| l.elapsed() < PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        (self.tell)(Told::Bytes { id: self.id.clone(), state: self.state, current, total: self.total });
    }
}
