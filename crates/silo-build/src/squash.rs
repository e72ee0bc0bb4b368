//! `--squash`: all that a build has added to its base as one layer.

use jiff::Timestamp;
use silo_engine::Engine;
use silo_engine::images::{HistoryEntry, NextState, State};

use crate::failure::{Failure, Result};
use crate::output::StageOutput;
use crate::stages::StageEnd;

pub(crate) async fn squash(engine: &Engine, end: &StageEnd, output: &StageOutput<'_>) -> Result<State> {
    let layer = engine.squashed_layer(&end.base, &end.state).await?;
    let entry = HistoryEntry {
        created: Some(Timestamp::now()),
        comment: format!("merge {} to {}", end.state.id, end.base.id),
        empty_layer: layer.is_none(),
        ..Default::default()
    };
    let next = NextState {
        config: end.state.config.config.clone(),
        entry,
        layer: layer.as_ref().map(|l| l.diff.clone()),
        author: None,
    };
    let state = engine.images().squashed_state(&end.base, &end.state, next);
    let state = state.map_err(|e| Failure::internal(e.to_string()))?;
    output.say(&format!(" ---> {}", &state.id.hex()[..12])).await;
    Ok(state)
}
