//! create.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use silo_engine::Engine;

use super::decode;
use crate::error::Answer;
use crate::params::{self, Params};
use crate::version::ApiVersion;

pub(crate) async fn create(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Params,
    body: Body,
) -> Answer {
    let value = params::json_value(body).await?;
    let mut spec = decode::create(value, version)?;
    query.get("platform").unwrap_or_default().clone_into(&mut spec.platform);
    let name = query.get("name").map(str::to_owned);
    let (id, warnings) = engine.create(name, spec).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({"Id": id, "Warnings": warnings}))).into_response())
}
