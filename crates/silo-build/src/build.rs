//! A build from its request to its image: context, stages that run as soon as what they need is there, names.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use silo_engine::images::Reference;
use silo_engine::{ByteStream, Engine, EngineError};
use tokio::sync::{mpsc, oneshot};

use crate::cancel::Cancellable;
use crate::failure::Failure;
use crate::output::Output;
use crate::removals::Removals;
use crate::request::{BuildRequest, ContextSource};

/// Lines that a client may be behind.
const BEHIND: usize = 64;

/// Begins a build; what it tells comes out of the stream. It ends when `gone` does, or when nobody reads the stream: then
/// nothing of it is left.
///
/// # Errors
/// What is wrong before there was anything to tell.
pub async fn build(
    engine: &Engine,
    request: BuildRequest,
    source: ContextSource,
    gone: impl Future<Output = ()> + Send + 'static,
) -> std::result::Result<ByteStream, EngineError> {
    let names = request.tags.iter().map(|tag| match Reference::parse(tag) {
        Ok(name) if name.digest.is_some() => {
            Err(EngineError::invalid("refusing to create a tag with a digest reference"))
        }
        Ok(name) => Ok(name),
        Err(e) => Err(EngineError::invalid(e.to_string())),
    });
    let names = names.collect::<std::result::Result<Vec<Reference>, EngineError>>()?;
    let (to, lines) = mpsc::channel(BEHIND);
    let (begins, begun) = oneshot::channel();
    let engine = engine.clone();
    tokio::spawn(async move {
        let unread = to.clone();
        let output = Output::new(to, request.quiet, begins);
        let removals = Removals::default();
        let mut cancellable = Cancellable::new(&request.id);
        let work = crate::work::work(&engine, &request, source, &names, &output, &removals);
        let result = tokio::select! {
            // A stream without an error would be a success.
            result = AssertUnwindSafe(work).catch_unwind() => {
                result.unwrap_or_else(|_| Err(Failure::internal("the build panicked")))
            }
            () = gone => Ok(()),
            () = unread.closed() => Ok(()),
            () = cancellable.cancelled() => Err(Failure::invalid("build cancelled")),
        };
        // Containers go before the client hears of the end.
        removals.finish().await;
        engine.trim_build_cache();
        if let Err(failure) = result {
            output.failed(failure).await;
        }
    });
    match begun.await {
        Ok(Err(failure)) => Err(failure.into()),
        _ => Ok(lines),
    }
}
