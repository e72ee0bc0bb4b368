//! `/images`: list, inspect, history, tag, remove, load, save, import, prune.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use silo_engine::Engine;
use silo_engine::images::{Image, ImportOptions, Platform, Removed};

use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::stream;
use crate::version::ApiVersion;

fn or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

pub(crate) fn summary(engine: &Engine, image: &Image, containers: i64, shared: bool) -> Value {
    json!({
        "Id": image.id, "ParentId": image.parent.as_ref().map_or("", |p| p.as_str()),
        "RepoTags": image.references, "RepoDigests": [],
        "Created": image.created.map_or(0, |c| c.as_second()), "Size": image.size,
        "SharedSize": if shared { engine.images().shared_size(&image.id) as i64 } else { -1 },
        "Labels": if image.config.config.labels.is_empty() { Value::Null } else { json!(image.config.config.labels) },
        "Containers": containers,
    })
}

pub(crate) async fn list(State(engine): State<Engine>, query: Params) -> Answer {
    let filters = query.filters()?;
    if let Some(unknown) = filters.unknown(&["dangling", "label", "before", "since", "reference", "until"]) {
        return Err(ApiError::bad(format!("invalid filter '{unknown}'")));
    }
    let get = |name: &str| -> Answer<Option<Image>> {
        filters.get(name).first().map(|n| find(&engine, n)).transpose()
    };
    let (before, since) = (get("before")?, get("since")?);
    let until = filters.get("until").first().map(|u| silo_engine::time::parse(u)).transpose()?;
    let dangling = filters.get("dangling").first().map(|d| d == "true" || d == "1");
    let mut list = Vec::new();
    for mut image in engine.images().list() {
        let intermediate = image.references.is_empty()
            && engine.images().list().iter().any(|i| i.parent.as_ref() == Some(&image.id));
        if intermediate && !query.flag("all") {
            continue;
        }
        let wanted = filters.get("reference");
        if !wanted.is_empty() {
            image.references.retain(|r| wanted.iter().any(|w| matches_reference(r, w)));
            if image.references.is_empty() {
                continue;
            }
        }
        let passes = before.as_ref().is_none_or(|b| image.created < b.created)
            && since.as_ref().is_none_or(|s| image.created > s.created)
            && until.is_none_or(|u| image.created.is_some_and(|c| c < u))
            && dangling.is_none_or(|d| d == image.references.is_empty())
            && filters.labels("label", &image.config.config.labels);
        if passes {
            list.push(summary(&engine, &image, -1, query.flag("shared-size")));
        }
    }
    Ok(axum::Json(list).into_response())
}

/// `busybox`, `busybox:1.*`, `*/a`: shell patterns over the name with or without its tag.
fn matches_reference(reference: &str, pattern: &str) -> bool {
    let name = reference.rsplit_once(':').map_or(reference, |(n, _)| n);
    glob(pattern, reference) || glob(pattern, name)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            let Some(rest) = text.strip_prefix(head) else { return false };
            // A star does not cross a slash.
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).filter(|i| rest.is_char_boundary(*i)).any(|i| glob(tail, &rest[i..]))
        }
    }
}

fn find(engine: &Engine, name: &str) -> Answer<Image> {
    engine.images().get(name).map_err(|e| match e {
        silo_engine::images::ImageError::NotFound(_) => ApiError::not_found(e.to_string()),
        _ => ApiError::bad(e.to_string()),
    })
}

