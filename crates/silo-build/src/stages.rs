//! What the stages of a build share, and what becomes of each.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use silo_engine::Engine;
use silo_engine::images::{Platform, State};
use tokio::sync::{OnceCell, Semaphore};

use crate::base::Bases;
use crate::copy::{Hashes, Tree};
use crate::dockerfile::Scope;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::plan::Plan;
use crate::removals::Removals;
use crate::request::BuildRequest;
use crate::warnings::Warnings;

/// Builds the stage of an index.
pub(crate) type BuildStage = for<'s> fn(&'s Work<'s>, usize) -> BoxFuture<'s, Result<StageEnd>>;

/// What all stages of a build have.
pub(crate) struct Work<'w> {
    pub(crate) engine: &'w Engine,
    pub(crate) request: &'w BuildRequest,
    pub(crate) output: &'w Output,
    pub(crate) removals: &'w Removals,
    /// A directory of the build's own.
    pub(crate) scratch: &'w Path,
    pub(crate) context: Arc<Tree>,
    pub(crate) hashes: Arc<Hashes>,
    /// How messages call the Dockerfile.
    pub(crate) file: String,
    pub(crate) plan: Plan,
    pub(crate) cache_from: Vec<State>,
    pub(crate) warnings: Warnings,
    /// What is built for, where nobody says otherwise.
    pub(crate) platform: Platform,
    pub(crate) ends: Vec<OnceCell<StageEnd>>,
    /// How one is built.
    pub(crate) build: BuildStage,
    /// Turns of containers that run at once.
    pub(crate) running: Semaphore,
}

/// What a stage has become.
pub(crate) struct StageEnd {
    pub(crate) state: Arc<State>,
    /// What it began with.
    pub(crate) base: Arc<State>,
    pub(crate) scope: Scope,
}

impl<'w> Work<'w> {
    pub(crate) fn bases(&self) -> Bases<'w> {
        Bases { engine: self.engine, pull: self.request.pull, credentials: &self.request.credentials }
    }

    /// Images that stand for the cache, if any were named.
    pub(crate) fn cache_from(&self) -> Option<&[State]> {
        (!self.request.cache_from.is_empty()).then_some(self.cache_from.as_slice())
    }

    /// A stage's end; it is built by who needs it first.
    pub(crate) fn stage<'s>(&'s self, index: usize) -> BoxFuture<'s, Result<&'s StageEnd>> {
        async move {
            let end = self.ends.get(index).ok_or_else(|| Failure::internal("no such stage"))?;
            end.get_or_try_init(|| (self.build)(self, index)).await
        }
        .boxed()
    }

    /// Number of a stage's `FROM` among the build's steps, from 1.
    pub(crate) fn first_step(&self, index: usize) -> usize {
        let before = self.plan.stages[..index].iter().filter(|stage| stage.needed);
        self.plan.arguments.len() + before.map(|stage| 1 + stage.steps.len()).sum::<usize>() + 1
    }

    /// How a stage's lines begin: as its name where others may run at the same time.
    pub(crate) fn label(&self, index: usize) -> String {
        let needed: Vec<usize> =
            (0..self.plan.stages.len()).filter(|i| self.plan.stages[*i].needed).collect();
        // A row of stages, each with the one before.
        let in_row = needed.windows(2).all(|two| self.plan.stages[two[1]].needs.contains(&two[0]));
        match (in_row, &self.plan.stages[index].name) {
            (true, _) => String::new(),
            (false, Some(name)) => name.clone(),
            (false, None) => format!("stage {index}"),
        }
    }
}
