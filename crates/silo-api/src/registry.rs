//! `/silo/registry`: beyond Docker's API, for `silo registry`.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use silo_engine::Engine;

use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::stream;

/// `of`: a container or image; `original`: as it was before its own changes. A tar of hive files.
pub(crate) async fn get(State(engine): State<Engine>, query: Params) -> Answer {
    let of = query.get("of").filter(|of| !of.is_empty());
    let of = of.ok_or_else(|| ApiError::bad("missing parameter: of"))?;
    let tar = engine.windows_registry(of, query.flag("original")).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], stream::body(tar)).into_response())
}