fn inspect(image: &Image) -> Value {
    let config = &image.config;
    let lower: Vec<String> = image.lower_dirs.iter().map(|d| d.display().to_string()).collect();
    let mut data = json!({"UpperDir": image.upper_dir});
    if !lower.is_empty() {
        data["LowerDir"] = lower.join(":").into();
    }
    let mut container = config.config.to_json();
    for (name, value) in [
        ("Cmd", Value::Null),
        ("Entrypoint", Value::Null),
        ("Labels", Value::Null),
        ("Env", Value::Null),
        ("WorkingDir", json!("")),
        ("User", json!("")),
    ] {
        if container.get(name).is_none() {
            container[name] = value;
        }
    }
    let mut out = json!({
        "Id": image.id, "RepoTags": image.references, "RepoDigests": [],
        "Parent": image.parent.as_ref().map_or("", |p| p.as_str()), "Comment": config.comment,
        "Created": image.created.map(|c| c.to_string()), "DockerVersion": "", "Author": config.author,
        "Config": container, "Architecture": config.architecture, "Os": config.os, "Size": image.size,
        "GraphDriver": {"Data": data, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Metadata": {"LastTagTime": image.last_tagged.map_or("0001-01-01T00:00:00Z".to_owned(), |t| t.to_string())},
    });
    if !config.os_version.is_empty() {
        out["OsVersion"] = config.os_version.clone().into();
    }
    if !config.variant.is_empty() {
        out["Variant"] = config.variant.clone().into();
    }
    out
}

/// The platforms that a request names under `platform`, each as JSON, from API version `since` on; older ones had no such
/// parameter and dockerd does not look at it.
fn platforms(query: &Params, version: ApiVersion, since: (u32, u32)) -> Answer<Option<Platform>> {
    if version.0 < since {
        return Ok(None);
    }
    let mut given = query.all("platform").into_iter();
    let Some(text) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(ApiError::bad(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later",
        ));
    }
    let value: Value =
        serde_json::from_str(&text).map_err(|e| ApiError::bad(format!("failed to parse platform: {e}")))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let platform = Platform {
        os: field("os"),
        architecture: field("architecture"),
        variant: field("variant"),
        os_version: field("os.version"),
    };
    match (platform.os.is_empty(), platform.architecture.is_empty()) {
        (false, false) => Ok(Some(platform)),
        (true, true) if !(platform.variant.is_empty() && platform.os_version.is_empty()) => {
            Err(ApiError::bad("optional platform fields provided, but OS and Architecture are missing"))
        }
        _ => Err(ApiError::bad("both OS and Architecture must be provided")),
    }
}

/// As [`find`]; 404 when the image is not for the platform.
fn find_for(engine: &Engine, name: &str, platform: Option<&Platform>) -> Answer<Image> {
    let image = find(engine, name)?;
    let Some(platform) = platform.filter(|p| !p.matches(&image.config)) else { return Ok(image) };
    let config = &image.config;
    let own = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os_version: config.os_version.clone(),
    };
    Err(ApiError::not_found(format!(
        "image with reference {name} was found but its platform ({own}) does not match the specified platform ({platform})"
    )))
}

/// `/images/{name}/json`, `/history`, `/get`: names have slashes, so the last part tells.
pub(crate) async fn get_named(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    Path(path): Path<String>,
    query: Params,
) -> Answer {
    let (name, verb) = path.rsplit_once('/').unwrap_or((&path, ""));
    match verb {
        "json" => {
            let platform = platforms(&query, version, (1, 49))?;
            if platform.is_some() && query.flag("manifests") {
                return Err(ApiError::bad(
                    "conflicting options: manifests and platform options cannot both be set",
                ));
            }
            Ok(axum::Json(inspect(&find_for(&engine, name, platform.as_ref())?)).into_response())
        }
        "history" => {
            find_for(&engine, name, platforms(&query, version, (1, 48))?.as_ref())?;
            let lines = engine.images().history(name).map_err(|e| ApiError::bad(e.to_string()))?;
            let lines: Vec<Value> = lines
                .iter()
                .map(|l| {
                    json!({"Id": l.id, "Created": l.created.map_or(0, |c| c.as_second()), "CreatedBy": l.created_by,
                           "Tags": or_null(&l.tags), "Size": l.size, "Comment": l.comment})
                })
                .collect();
            Ok(axum::Json(lines).into_response())
        }
        "get" => save(&engine, vec![name.to_owned()], platforms(&query, version, (1, 48))?),
        _ => Err(ApiError::not_found("page not found")),
    }
}

fn save(engine: &Engine, names: Vec<String>, platform: Option<Platform>) -> Answer {
    if let Some(platform) = &platform {
        for name in &names {
            if !platform.matches(&find(engine, name)?.config) {
                return Err(ApiError::not_found(format!(
                    "no suitable export target found for platform {platform}"
                )));
            }
        }
    }
    let tar = engine.image_save(names)?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], stream::body(tar)).into_response())
}

pub(crate) async fn save_many(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Params,
) -> Answer {
    let names: Vec<String> =
        query.all("names").iter().flat_map(|n| n.split(',').map(str::to_owned)).collect();
    save(&engine, names, platforms(&query, version, (1, 48))?)
}

