//! The work of a build, as one future: what it holds goes when it is dropped.

use std::sync::Arc;

use futures_util::future::{FutureExt, try_join_all};
use silo_engine::Engine;
use silo_engine::images::{Platform, Reference};
use tokio::sync::{OnceCell, Semaphore};

use crate::copy::Hashes;
use crate::dockerfile::ast::CheckOptions;
use crate::dockerfile::{CHECK_ARGUMENT, check, parse};
use crate::failure::{Failure, Result};
use crate::output::{Output, StageOutput};
use crate::plan::{Plan, PlanOptions};
use crate::removals::Removals;
use crate::request::{BuildRequest, ContextSource};
use crate::stages::Work;
use crate::warnings::Warnings;

/// The platform that a build is for, and the one that it runs on.
fn platforms(request: &BuildRequest) -> Result<(Platform, Platform)> {
    let host = Platform::parse("linux").map_err(Failure::invalid)?;
    let wanted = match request.platform.as_str() {
        "" => host.clone(),
        text => Platform::parse(text).map_err(Failure::invalid)?,
    };
    Ok((wanted, host))
}

pub(crate) async fn work(
    engine: &Engine,
    request: &BuildRequest,
    source: ContextSource,
    names: &[Reference],
    output: &Output,
    removals: &Removals,
) -> Result<()> {
    let made = tempfile::Builder::new().prefix("build-").tempdir_in(engine.scratch());
    let scratch = made.map_err(|e| Failure::internal(format!("making a directory for the build: {e}")))?;
    let directory = scratch.path().to_owned();
    removals.hold(scratch);
    let (context, text, file) =
        crate::sources::context(engine, removals, &directory, source, &request.dockerfile).await?;
    let tree = Arc::new(context.tree());
    removals.hold(context);
    let dockerfile = parse(text.as_bytes()).map_err(Failure::from)?;
    let (platform, build_platform) = platforms(request)?;
    let options = PlanOptions {
        build_args: request.arguments.clone(),
        target: Some(request.target.clone()).filter(|t| !t.is_empty()),
        platform: platform.clone(),
        build_platform,
    };
    let plan = Plan::of(&dockerfile, &options).map_err(Failure::from)?;
    let warnings = Warnings::new(match request.arguments.get(CHECK_ARGUMENT).and_then(Option::as_deref) {
        Some(text) => CheckOptions::parse(text).map_err(Failure::invalid)?,
        None => dockerfile.checks.clone(),
    });
    if warnings.wants("NoEmptyContinuation") {
        for (warning, _) in &dockerfile.warnings {
            output.say(&format!("[Warning] {warning}\n")).await;
        }
    }
    let found = check(&dockerfile, &|index| plan.stages.get(index).is_some_and(|stage| stage.needed));
    if let Err(failure) = warnings.add(found) {
        warnings.tell(output, &file).await;
        return Err(failure);
    }
    let total = plan.step_count();
    for (number, step) in plan.arguments.iter().enumerate() {
        output.say(&format!("Step {}/{total} : {}\n", number + 1, step.text)).await;
    }
    // Those that are not here are no cache.
    let cache_from = request.cache_from.iter().filter_map(|name| engine.images().state(name).ok()).collect();
    let work = Work {
        engine,
        request,
        output,
        removals,
        scratch: &directory,
        context: tree,
        hashes: Arc::new(Hashes::default()),
        file,
        build: |work, index| crate::stage::build(work, index).boxed(),
        ends: plan.stages.iter().map(|_| OnceCell::new()).collect(),
        plan,
        platform,
        cache_from,
        warnings,
        running: Semaphore::new(2 * std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let needed: Vec<usize> = (0..work.plan.stages.len()).filter(|i| work.plan.stages[*i].needed).collect();
    let ends = match try_join_all(needed.iter().map(|index| work.stage(*index))).await {
        Ok(ends) => ends,
        Err(failure) => {
            work.warnings.tell(output, &work.file).await;
            return Err(failure);
        }
    };
    let last = ends.last().ok_or_else(|| Failure::internal("no stage was built"))?;
    if let Some(warning) = work.plan.unconsumed(ends.iter().flat_map(|end| end.scope.declared())) {
        output.say(&warning).await;
    }
    let stage = StageOutput::new(output, "");
    let state = match request.squash {
        true => Some(crate::squash::squash(engine, last, &stage).await?),
        false => None,
    };
    let state = state.as_ref().unwrap_or(&last.state);
    let id = engine.enter_built(state, &last.base, names).await?;
    let shown: Vec<String> = names.iter().map(Reference::familiar).collect();
    output.built(&id, &shown).await;
    work.warnings.tell(output, &work.file).await;
    Ok(())
}
