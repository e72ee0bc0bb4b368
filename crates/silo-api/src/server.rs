//! The server: accepts on a unix socket, bounds what clients may do, strips the version, routes.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Uri};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use silo_engine::Engine;
use tokio::net::UnixListener;
use tower::ServiceExt;

use crate::build::Client;
use crate::version;

/// How long a client may take to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Bytes a request's head may have.
const HEAD_BYTES: usize = 64 << 10;

/// Serves until `stop` ends. Clients that are attached to containers are not served from here and stay.
pub async fn serve(
    listener: UnixListener,
    engine: Engine,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let router = crate::router::router(engine);
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Out of descriptors, most likely: others may end meanwhile.
                    tracing::warn!("accepting a client: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let router = router.clone();
        let client = match rustix::io::fcntl_dupfd_cloexec(&stream, 0) {
            Ok(end) => Client(Arc::new(end)),
            Err(e) => {
                tracing::warn!("accepting a client: {e}");
                continue;
            }
        };
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(router.clone(), client.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(HEAD_BYTES)
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(e) = connection.await {
                tracing::debug!("a client's connection: {e}");
            }
        });
    }
}

async fn answer(
    router: axum::Router,
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    let path = request.uri().path().to_owned();
    tracing::debug!("{} {}", request.method(), request.uri());
    let mut response = match version::split(&path) {
        Ok((version, rest)) => {
            let whole = match request.uri().query() {
                Some(query) => format!("{rest}?{query}"),
                None => rest.to_owned(),
            };
            if let Ok(uri) = whole.parse::<Uri>() {
                *request.uri_mut() = uri;
            }
            request.extensions_mut().insert(version);
            if matches!(rest, "/build" | "/silo/down") {
                request.extensions_mut().insert(client);
            }
            // A handler's panic is that client's error and nobody else's.
            match tokio::spawn(router.oneshot(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(e) => crate::error::ApiError {
                    status: axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                    message: format!("the request failed inside silo: {e}"),
                }
                .into_response(),
            }
        }
        Err(e) => e.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static("1.50"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers
        .insert("Server", HeaderValue::from_static(concat!("Silo/", env!("CARGO_PKG_VERSION"), " (linux)")));
    Ok(response)
}
