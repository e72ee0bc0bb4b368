//! attach and logs.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use silo_engine::{AttachOptions, Engine, LogOptions};

use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::stream;
use crate::version::ApiVersion;

pub(crate) async fn attach(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Params,
    mut request: Request,
) -> Answer {
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        raw: false,
        detach_keys: query.get("detachKeys").unwrap_or_default().to_owned(),
    };
    let tty = engine.attach_check(&id, &options)?;
    let announced = engine.announce(&id)?;
    let (response, hijacked) = stream::hijack(&mut request, stream::content_type(version, tty))?;
    tokio::spawn(async move {
        let _announced = announced;
        let result = match hijacked.socket().await {
            Ok((io, read_ahead)) => engine.attach(&id, options, io, read_ahead).await,
            Err(e) => return tracing::debug!("attach {id}: {e}"),
        };
        if let Err(e) = result {
            tracing::warn!("attach {id}: {e}");
        }
    });
    Ok(response)
}

pub(crate) async fn logs(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Params,
) -> Answer {
    let time = |name: &str| -> Answer<_> {
        let given = query.get(name).filter(|t| *t != "0");
        Ok(given.map(silo_engine::time::parse).transpose()?)
    };
    let tail = match query.get("tail") {
        None | Some("all") => None,
        Some(text) => Some(
            text.parse::<i64>()
                .map_err(|_| ApiError::bad(format!("invalid value for \"tail\": {text:?}")))?,
        ),
    };
    let options = LogOptions {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        raw: false,
        since: time("since")?,
        until: time("until")?,
        tail: tail.and_then(|t| u64::try_from(t).ok()),
    };
    let log = engine.logs(&id, options).await?;
    let kind = stream::content_type(version, log.tty);
    Ok(([(header::CONTENT_TYPE, kind)], stream::body(log.bytes)).into_response())
}
