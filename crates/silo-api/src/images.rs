//! `/images`: list, inspect, history, tag, remove, load, save, import, prune.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use silo_engine::Engine;
use silo_engine::images::{Credentials, Image, ImportOptions, Platform, Removed};

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
        "RepoTags": image.references, "RepoDigests": image.digests,
        "Created": image.created.map_or(0, |c| c.as_second()), "Size": image.size,
        "SharedSize": if shared { engine.images().shared_size(&image.id) as i64 } else { -1 },
        "Labels": if image.config.config.labels.is_empty() { Value::Null } else { json!(image.config.config.labels) },
        "Containers": containers,
    })
}

pub(crate) async fn list(State(engine): State<Engine>, query: Params) -> Answer {
    let filters = query.filters()?;
    if let Some(unknown) =
        filters.unknown(&["dangling", "label", "label!", "before", "since", "reference", "until"])
    {
        return Err(ApiError::bad(format!("invalid filter '{unknown}'")));
    }
    let get = |name: &str| -> Answer<Option<Image>> {
        filters.get(name).first().map(|n| find(&engine, n)).transpose()
    };
    let (before, since) = (get("before")?, get("since")?);
    let until = silo_engine::time::until(&filters)?;
    let dangling = match filters.get("dangling") {
        [] => None,
        [one] if ["true", "1"].contains(&one.as_str()) => Some(true),
        [one] if ["false", "0"].contains(&one.as_str()) => Some(false),
        other => return Err(ApiError::bad(format!("invalid filter 'dangling={other:?}'"))),
    };
    let mut list = Vec::new();
    for mut image in engine.images().list() {
        let intermediate = image.references.is_empty()
            && image.digests.is_empty()
            && engine.images().list().iter().any(|i| i.parent.as_ref() == Some(&image.id));
        if intermediate && !query.flag("all") {
            continue;
        }
        let wanted = filters.get("reference");
        if !wanted.is_empty() {
            image.references.retain(|r| wanted.iter().any(|w| matches_reference(r, w)));
            image.digests.retain(|r| wanted.iter().any(|w| matches_reference(r, w)));
            if image.references.is_empty() && image.digests.is_empty() {
                continue;
            }
        }
        let passes = before.as_ref().is_none_or(|b| image.created < b.created)
            && since.as_ref().is_none_or(|s| image.created > s.created)
            && until.is_none_or(|u| image.created.is_some_and(|c| c < u))
            && dangling.is_none_or(|d| d == image.references.is_empty())
            && filters.labels("label", &image.config.config.labels)
            && !(filters.has("label!") && filters.labels("label!", &image.config.config.labels));
        if passes {
            list.push(summary(&engine, &image, -1, query.flag("shared-size")));
        }
    }
    Ok(axum::Json(list).into_response())
}

/// `busybox`, `busybox:1.*`, `*/a`: shell patterns over the name with or without its tag.
fn matches_reference(reference: &str, pattern: &str) -> bool {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(n, _)| n);
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
        "Id": image.id, "RepoTags": image.references, "RepoDigests": image.digests,
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
    Extension(version): Extension<ApiVersion>,
    Path(path): Path<String>,
    query: Params,
    headers: HeaderMap,
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
        Some((name, "push")) => {
            let tag = query.get("tag");
            let name = tag.map_or(name.to_owned(), |tag| format!("{name}:{tag}"));
            let platform = platforms(&query, version, (1, 46))?;
            let lines = engine.image_push(&name, tag.is_none(), platform, credentials(&headers)?).await?;
            Ok(progress(lines))
        }
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

/// Who asks, by the header that docker's client sends.
pub(crate) fn credentials(headers: &HeaderMap) -> Answer<Credentials> {
    let header = headers.get("x-registry-auth").map(|h| h.to_str().unwrap_or("?"));
    Credentials::from_header(header.unwrap_or_default()).map_err(ApiError::bad)
}

fn progress(lines: silo_engine::ByteStream) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], stream::body(lines)).into_response()
}

/// `docker pull` (`fromImage`) and `docker import` (`fromSrc`: `-` for the body, or a URL).
pub(crate) async fn create(
    State(engine): State<Engine>,
    query: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if let Some(image) = query.get("fromImage") {
        let tag = query.get("tag");
        let bare = !image.contains('@') && !image.rsplit('/').next().unwrap_or(image).contains(':');
        let name = match tag {
            Some(digest) if digest.contains(':') => format!("{image}@{digest}"),
            Some(tag) if bare => format!("{image}:{tag}"),
            Some(tag) => {
                // The tag replaces the one in the name.
                let end = image.rfind(':').unwrap_or(image.len());
                format!("{}:{tag}", &image[..end])
            }
            None => image.to_owned(),
        };
        let platform = query.get("platform").map(Platform::parse).transpose().map_err(ApiError::bad)?;
        let all_tags = tag.is_none() && bare;
        let lines = engine.image_pull(&name, all_tags, platform, credentials(&headers)?).await?;
        return Ok(progress(lines));
    }
    let (source, tar) = match query.get("fromSrc") {
        Some("-") => ("-".to_owned(), stream::reader(body)),
        Some(url) => engine.open_url(url).await?,
        None => return Err(ApiError::bad("neither fromImage nor fromSrc is given")),
    };
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
        source,
        rules: Default::default(),
    };
    let said = (options.source != "-").then(|| format!("Downloading from {}", options.source));
    let id = engine.image_import(tar, options).await?;
    let line: String =
        said.iter().chain([&id]).map(|text| format!("{}\r\n", json!({"status": text}))).collect();
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
