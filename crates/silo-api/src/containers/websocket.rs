//! attach over a websocket: a container's streams, never framed, in binary messages.
//!
//! The shim gets one end of a socket pair; this is the only stream of a client whose bytes go through the daemon.

use std::time::Duration;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::{SinkExt, StreamExt};
use silo_engine::{AttachOptions, Engine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::version::ApiVersion;

/// How long a client may take to answer the end of its streams.
const CLOSING: Duration = Duration::from_secs(5);
/// Bytes of a message.
const PIECE: usize = 64 << 10;

pub(crate) async fn attach(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    query: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    // Before 1.42 a websocket had all streams, whatever it asked for.
    let all = version.0 < (1, 42);
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: all || query.flag("stdin"),
        stdout: all || query.flag("stdout"),
        stderr: all || query.flag("stderr"),
        raw: true,
        detach_keys: query.get("detachKeys").unwrap_or_default().to_owned(),
    };
    engine.attach_check(&id, &options)?;
    let upgrade = upgrade.map_err(|e| ApiError::bad(e.to_string()))?;
    let announced = engine.announce(&id)?;
    let failed =
        |e: std::io::Error| ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: e.to_string() };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let theirs = theirs.into_std().map_err(failed)?.into();
    let binary = version.0 >= (1, 28);
    Ok(upgrade.on_upgrade(move |socket| async move {
        // Together: the log that is asked for first may be longer than the pair holds.
        let attaching = async {
            let _announced = announced;
            if let Err(e) = engine.attach(&id, options, theirs, Default::default()).await {
                tracing::warn!("attach {id}: {e}");
            }
        };
        tokio::join!(attaching, relay(ours, socket, binary));
    }))
}

/// Copies both ways until one of them ends.
async fn relay(streams: UnixStream, socket: WebSocket, binary: bool) {
    let (mut from_container, mut to_container) = streams.into_split();
    let (mut to_client, mut from_client) = socket.split();
    let input = async {
        while let Some(Ok(message)) = from_client.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => break,
            };
            // A container that takes no input is no reason to end its output.
            let _ = to_container.write_all(&bytes).await;
        }
    };
    let output = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(n @ 1..) = from_container.read(&mut buffer).await {
            let message = if binary {
                Message::binary(buffer[..n].to_vec())
            } else {
                Message::text(String::from_utf8_lossy(&buffer[..n]).into_owned())
            };
            if to_client.send(message).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    tokio::pin!(input);
    tokio::select! {
        () = &mut input => return,
        () = output => {}
    }
    let _ = tokio::time::timeout(CLOSING, input).await;
}
