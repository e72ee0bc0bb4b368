//! A step as a container of the engine: made, started, listened to, and removed however the step ends.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use silo_engine::images::BuiltLayer;
use silo_engine::{AttachOptions, ContainerId, ContainerSpec, Engine, Healthcheck, LogConfig, WaitCondition};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};
use crate::output::{StageOutput, Stream};
use crate::removals::{Held, Removals};

/// Bytes of a frame's head: stream, three zeros, length (Docker API, "Stream format").
const HEAD: usize = 8;
/// How long output may come after a program's end.
const AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// What becomes of a step's container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// It stays when the step has succeeded.
    pub(crate) successful: bool,
    /// It stays when the step has failed.
    pub(crate) failed: bool,
}

/// A container that goes with this.
struct Owned {
    engine: Engine,
    id: Option<ContainerId>,
    /// What it uses: mounts, turns.
    held: Option<Held>,
    removals: Removals,
}

impl Drop for Owned {
    fn drop(&mut self) {
        match (self.id.take(), self.held.take()) {
            (Some(id), held) => self.removals.begin(&self.engine, id, held),
            (None, Some(held)) => self.removals.let_go(held),
            (None, None) => {}
        }
    }
}

/// A program to run.
pub(crate) struct Program {
    /// Container with image, command, environment and mounts.
    pub(crate) spec: ContainerSpec,
    /// The command as an error names it.
    pub(crate) shown: String,
    /// Directories of its mounts that nobody else has.
    pub(crate) own: Vec<PathBuf>,
    /// What goes when the program does not run any more.
    pub(crate) held: Held,
}

/// Runs a program in a container of its own; the layer of what it has changed, `None` if that is nothing.
pub(crate) async fn run(
    engine: &Engine,
    mut program: Program,
    keep: Keep,
    removals: &Removals,
    output: &mut StageOutput<'_>,
) -> Result<Option<BuiltLayer>> {
    let spec = &mut program.spec;
    // Nothing of an image's own start is wanted.
    spec.config.healthcheck = Some(Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() });
    spec.config.entrypoint = Some(Vec::new());
    spec.log = LogConfig { driver: "none".to_owned(), ..Default::default() };
    spec.of_build = true;
    let mut owned =
        Owned { engine: engine.clone(), id: None, held: Some(program.held), removals: removals.clone() };
    // It is made even if nobody waits for it any more: then it goes at once.
    let made = removals.whole(async move {
        let (id, _) = owned.engine.create(None, program.spec).await?;
        owned.id = Some(id.clone());
        Ok((owned, id))
    });
    let (mut owned, id) = made.await?;
    output.say(&format!(" ---> Running in {}", id.short())).await;
    let code = listen(engine, &id, output).await?;
    if code != 0 {
        if keep.failed {
            keep_container(engine, &mut owned, &program.own)?;
        }
        return Err(Failure::exit(
            format!("The command '{}' returned a non-zero code: {code}", program.shown),
            code,
        ));
    }
    let layer = engine.layer_of_container(&id.0, !keep.successful).await?;
    if keep.successful {
        keep_container(engine, &mut owned, &program.own)?;
    } else {
        output.say(&format!(" ---> Removed intermediate container {}", id.short())).await;
    }
    // It has ended: the next step, which may want the same, need not wait for its removal.
    if let Some(held) = owned.held.take() {
        removals
            .blocking(move || {
                drop(held);
                Ok(())
            })
            .await?;
    }
    Ok(layer)
}

/// It is the user's from now on, and its image with it, and the directories that are its own.
fn keep_container(engine: &Engine, owned: &mut Owned, own: &[PathBuf]) -> Result<()> {
    if let Some(id) = owned.id.take() {
        engine.hand_over(&id.0, own)?;
    }
    Ok(())
}

/// Starts a container and passes on what it writes, to its end; its exit code.
async fn listen(engine: &Engine, id: &ContainerId, output: &mut StageOutput<'_>) -> Result<u32> {
    let failed = |e: std::io::Error| Failure::internal(format!("the output of {id}: {e}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let theirs: OwnedFd = theirs.into_std().map_err(failed)?.into();
    let options = AttachOptions { stream: true, stdout: true, stderr: true, ..Default::default() };
    engine.attach(&id.0, options, theirs, bytes::Bytes::new()).await?;
    let ended = engine.wait(&id.0, WaitCondition::NextExit)?;
    engine.start(&id.0, None).await?;
    let mut frames = Frames { from: ours, buffer: Vec::new() };
    tokio::pin!(ended);
    let mut outcome = None;
    loop {
        let frame = frames.next();
        let next = match &outcome {
            None => tokio::select! {
                frame = frame => frame,
                // It may hold what is being read.
                ended = &mut ended => {
                    outcome = Some(ended);
                    continue;
                }
            },
            Some(_) => match tokio::time::timeout(AFTER, frame).await {
                Ok(frame) => frame,
                Err(_) => Ok(None),
            },
        };
        match next.map_err(failed)? {
            Some((stream, bytes)) => output.program(stream, &bytes).await,
            None => break,
        }
    }
    output.end_program().await;
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => ended.await,
    };
    match outcome.error {
        Some(error) => Err(Failure::internal(error)),
        None => Ok(outcome.exit_code),
    }
}

/// Docker's frames; cancelling a read loses nothing.
struct Frames {
    from: UnixStream,
    buffer: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> std::io::Result<Option<(Stream, Vec<u8>)>> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<HEAD>() {
                let stream = if head[0] == 2 { Stream::Err } else { Stream::Out };
                let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
                if self.buffer.len() >= HEAD + length {
                    let bytes = self.buffer[HEAD..HEAD + length].to_vec();
                    self.buffer.drain(..HEAD + length);
                    return Ok(Some((stream, bytes)));
                }
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}
