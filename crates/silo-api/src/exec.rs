//! `/exec`: create, start, resize, inspect.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use silo_engine::{Engine, ExecSpec};

use crate::error::Answer;
use crate::params::{self, Params};
use crate::stream;
use crate::version::ApiVersion;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct ExecConfig {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<(u16, u16)>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    cmd: Vec<String>,
}

pub(crate) async fn create(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let config: ExecConfig = params::json(body).await?;
    let spec = ExecSpec {
        cmd: config.cmd,
        env: config.env,
        user: config.user,
        working_dir: config.working_dir,
        tty: config.tty,
        attach_stdin: config.attach_stdin,
        attach_stdout: config.attach_stdout,
        attach_stderr: config.attach_stderr,
        privileged: config.privileged,
        detach_keys: config.detach_keys,
        console_size: config.console_size.unwrap_or_default(),
    };
    let exec = engine.exec_create(&id, spec).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({"Id": exec}))).into_response())
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct ExecStart {
    detach: bool,
    tty: bool,
    console_size: Option<(u16, u16)>,
}

pub(crate) async fn start(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    mut request: Request,
) -> Answer {
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let config: ExecStart = params::json(body).await?;
    engine.exec_check(&id)?;
    let size = config.console_size.unwrap_or_default();
    if config.detach {
        engine.exec_start(&id, size, None, Bytes::new()).await?;
        return Ok(StatusCode::OK.into_response());
    }
    // As dockerd: the start, not the exec, says whether the stream is framed.
    let framed = !config.tty;
    let (response, hijacked) = stream::hijack(&mut request, stream::content_type(version, !framed))?;
    tokio::spawn(async move {
        let result = match hijacked.socket().await {
            Ok((io, read_ahead)) => engine.exec_start(&id, size, Some((io, framed)), read_ahead).await,
            Err(e) => return tracing::debug!("exec {id}: {e}"),
        };
        if let Err(e) = result {
            // The shim, or the engine in its place, has told the client.
            tracing::debug!("exec {id}: {e}");
        }
    });
    Ok(response)
}

pub(crate) async fn resize(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let (rows, cols) = crate::containers::size(&query)?;
    engine.exec_resize(&id, rows, cols).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn inspect(State(engine): State<Engine>, Path(id): Path<String>) -> Answer<Response> {
    let exec = engine.exec_inspect(&id).await?;
    let (program, arguments) =
        exec.spec.cmd.split_first().map_or((String::new(), vec![]), |(p, a)| (p.clone(), a.to_vec()));
    Ok(axum::Json(json!({
        "ID": exec.id, "Running": exec.running, "ExitCode": exec.exit_code,
        "ProcessConfig": {"tty": exec.spec.tty, "entrypoint": program, "arguments": arguments,
            "privileged": exec.spec.privileged, "user": exec.spec.user},
        "OpenStdin": exec.spec.attach_stdin, "OpenStderr": exec.spec.attach_stderr, "OpenStdout": exec.spec.attach_stdout,
        "CanRemove": exec.exit_code.is_some(), "ContainerID": exec.container, "DetachKeys": "", "Pid": exec.pid,
    }))
    .into_response())
}
