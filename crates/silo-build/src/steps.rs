//! One stage's states, step by step: from the cache, or made.

use jiff::Timestamp;
use silo_engine::images::{BuiltLayer, ContainerConfig, Digest, HistoryEntry, NextState, State};
use silo_engine::{CacheRecord, Engine, InUse, REGULAR};

use crate::failure::{Failure, Result};
use crate::key::key;
use crate::output::StageOutput;

/// A step that is about to be taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Step {
    /// The config after it.
    pub(crate) config: ContainerConfig,
    /// Its line of history.
    pub(crate) created_by: String,
    /// The author from now on.
    pub(crate) author: Option<String>,
    /// What its result follows from, beside what comes before and the line of history.
    pub(crate) meaning: Vec<String>,
    /// The line of history does not say all that is done: it stands for no such step of another image.
    pub(crate) hidden: bool,
}

/// Where a stage stands.
pub(crate) struct Steps<'s> {
    pub(crate) engine: &'s Engine,
    pub(crate) state: State,
    /// Steps are never found.
    pub(crate) no_cache: bool,
    /// Images whose history stands for steps, instead of what is kept here.
    pub(crate) cache_from: Option<&'s [State]>,
    /// Key of the last step that is kept.
    parent: Option<String>,
    in_use: Vec<InUse>,
    /// Keys that were found.
    used: Vec<String>,
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.engine.note_used(self.used.iter().map(String::as_str)) {
            tracing::warn!("the cache of builds: {e}");
        }
    }
}

fn failed(error: silo_engine::images::ImageError) -> Failure {
    Failure::internal(error.to_string())
}

impl<'s> Steps<'s> {
    pub(crate) fn new(
        engine: &'s Engine,
        state: State,
        no_cache: bool,
        cache_from: Option<&'s [State]>,
    ) -> Self {
        Self { engine, state, no_cache, cache_from, parent: None, in_use: Vec::new(), used: Vec::new() }
    }

    /// The last state of the stage.
    pub(crate) fn last(&self) -> Result<State> {
        self.engine.images().state(self.state.id.as_str()).map_err(failed)
    }

    fn next(&self, step: &Step, entry: HistoryEntry, layer: Option<Digest>) -> Result<State> {
        let next = NextState { config: step.config.clone(), entry, layer, author: step.author.clone() };
        self.engine.images().next_state(&self.state, next).map_err(failed)
    }

    /// The result of a step as a build before has left it.
    fn found(&mut self, step: &Step, key: &str) -> Option<State> {
        if self.no_cache {
            return None;
        }
        // As dockerd: who names images wants no others' results.
        if self.cache_from.is_none()
            && let Some((record, in_use)) = self.engine.cached(key)
            // Its layers may have gone since it was kept: then it is none.
            && let Ok(state) = self.next(step, record.entry.clone(), record.layer.clone())
        {
            self.in_use.push(in_use);
            self.used.push(key.to_owned());
            self.parent = Some(key.to_owned());
            return Some(state);
        }
        self.of_images(step)
    }

    /// The result of a step as an image's history has it.
    fn of_images(&self, step: &Step) -> Option<State> {
        if step.hidden {
            return None;
        }
        let own = &self.state.config;
        self.cache_from?.iter().find_map(|image| {
            let theirs = &image.config;
            let is_same = |(a, b): (&HistoryEntry, &HistoryEntry)| {
                a.created_by == b.created_by && a.empty_layer == b.empty_layer
            };
            let (at, layers) = (own.history.len(), own.rootfs.diff_ids.len());
            let entry = theirs.history.get(at)?;
            let begins = theirs.rootfs.diff_ids.starts_with(&own.rootfs.diff_ids)
                && own.history.iter().zip(&theirs.history).all(is_same)
                && own.os == theirs.os
                && own.architecture == theirs.architecture;
            if !begins || entry.created_by != step.created_by {
                return None;
            }
            let layer = match entry.empty_layer {
                true => None,
                false => Some(theirs.rootfs.diff_ids.get(layers)?.clone()),
            };
            self.next(step, entry.clone(), layer).ok()
        })
    }

    /// Takes a step if a build before has left it; whether it has.
    pub(crate) async fn find(&mut self, step: &Step, output: &StageOutput<'_>) -> bool {
        let key = key(&self.state, &step.config, &step.created_by, &step.meaning);
        let Some(found) = self.found(step, &key) else { return false };
        output.say(" ---> Using cache").await;
        self.arrive(found, output).await;
        true
    }

    /// Takes a step that has been made; `layer`: of its files, if it has any.
    pub(crate) async fn made(
        &mut self,
        step: Step,
        layer: Option<BuiltLayer>,
        output: &StageOutput<'_>,
    ) -> Result<()> {
        let key = key(&self.state, &step.config, &step.created_by, &step.meaning);
        let entry = HistoryEntry {
            created: Some(Timestamp::now()),
            created_by: step.created_by.clone(),
            empty_layer: layer.is_none(),
            ..Default::default()
        };
        let state = self.next(&step, entry.clone(), layer.as_ref().map(|l| l.diff.clone()))?;
        let record = CacheRecord {
            key: key.clone(),
            kind: REGULAR.to_owned(),
            description: step.created_by,
            parent: self.parent.replace(key),
            entry,
            chain: state.chain(),
            layer: layer.as_ref().map(|l| l.diff.clone()),
            size: layer.as_ref().map_or(0, |l| l.size),
            created: Timestamp::now(),
            last_used: None,
            uses: 0,
        };
        self.in_use.push(self.engine.keep_cached(record, layer)?);
        self.arrive(state, output).await;
        Ok(())
    }

    async fn arrive(&mut self, state: State, output: &StageOutput<'_>) {
        self.state = state;
        output.say(&format!(" ---> {}", &self.state.id.hex()[..12])).await;
    }
}
