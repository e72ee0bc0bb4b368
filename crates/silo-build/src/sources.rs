//! Where files come from: the context, and what `ADD` fetches.

use std::path::Path;
use std::sync::Arc;

use silo_engine::Engine;
use silo_image::Cancel;

use crate::context::{Context, ContextError, clone, fetch, git_source, is_url};
use crate::copy::{Exclude, Item};
use crate::dockerfile::ast::Transfer;
use crate::failure::{Failure, Result};
use crate::ignore::Ignore;
use crate::removals::Removals;
use crate::request::ContextSource;
use crate::stages::Work;

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        match error {
            ContextError::Io { .. } => Self::internal(error.to_string()),
            error => Self::invalid(error.to_string()),
        }
    }
}

/// Ends a download when whoever waits for it is gone.
struct OnDrop(Cancel);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Gets the context, without what is ignored; the Dockerfile, and how that is called.
pub(crate) async fn context(
    engine: &Engine,
    removals: &Removals,
    scratch: &Path,
    source: ContextSource,
    name: &str,
) -> Result<(Context, String, String)> {
    let (directory, name) = (scratch.join("context"), name.to_owned());
    let (registries, cancel) = (engine.config().registries.clone(), Cancel::default());
    let _end = OnDrop(cancel.clone());
    let limits = crate::room::limits(engine)?;
    let received = removals.blocking(move || {
        let context = match source {
            ContextSource::Archive(body) => Context::receive(body, &directory, &limits)?,
            ContextSource::Remote(url) => Context::remote(&url, &directory, &registries, &cancel, &limits)?,
        };
        let (text, file) = context.dockerfile(&name)?;
        if let Some(patterns) = context.ignore_file(&file)? {
            let ignore = Ignore::parse(patterns.as_bytes())
                .map_err(|e| Failure::invalid(format!("error reading .dockerignore: {e}")))?;
            if !ignore.is_empty() {
                let is_ignored = |path: &Path| ignore.is_ignored(&path.to_string_lossy());
                context.leave_out(&is_ignored)?;
            }
        }
        Ok((context, text, file))
    });
    received.await
}

/// A source of `ADD` that is an URL, fetched into a directory; `None`: it is a path.
pub(crate) async fn fetched(
    work: &Work<'_>,
    transfer: &Transfer,
    source: &str,
    directory: &Path,
) -> Result<Option<Item>> {
    let (registries, cancel) = (work.engine.config().registries.clone(), Cancel::default());
    let _end = OnDrop(cancel.clone());
    let to = directory.join(format!("{:016x}", rand::random::<u64>()));
    let (source, checksum) = (source.to_owned(), transfer.checksum.clone());
    let keep_git = transfer.keep_git_dir;
    if let Some(git) = git_source(&source) {
        if checksum.is_some() {
            return Err(Failure::invalid(format!("checksum is not supported for git sources: {source}")));
        }
        let cloned = work.removals.blocking(move || {
            std::fs::create_dir(&to)
                .map_err(|e| Failure::internal(format!("making {}: {e}", to.display())))?;
            clone(&git, &to, keep_git, &registries, &cancel)?;
            Ok(Item::Directory { path: to, url: source })
        });
        return cloned.await.map(Some);
    }
    if !is_url(&source) {
        return match checksum {
            Some(_) => Err(Failure::invalid("checksum can't be specified for non-HTTP(S) sources")),
            None => Ok(None),
        };
    }
    let got = work.removals.blocking(move || {
        let file = fetch(&source, checksum.as_deref(), &to, &registries, &cancel)?;
        Ok(Item::Fetched(file))
    });
    got.await.map(Some)
}

/// What `--exclude` leaves out.
pub(crate) fn exclude(patterns: &[String]) -> Result<Option<Exclude>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let ignore = Ignore::of(patterns.iter().map(String::as_str)).map_err(Failure::invalid)?;
    Ok(Some(Exclude(Arc::new(move |path| ignore.is_ignored(&path.to_string_lossy())))))
}
