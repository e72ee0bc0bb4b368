//! Images as the engine uses them: the store's verbs with events, and conversions between its words and the engine's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use silo_image::{ContainerConfig, ImageError, ImportOptions, Platform, Removed};

use crate::ByteStream;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result, guest_error};
use crate::filters::Filters;
use crate::spec::{Config, Healthcheck};
use crate::stream::stream;

/// The store's errors in the engine's classes.
pub(crate) fn error(error: ImageError) -> EngineError {
    let text = error.to_string();
    match error {
        ImageError::NotFound(_) | ImageError::Absent(_) => EngineError::not_found(text),
        ImageError::Registry(e) if e.is_unauthorized() => EngineError::unauthorized(text),
        ImageError::InvalidReference(_) | ImageError::Invalid(_) | ImageError::Ambiguous(_) => {
            EngineError::invalid(text)
        }
        ImageError::Conflict(_) => EngineError::conflict(text),
        _ => EngineError::internal(text),
    }
}

/// Writes a layer's archive.
pub(crate) type Capture<'a> = &'a mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>;

/// Has the store make something of a container's changes; what the guest refuses is told in its own words and class.
pub(crate) fn captured<T>(
    guest: &dyn silo_guest::Guest,
    changes: &silo_guest::Changes<'_>,
    make: impl FnOnce(Capture<'_>) -> std::result::Result<T, ImageError>,
) -> Result<T> {
    let mut refused = None;
    let made = make(&mut |to| {
        guest.capture(changes, to).map_err(|error| {
            let text = error.to_string();
            refused = Some(error);
            std::io::Error::other(text)
        })
    });
    made.map_err(|why| refused.map_or_else(|| error(why), guest_error))
}

/// An image's health check in the engine's words.
pub(crate) fn healthcheck(check: &silo_image::Healthcheck) -> Healthcheck {
    Healthcheck {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}

/// What a guest says of its images' configs.
pub(crate) fn rules(guest: &'static dyn silo_guest::Guest) -> silo_image::Rules {
    silo_image::Rules {
        shell: guest.default_shell(),
        env_case_sensitive: guest.env_case_sensitive(),
        working_dir: Arc::new(move |now, next| guest.next_working_dir(now, next).map_err(|e| e.to_string())),
    }
}

/// A container's config in the store's words, for a commit.
pub(crate) fn container_config(config: &Config) -> ContainerConfig {
    ContainerConfig {
        hostname: String::new(),
        user: config.user.clone(),
        env: config.env.clone(),
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        args_escaped: config.args_escaped,
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        volumes: config.volumes.clone(),
        exposed_ports: config.exposed_ports.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        shell: config.shell.clone(),
        on_build: config.on_build.clone(),
        healthcheck: config.healthcheck.as_ref().map(|h| silo_image::Healthcheck {
            test: h.test.clone(),
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        }),
    }
}

impl Engine {
    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.inner.events.tell("image", action, id, attributes);
    }

    /// Lets guests forget what they made of chains that are no image's any more, and what a crash left half-made.
    pub(crate) fn forget_chains(&self) {
        for guest in silo_guest::all() {
            guest.forget_chains(&self.inner.config.root, &|chain| self.inner.images.has_chain(chain));
        }
        silo_sandbox::hyperv::forget_disks(&self.inner.config.root.join("disks"));
    }

    /// Loads images from a docker-archive or OCI layout; the stream is Docker's JSON progress lines.
    pub fn image_load(
        &self,
        tar: Box<dyn Read + Send>,
        platform: Option<Platform>,
        quiet: bool,
    ) -> ByteStream {
        let engine = self.clone();
        stream(move |to| {
            let line = |to: &mut dyn Write, value: serde_json::Value| {
                writeln!(to, "{value}").and_then(|()| to.flush())
            };
            let to = std::cell::RefCell::new(to);
            let decide = |candidate: &silo_image::Candidate<'_>| {
                engine.substitute(candidate, &|step| {
                    let _ = line(*to.borrow_mut(), serde_json::json!({"stream": format!("{step}\n")}));
                })
            };
            let result = engine.inner.images.load(tar, platform.as_ref(), &decide, &mut |progress| {
                if !quiet {
                    let _ = line(
                        *to.borrow_mut(),
                        serde_json::json!({"status": "Loading layer", "id": progress.id,
                            "progressDetail": {"current": progress.current, "total": progress.total}}),
                    );
                }
            });
            let to = to.into_inner();
            match result {
                Ok(loaded) => {
                    for image in loaded {
                        let shown = match image.references.first() {
                            Some(name) => format!("Loaded image: {name}\n"),
                            None => format!("Loaded image ID: {}\n", image.id),
                        };
                        engine.tell_image(
                            "load",
                            &image.id.to_string(),
                            image.references.first().map_or("", String::as_str),
                        );
                        line(to, serde_json::json!({"stream": shown}))?;
                    }
                    Ok(())
                }
                Err(e) => {
                    let text = e.to_string();
                    line(to, serde_json::json!({"errorDetail": {"message": text}, "error": text}))
                }
            }
        })
    }

    /// Makes an image of one layer from a tar; returns its ID.
    pub async fn image_import(
        &self,
        tar: Box<dyn Read + Send>,
        mut options: ImportOptions,
    ) -> Result<String> {
        let engine = self.clone();
        blocking(move || {
            let os = silo_guest::Os::parse(&options.os).ok_or_else(|| {
                EngineError::invalid(format!("\"{}\": unknown operating system", options.os))
            })?;
            let guest = crate::placement::guest(os)?;
            options.rules = rules(guest);
            let name = options.reference.clone().unwrap_or_default();
            let id = engine
                .inner
                .images
                .import(tar, options, |layer| guest.os_version(layer).map_err(std::io::Error::other))
                .map_err(error)?;
            engine.tell_image("import", &id, &name);
            Ok(id)
        })
        .await
    }

    /// Writes images as an archive that `load` takes.
    pub fn image_save(&self, names: Vec<String>) -> Result<ByteStream> {
        for name in &names {
            self.inner.images.get(name).map_err(error)?;
        }
        let engine = self.clone();
        Ok(stream(move |to| {
            engine.inner.images.save(&names, to).map_err(std::io::Error::other)?;
            for name in &names {
                if let Ok(image) = engine.inner.images.get(name) {
                    engine.tell_image("save", &image.id.to_string(), name);
                }
            }
            Ok(())
        }))
    }

    /// Gives an image a further name.
    pub async fn image_tag(&self, name: &str, reference: &str) -> Result<()> {
        let (engine, name, reference) = (self.clone(), name.to_owned(), reference.to_owned());
        blocking(move || {
            let id = engine.inner.images.tag(&name, &reference).map_err(error)?;
            engine.tell_image("tag", &id, &reference);
            Ok(())
        })
        .await
    }

    /// Takes a name away, and the image when it was its last.
    pub async fn image_remove(&self, name: &str, force: bool, noprune: bool) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let users = |id: &str| engine.users_of_image(id);
            let removed = engine.inner.images.remove(&name, force, noprune, &users).map_err(error)?.steps;
            engine.forget_chains();
            for one in &removed {
                match one {
                    Removed::Untagged(name) => engine.tell_image("untag", name, name),
                    Removed::Deleted(id) => engine.tell_image("delete", id, id),
                }
            }
            Ok(removed)
        })
        .await
        .inspect(|removed| self.forget_ready(removed))
    }

    /// What was made ready on the layers of images that are gone goes too.
    fn forget_ready(&self, removed: &[Removed]) {
        if removed.iter().any(|one| matches!(one, Removed::Deleted(_))) {
            let engine = self.clone();
            tokio::spawn(async move {
                engine.forget_spares_of_gone_images().await;
                let _ = blocking(move || {
                    engine.sweep_ready(&|chain| engine.inner.images.has_chain(chain));
                    Ok(())
                })
                .await;
            });
        }
    }

    /// Removes images that no container uses: unnamed ones, or with `dangling=false` all.
    pub async fn image_prune(&self, filters: &Filters) -> Result<(Vec<Removed>, u64)> {
        if let Some(unknown) = filters.unknown(&["dangling", "until", "label", "label!"]) {
            return Err(EngineError::invalid(format!("invalid filter '{unknown}'")));
        }
        let all = filters.get("dangling").iter().any(|v| v == "false" || v == "0");
        let until = crate::time::until(filters)?;
        let (engine, filters) = (self.clone(), filters.clone());
        blocking(move || {
            let (mut removed, mut bytes) = (Vec::new(), 0);
            for image in engine.inner.images.list() {
                let labels = &image.config.config.labels;
                let unwanted = filters.has("label!") && filters.labels("label!", labels);
                let young = until.is_some_and(|u| image.created.is_none_or(|c| c >= u));
                let wanted = (all || image.references.is_empty()) && filters.labels("label", labels);
                if !wanted || unwanted || young || !engine.users_of_image(&image.id.to_string()).is_empty() {
                    continue;
                }
                let users = |id: &str| engine.users_of_image(id);
                if let Ok(mut gone) = engine.inner.images.remove(&image.id.to_string(), true, false, &users) {
                    bytes += gone.freed;
                    removed.append(&mut gone.steps);
                }
            }
            engine.forget_chains();
            engine.inner.events.tell(
                "image",
                "prune",
                "",
                [("reclaimed".to_owned(), bytes.to_string())].into(),
            );
            Ok((removed, bytes))
        })
        .await
        .inspect(|(removed, _)| self.forget_ready(removed))
    }
}
