//! Bytes both ways: hijacked connections, streamed bodies, bodies as readers.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use silo_engine::ByteStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::error::{Answer, ApiError};
use crate::version::ApiVersion;

/// A body that sends what comes out of the channel.
pub(crate) fn body(mut stream: ByteStream) -> Body {
    Body::from_stream(futures_util::stream::poll_fn(move |cx| stream.poll_recv(cx)))
}

/// How long a client may go on sending what nobody reads.
const REST_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A request's body as a blocking reader.
pub(crate) fn reader(body: Body) -> Box<dyn Read + Send> {
    let (to, from) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            if to.send(piece.map_err(io::Error::other)).await.is_err() {
                break;
            }
        }
        // A client that cannot send does not read why.
        let rest = async { while let Some(Ok(_)) = pieces.next().await {} };
        let _ = tokio::time::timeout(REST_LIMIT, rest).await;
    });
    Box::new(BodyReader { from, rest: Bytes::new() })
}

struct BodyReader {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// Content type of attached streams.
pub(crate) fn content_type(version: ApiVersion, tty: bool) -> &'static str {
    if !tty && version.0 >= (1, 42) {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// What the client gets at once, and where its connection will be.
pub(crate) enum Hijacked {
    /// It asked for an upgrade: its own socket, once the 101 is sent.
    Upgrade(OnUpgrade),
    /// It did not: one end of a pair, whose other end is the response's body.
    Pair(OwnedFd),
}

impl Hijacked {
    /// The socket and what was read from it already.
    pub(crate) async fn socket(self) -> io::Result<(OwnedFd, Bytes)> {
        match self {
            Self::Pair(fd) => Ok((fd, Bytes::new())),
            Self::Upgrade(on) => {
                let upgraded = on.await.map_err(io::Error::other)?;
                let parts = upgraded
                    .downcast::<TokioIo<UnixStream>>()
                    .map_err(|_| io::Error::other("the connection is no unix socket"))?;
                Ok((parts.io.into_inner().into_std()?.into(), parts.read_buf))
            }
        }
    }
}

/// Answers a request for a raw stream.
pub(crate) fn hijack<B>(
    request: &mut Request<B>,
    content_type: &'static str,
) -> Answer<(Response<Body>, Hijacked)> {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    if upgrade && let Some(on) = request.extensions_mut().remove::<OnUpgrade>() {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        return Ok((response, Hijacked::Upgrade(on)));
    }
    let failed =
        |e: io::Error| ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: e.to_string() };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (to, from) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            if ours.readable().await.is_err() {
                return;
            }
            let mut buffer = vec![0; 64 << 10];
            match ours.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    buffer.truncate(n);
                    if to.send(Ok(Bytes::from(buffer))).await.is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
    let mut response = Response::new(body(from));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok((response, Hijacked::Pair(theirs.into_std().map_err(failed)?.into())))
}
