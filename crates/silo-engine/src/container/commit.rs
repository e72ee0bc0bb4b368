//! `commit`: a container's changes as a new image.

use std::sync::Arc;

use crate::engine::{Engine, Entry, blocking};
use crate::error::{EngineError, Result};
use crate::record::Status;
use crate::spec::Config;
use crate::{image, placement};

use super::keeper::Writable;

/// How to commit.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// `name[:tag]`.
    pub reference: Option<String>,
    /// Author.
    pub author: String,
    /// Comment.
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Overrides of the container's config.
    pub config: Option<Config>,
}

impl Engine {
    /// Makes an image of a container; returns its ID.
    pub async fn commit(&self, name: &str, options: CommitOptions) -> Result<String> {
        let (engine, entry) = (self.clone(), self.find(name)?);
        // A task of its own: who waits may go, and a removal must still wait for the files to be read.
        let made = tokio::spawn(async move { engine.commit_entry(&entry, options).await });
        made.await.map_err(|e| EngineError::internal(format!("a task panicked: {e}")))?
    }

    async fn commit_entry(&self, entry: &Arc<Entry>, options: CommitOptions) -> Result<String> {
        let _verb = entry.verb.lock().await;
        let record = entry.record();
        match record.state.status {
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict(format!(
                    "You cannot commit container {} which is being removed",
                    entry.id
                )));
            }
            _ => {}
        }
        let frozen = match record.state.status {
            Status::Running if options.pause => self.flush_and_freeze(entry, Err).await?,
            _ => {
                self.write_out(entry).await?;
                false
            }
        };
        let engine = self.clone();
        let from = record.clone();
        let commit = move |top: Writable| {
            let guest = placement::guest(from.os)?;
            let config = options.config.as_ref().unwrap_or(&from.spec.config);
            let request = silo_image::Commit {
                parent: from.image_id.clone(),
                config: image::container_config(config),
                changes: options.changes,
                author: options.author,
                message: options.message,
                reference: options.reference,
                container: from.id.0.clone(),
                created_by: from
                    .spec
                    .config
                    .entrypoint
                    .iter()
                    .flatten()
                    .chain(from.spec.config.cmd.iter().flatten())
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(" "),
                rules: image::rules(guest),
            };
            let layers = engine.inner.images.chain(&from.image_id).map_err(image::error)?;
            let now = jiff::Timestamp::now();
            let changes = silo_guest::Changes {
                layers: &layers,
                top: Some(top.path()),
                user: &from.spec.config.user,
                time: (now.as_second(), i64::from(now.subsec_nanosecond())),
            };
            image::captured(guest, &changes, |write| engine.inner.images.commit(request, write))
        };
        let result = match self.writable(entry).await {
            Ok(top) => blocking(move || commit(top)).await,
            Err(e) => Err(e),
        };
        if frozen && let Ok(sandbox) = entry.running() {
            let _ = sandbox.freeze(false).await;
        }
        let id = result?;
        self.inner.events.container(&record, "commit", &[("imageID", id.clone())]);
        Ok(id)
    }
}
