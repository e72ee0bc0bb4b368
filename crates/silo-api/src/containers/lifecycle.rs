//! start, stop, restart, kill, pause, unpause, rename, resize, wait, remove, prune.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::json;
use silo_engine::{Engine, WaitCondition};

use crate::error::{Answer, ApiError};
use crate::params::Params;

const DONE: StatusCode = StatusCode::NO_CONTENT;

pub(crate) async fn start(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.start(&id, None).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn stop(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    engine.stop(&id, query.get("signal"), query.number("t")?).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn restart(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    engine.restart(&id, query.get("signal"), query.number("t")?).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn kill(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    engine.kill(&id, query.get("signal").unwrap_or_default()).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn pause(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.pause(&id).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn unpause(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    engine.unpause(&id).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn rename(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    engine.rename(&id, query.get("name").unwrap_or_default()).await?;
    Ok(DONE.into_response())
}

pub(crate) async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let (rows, cols) = super::size(&query)?;
    engine.resize(&id, rows, cols).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn wait(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let condition = match query.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::bad(format!("invalid condition: {other:?}"))),
    };
    let outcome = engine.wait(&id, condition)?;
    // The head goes out at once: the client starts the container only when it has it.
    let text = async move {
        let outcome = outcome.await;
        let mut answer = json!({"StatusCode": outcome.exit_code});
        if let Some(error) = outcome.error {
            answer["Error"] = json!({"Message": error});
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{answer}\n")))
    };
    let body = Body::from_stream(futures_util::stream::once(text));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub(crate) async fn remove(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    if query.flag("link") {
        engine.remove_link(&id)?;
        return Ok(DONE.into_response());
    }
    engine.remove(&id, query.flag("force"), query.flag("v")).await?;
    Ok(DONE.into_response())
}

/// `DELETE /containers/holder/alias?link=1`: a link's name has a slash in it.
pub(crate) async fn remove_link(
    State(engine): State<Engine>,
    Path((holder, alias)): Path<(String, String)>,
    query: Params,
) -> Answer {
    let name = format!("{holder}/{alias}");
    if !query.flag("link") {
        return Err(ApiError::not_found(format!("No such container: {name}")));
    }
    engine.remove_link(&name)?;
    Ok(DONE.into_response())
}

pub(crate) async fn prune(State(engine): State<Engine>, query: Params) -> Answer {
    let (removed, bytes) = engine.prune_containers(&query.filters()?).await?;
    Ok(axum::Json(json!({"ContainersDeleted": removed, "SpaceReclaimed": bytes})).into_response())
}
