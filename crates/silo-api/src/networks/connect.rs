//! connect, disconnect.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::Value;
use silo_engine::Engine;

use crate::containers::decode;
use crate::error::{Answer, ApiError};
use crate::params;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Connect {
    container: String,
    endpoint_config: Value,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Disconnect {
    container: String,
    force: bool,
}

pub(crate) async fn connect(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let connect: Connect = params::json(body).await?;
    if connect.container.is_empty() {
        return Err(ApiError::bad("no container name or ID was given"));
    }
    let endpoint = decode::endpoint(&id, connect.endpoint_config)?;
    engine.connect(&id, &connect.container, endpoint).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn disconnect(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let disconnect: Disconnect = params::json(body).await?;
    engine.disconnect(&id, &disconnect.container, disconnect.force).await?;
    Ok(StatusCode::OK.into_response())
}
