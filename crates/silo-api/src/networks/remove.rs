//! remove, prune.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use silo_engine::Engine;

use crate::error::Answer;
use crate::params::Params;

pub(crate) async fn remove(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.remove_network(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn prune(State(engine): State<Engine>, query: Params) -> Answer {
    let removed = engine.prune_networks(&query.filters()?).await?;
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    Ok(axum::Json(json!({"NetworksDeleted": removed})).into_response())
}