pub(crate) async fn post_named(
    State(engine): State<Engine>,
    Path(path): Path<String>,
    query: Params,
) -> Answer {
    match path.rsplit_once('/') {
        Some((name, "tag")) => {
            let repository = query.get("repo").ok_or_else(|| ApiError::bad("invalid reference format"))?;
            let reference = match query.get("tag") {
                Some(tag) => format!("{repository}:{tag}"),
                None => repository.to_owned(),
            };
            engine.image_tag(name, &reference).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((_, "push")) => Err(ApiError::unsupported(
            "this version of silo does not speak to registries yet: push is not supported",
        )),
        _ => Err(ApiError::not_found("page not found")),
    }
}

fn removed(list: &[Removed]) -> Vec<Value> {
    list.iter()
        .map(|r| match r {
            Removed::Untagged(name) => json!({"Untagged": name}),
            Removed::Deleted(id) => json!({"Deleted": id}),
        })
        .collect()
}

pub(crate) async fn remove(State(engine): State<Engine>, Path(name): Path<String>, query: Params) -> Answer {
    let list = engine.image_remove(&name, query.flag("force"), query.flag("noprune")).await?;
    Ok(axum::Json(removed(&list)).into_response())
}

pub(crate) async fn prune(State(engine): State<Engine>, query: Params) -> Answer {
    let (list, bytes) = engine.image_prune(&query.filters()?).await?;
    Ok(axum::Json(json!({"ImagesDeleted": removed(&list), "SpaceReclaimed": bytes})).into_response())
}

pub(crate) async fn load(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Params,
    body: Body,
) -> Answer {
    let platform = platforms(&query, version, (1, 48))?;
    let lines = engine.image_load(stream::reader(body), platform, query.flag("quiet"));
    Ok(([(header::CONTENT_TYPE, "application/json")], stream::body(lines)).into_response())
}

/// `docker import` (`fromSrc=-`); pulling is refused.
pub(crate) async fn create(State(engine): State<Engine>, query: Params, body: Body) -> Answer {
    if let Some(image) = query.get("fromImage") {
        return Err(ApiError::unsupported(format!(
            "pulling {image}: this version of silo does not speak to registries yet; load the image with docker load"
        )));
    }
    match query.get("fromSrc") {
        Some("-") => {}
        Some(other) => {
            return Err(ApiError::bad(format!(
                "importing from {other:?} is not supported: pass the archive itself (fromSrc=-)"
            )));
        }
        None => return Err(ApiError::bad("neither fromImage nor fromSrc is given")),
    }
    let platform = query.get("platform").unwrap_or("linux");
    let mut parts = platform.split('/');
    let reference = query.get("repo").map(|r| match query.get("tag") {
        Some(tag) => format!("{r}:{tag}"),
        None => r.to_owned(),
    });
    let options = ImportOptions {
        os: parts.next().unwrap_or_default().to_owned(),
        architecture: parts.next().unwrap_or_default().to_owned(),
        message: query.get("message").unwrap_or_default().to_owned(),
        changes: query.all("changes"),
        reference,
        source: "-".to_owned(),
        shell: Vec::new(),
    };
    let id = engine.image_import(stream::reader(body), options).await?;
    let line = format!("{}\r\n", json!({"status": id}));
    Ok(([(header::CONTENT_TYPE, "application/json")], line).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_or_refused() {
        let read = |text: &str, version: (u32, u32)| {
            let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            let query = Params::parse(&format!("platform={encoded}"));
            platforms(&query, ApiVersion(version), (1, 48)).map_err(|e| e.message)
        };
        let platform = read(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#, (1, 48)).unwrap();
        assert_eq!(platform.unwrap().to_string(), "linux/arm/v7");
        assert_eq!(read("nonsense", (1, 47)).unwrap(), None);
        assert!(read("nonsense", (1, 48)).unwrap_err().starts_with("failed to parse platform: "));
        assert!(read(r#"{"os":"linux"}"#, (1, 48)).unwrap_err().starts_with("both OS and Architecture"));
        assert!(read(r#"{"variant":"v7"}"#, (1, 48)).unwrap_err().starts_with("optional platform fields"));
    }

    #[test]
    fn reference_patterns() {
        for (pattern, yes) in [
            ("busybox", true),
            ("busybox:*", true),
            ("busy*", true),
            ("busybox:1", false),
            ("*/busybox", false),
        ] {
            assert_eq!(matches_reference("busybox:latest", pattern), yes, "{pattern}");
        }
        assert!(matches_reference("a/b:x", "*/b"));
        assert!(!matches_reference("a/b:x", "a*b"));
    }
}
