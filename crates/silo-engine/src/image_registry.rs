//! Verbs that talk to registries: pull, push, login, search; their progress as docker's client reads it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::ByteStream;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::image::error;
use silo_image::{
    Cancel, Candidate, Checked, Choice, Credentials, Described, ImageError, ImageStore, Platform,
    PullOptions, PushOptions, Reference, Told,
};

/// Lines of progress that a client may be behind.
const BEHIND: usize = 256;

/// The build of Windows that Silo's bases are of (Server 2022).
const WINDOWS_BUILD: &str = "10.0.20348";

/// One line of Docker's progress (jsonmessage).
fn line(told: &Told) -> Value {
    match told {
        Told::Message(text) => json!({"status": text}),
        Told::About { id, text } => json!({"status": text, "id": id}),
        Told::State { id, state } => json!({"status": state, "progressDetail": {}, "id": id}),
        Told::Remark { id, state } => json!({"status": state, "progressDetail": {}, "id": id}),
        Told::Bytes { id, state, current, total } => {
            json!({"status": state, "progressDetail": {"current": current, "total": total}, "id": id})
        }
        Told::Pushed { tag, digest, size } => {
            json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}})
        }
    }
}

fn bytes(value: &Value) -> bytes::Bytes {
    bytes::Bytes::from(format!("{value}\r\n"))
}

/// Work that tells of itself to a client; it ends when the client goes.
struct Telling {
    to: mpsc::Sender<std::io::Result<bytes::Bytes>>,
    cancel: Cancel,
}

impl Telling {
    /// Runs work in a thread; what it tells, and its error, come out of the stream. An error before anything was told is
    /// returned instead, so that it has a status.
    async fn run(
        work: impl FnOnce(&Cancel, silo_image::Tell<'_>) -> std::result::Result<(), ImageError> + Send + 'static,
    ) -> Result<ByteStream> {
        let (to, mut lines) = mpsc::channel(BEHIND);
        let telling = Self { to, cancel: Cancel::default() };
        let (watched, cancel) = (telling.to.clone(), telling.cancel.clone());
        let (ends, ended) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! {
                () = watched.closed() => cancel.cancel(),
                _ = ended => {}
            }
        });
        let (failed, failure) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _ends = ends;
            let told = std::sync::atomic::AtomicBool::new(false);
            let tell = |what: Told| {
                told.store(true, std::sync::atomic::Ordering::Relaxed);
                if telling.to.blocking_send(Ok(bytes(&line(&what)))).is_err() {
                    telling.cancel.cancel();
                }
            };
            let Err(e) = work(&telling.cancel, &tell) else { return };
            if told.into_inner() {
                let text = e.to_string();
                let _ = telling
                    .to
                    .blocking_send(Ok(bytes(&json!({"errorDetail": {"message": text}, "error": text}))));
            } else {
                let _ = failed.send(error(e));
            }
        });
        // Either a first line comes, or the end without one.
        match lines.recv().await {
            Some(first) => {
                let (to, from) = mpsc::channel(BEHIND);
                tokio::spawn(async move {
                    let mut next = Some(first);
                    while let Some(line) = next {
                        if to.send(line).await.is_err() {
                            return;
                        }
                        next = tokio::select! {
                            line = lines.recv() => line,
                            // Dropping the lines tells the work.
                            () = to.closed() => return,
                        };
                    }
                });
                Ok(from)
            }
            None => match failure.await {
                Ok(e) => Err(e),
                Err(_) => Ok(lines),
            },
        }
    }
}

/// Ends work when the request that waits for it is given up.
struct OnDrop(Cancel);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Which image of an index this host takes if nobody says: its own OS's, else Windows', by the base's build if there is one.
fn preferred() -> Vec<Platform> {
    let host = Platform::parse("linux").unwrap_or_default();
    let windows = Platform { os: "windows".to_owned(), ..host.clone() };
    let build = Platform { os_version: WINDOWS_BUILD.to_owned(), ..windows.clone() };
    vec![host, build, windows]
}

impl Engine {
    fn registries(&self) -> &Arc<silo_image::RegistrySettings> {
        &self.inner.config.registries
    }

    /// Pulls `name[:tag|@digest]`, or all tags of it.
    pub async fn image_pull(
        &self,
        name: &str,
        all_tags: bool,
        platform: Option<Platform>,
        credentials: Credentials,
    ) -> Result<ByteStream> {
        let reference = Reference::parse(name).map_err(error)?;
        let options = PullOptions {
            reference,
            all_tags,
            choice: Choice { platform, preferred: preferred() },
            credentials,
        };
        let engine = self.clone();
        Telling::run(move |cancel, tell| {
            let decide = |candidate: &Candidate<'_>| {
                engine.substitute(candidate, &|step| tell(Told::Message(step.to_owned())))
            };
            let name = options.reference.familiar();
            let pulled = engine.inner.images.pull(engine.registries(), &options, &decide, cancel, tell);
            let ids = match pulled {
                Err(ImageError::Registry(e)) if e.is_absence() && !options.all_tags => {
                    let base = engine.stand_in(&options.reference).ok_or(ImageError::Registry(e.clone()))?;
                    tell(Told::Message(format!("{e}")));
                    tell(Told::Message(format!("Status: The local base {base} stands for {name}")));
                    return Ok(());
                }
                other => other?,
            };
            tracing::debug!("pulled {name}: {ids:?}");
            engine.tell_image("pull", &name, &options.reference.familiar_name());
            Ok(())
        })
        .await
    }

    /// Pushes `name[:tag]`, or all tags of it that are here.
    pub async fn image_push(
        &self,
        name: &str,
        all_tags: bool,
        platform: Option<Platform>,
        credentials: Credentials,
    ) -> Result<ByteStream> {
        let reference = Reference::parse(name).map_err(error)?;
        if reference.digest.is_some() {
            return Err(EngineError::invalid("cannot push a digest reference"));
        }
        let options = PushOptions { reference, all_tags, platform, credentials };
        let engine = self.clone();
        Telling::run(move |cancel, tell| {
            engine.inner.images.push(engine.registries(), &options, cancel, tell)?;
            let name = options.reference.familiar();
            engine.tell_image("push", &name, &options.reference.familiar_name());
            Ok(())
        })
        .await
    }

    async fn asking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Arc<silo_image::RegistrySettings>, &Cancel) -> std::result::Result<T, ImageError>
        + Send
        + 'static,
    ) -> Result<T> {
        let (engine, cancel) = (self.clone(), Cancel::default());
        let _end = OnDrop(cancel.clone());
        blocking(move || ask(engine.registries(), &cancel).map_err(error)).await
    }

    /// What a registry has under a name.
    pub async fn image_describe(&self, name: &str, credentials: Credentials) -> Result<Described> {
        let reference = Reference::parse(name).map_err(error)?;
        self.asking(move |registries, cancel| {
            ImageStore::describe(registries, &reference, &credentials, cancel)
        })
        .await
    }

    /// Proves credentials to the registry that they name; an identity token if it gives one.
    pub async fn registry_log_in(&self, credentials: Credentials) -> Result<Option<String>> {
        let server = credentials.serveraddress.as_str();
        let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
        let host = bare.split('/').next().unwrap_or_default();
        let domain = match host {
            "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            host => host.to_owned(),
        };
        self.asking(move |registries, cancel| ImageStore::log_in(registries, &domain, &credentials, cancel))
            .await
    }

    /// Begins to fetch a file from any web server, to be imported: its whole URL and content.
    pub async fn open_url(&self, url: &str) -> Result<(String, Box<dyn std::io::Read + Send>)> {
        let (engine, url) = (self.clone(), url.to_owned());
        // It goes on being read when this is over; each read has a limit.
        let open = move || ImageStore::open_url(engine.registries(), &url, &Cancel::default()).map_err(error);
        blocking(open).await
    }

    /// Repositories that match a term, as the index gives them.
    pub async fn registry_search(
        &self,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<Value>> {
        let term = term.to_owned();
        self.asking(move |registries, cancel| {
            ImageStore::search(registries, &term, limit, &credentials, cancel)
        })
        .await
    }

    /// Proves all that the store of images says.
    pub async fn image_check(&self) -> Result<Checked> {
        let engine = self.clone();
        blocking(move || Ok(engine.inner.images.check())).await
    }
}
