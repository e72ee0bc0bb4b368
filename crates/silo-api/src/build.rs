//! `/build`, `/build/prune`, `/build/cancel`: Dockerfiles to images, and the cache of that.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use silo_build::{BuildRequest, ContextSource, Secrets};
use silo_engine::images::Credentials;
use silo_engine::{CachePrune, CacheUsage, Engine};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::containers::decode;
use crate::error::{Answer, ApiError};
use crate::params::Params;
use crate::stream;
use crate::version::{ApiVersion, MAX_VERSION};

/// Bytes that are read of the context of a build that is refused.
const MOST_REFUSED: u64 = 64 << 20;

/// Header of secrets, which Docker's API has no place for.
const SECRETS: &str = "X-Silo-Build-Secrets";

/// The connection that a request came by: whether its client is still there.
#[derive(Debug, Clone)]
pub(crate) struct Client(pub(crate) Arc<OwnedFd>);

impl Client {
    /// Ends when the client has closed its end, which it may while it has nothing to read.
    pub(crate) async fn gone(self) {
        let opened = self.0.try_clone().and_then(|fd| UnixStream::from_std(fd.into()));
        let Ok(end) = opened else { return std::future::pending().await };
        loop {
            match end.ready(Interest::WRITABLE).await {
                Ok(ready) if ready.is_write_closed() => return,
                // Until there is news.
                Ok(_) => {
                    let again = || -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) };
                    let _ = end.try_io(Interest::WRITABLE, again);
                }
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// A parameter that is JSON.
fn typed<T: DeserializeOwned + Default>(query: &Params, name: &str) -> Answer<T> {
    match query.get(name) {
        None => Ok(T::default()),
        Some(text) => {
            let value: Option<T> = serde_json::from_str(text)
                .map_err(|e| ApiError::bad(format!("error reading {name} parameter: {e}")))?;
            Ok(value.unwrap_or_default())
        }
    }
}

/// What a container of a step has of the client's choices.
fn host_config(query: &Params) -> Answer<Value> {
    let mut host = json!({});
    for (parameter, field) in [
        ("memory", "Memory"),
        ("memswap", "MemorySwap"),
        ("cpushares", "CpuShares"),
        ("cpuquota", "CpuQuota"),
        ("cpuperiod", "CpuPeriod"),
        ("shmsize", "ShmSize"),
    ] {
        if let Some(number) = query.number::<i64>(parameter)? {
            host[field] = number.into();
        }
    }
    for (parameter, field) in [
        ("cpusetcpus", "CpusetCpus"),
        ("cpusetmems", "CpusetMems"),
        ("cgroupparent", "CgroupParent"),
        ("networkmode", "NetworkMode"),
        ("isolation", "Isolation"),
    ] {
        if let Some(text) = query.get(parameter) {
            host[field] = text.into();
        }
    }
    let hosts = match query.get("extrahosts") {
        // A list in JSON from docker-py, one parameter each from docker.
        Some(text) if text.starts_with(['[', '{']) => {
            let value: Value = typed(query, "extrahosts")?;
            match value {
                Value::Object(map) => map
                    .iter()
                    .map(|(name, ip)| format!("{name}:{}", ip.as_str().unwrap_or_default()))
                    .collect(),
                list => serde_json::from_value(list)
                    .map_err(|e| ApiError::bad(format!("error reading extrahosts parameter: {e}")))?,
            }
        }
        _ => query.all("extrahosts"),
    };
    host["ExtraHosts"] = json!(hosts);
    for (parameter, field) in [("ulimits", "Ulimits"), ("securityopt", "SecurityOpt")] {
        let value: Value = typed(query, parameter)?;
        if !value.is_null() {
            host[field] = value;
        }
    }
    Ok(host)
}

/// base64 of either alphabet, padded or not.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&text).ok()
}

/// A header that is JSON in base64; without it nothing.
fn encoded<T: DeserializeOwned + Default>(headers: &HeaderMap, name: &str) -> Answer<T> {
    let Some(value) = headers.get(name) else { return Ok(T::default()) };
    let bad = |why: &str| ApiError::bad(format!("invalid {name} header: {why}"));
    let text = value.to_str().map_err(|_| bad("it is no base64"))?;
    let bytes = from_base64(text).ok_or_else(|| bad("it is no base64"))?;
    // What stands there is not told: it may be secret.
    let value: Option<T> =
        serde_json::from_slice(&bytes).map_err(|_| bad("it is not the JSON that it should be"))?;
    Ok(value.unwrap_or_default())
}

/// `X-Silo-Build-Secrets`: values, each in base64, by their IDs.
fn secrets(headers: &HeaderMap) -> Answer<Secrets> {
    let all: BTreeMap<String, String> = encoded(headers, SECRETS)?;
    let one = |(id, text): (String, String)| match from_base64(&text) {
        Some(value) => Ok((id, value)),
        None => Err(ApiError::bad(format!("invalid {SECRETS} header: {id} is no base64"))),
    };
    all.into_iter().map(one).collect()
}

/// `X-Registry-Config`: who asks, by registry.
fn registry_config(headers: &HeaderMap) -> Answer<BTreeMap<String, Credentials>> {
    let all: BTreeMap<String, Credentials> = encoded(headers, "X-Registry-Config")?;
    Ok(all
        .into_iter()
        .map(|(server, mut credentials)| {
            if credentials.serveraddress.is_empty() {
                credentials.serveraddress.clone_from(&server);
            }
            (server, credentials.normal())
        })
        .collect())
}

fn request(query: &Params, headers: &HeaderMap) -> Answer<BuildRequest> {
    match query.get("version") {
        None | Some("1") => {}
        Some("2") => {
            return Err(ApiError::bad(
                "BuildKit (version=2) is not supported: silo's own builder is asked for by DOCKER_BUILDKIT=0",
            ));
        }
        Some(other) => return Err(ApiError::bad(format!("invalid version: {other}"))),
    }
    let outputs: Value = typed(query, "outputs")?;
    if outputs.as_array().is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::bad("outputs are not supported: the result of a build is an image"));
    }
    let create = json!({"Image": "scratch", "HostConfig": host_config(query)?});
    let absent_or = |name: &str| query.get(name).is_none() || query.flag(name);
    Ok(BuildRequest {
        dockerfile: query.get("dockerfile").unwrap_or_default().to_owned(),
        tags: query.all("t"),
        quiet: query.flag("q"),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        remove: absent_or("rm"),
        force_remove: query.flag("forcerm"),
        squash: query.flag("squash"),
        arguments: typed(query, "buildargs")?,
        labels: typed(query, "labels")?,
        cache_from: typed(query, "cachefrom")?,
        target: query.get("target").unwrap_or_default().to_owned(),
        platform: query.get("platform").unwrap_or_default().to_owned(),
        container: decode::create(create, ApiVersion(MAX_VERSION))?,
        credentials: registry_config(headers)?,
        secrets: secrets(headers)?,
        id: query.get("buildid").unwrap_or_default().to_owned(),
    })
}

pub(crate) async fn build(
    State(engine): State<Engine>,
    Extension(client): Extension<Client>,
    query: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let request = match request(&query, &headers) {
        Ok(request) => request,
        Err(e) => {
            // A client that is still sending would not read the answer.
            let mut rest = stream::reader(body).take(MOST_REFUSED);
            let _ = tokio::task::spawn_blocking(move || io::copy(&mut rest, &mut io::sink())).await;
            return Err(e);
        }
    };
    let context = match query.get("remote").filter(|url| !url.is_empty()) {
        Some(url) if url != "client-session" => ContextSource::Remote(url.to_owned()),
        Some(_) => {
            return Err(ApiError::bad("client-session: a session is BuildKit's, which is not supported"));
        }
        None => ContextSource::Archive(stream::reader(body)),
    };
    let lines = silo_build::build(&engine, request, context, client.gone()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], stream::body(lines)).into_response())
}

pub(crate) async fn cancel(query: Params) -> Answer {
    let id = query.get("id").ok_or_else(|| ApiError::bad("build ID not provided"))?;
    silo_build::cancel(id);
    Ok(StatusCode::OK.into_response())
}

/// A record of `docker system df` and `docker builder prune`.
pub(crate) fn cache_row(usage: &CacheUsage) -> Value {
    let record = &usage.record;
    let parent = record.parent.as_ref().map(|key| key.get(..25).unwrap_or(key).to_owned());
    json!({
        "ID": record.id(), "Parents": parent.iter().collect::<Vec<_>>(), "Type": record.kind,
        "Description": record.description, "InUse": usage.in_use, "Shared": usage.shared, "Size": record.size,
        "CreatedAt": record.created.to_string(), "LastUsedAt": record.last_used.map(|t| t.to_string()),
        "UsageCount": record.uses,
    })
}

pub(crate) async fn prune(State(engine): State<Engine>, query: Params) -> Answer {
    let keep = match query.number::<u64>("keep-storage")? {
        Some(bytes) => bytes,
        None => query.number::<u64>("reserved-space")?.unwrap_or(0),
    };
    let prune = CachePrune { all: query.flag("all"), keep_storage: keep, filters: query.filters()? };
    let (ids, bytes) = engine.prune_build_cache(prune).await?;
    let ids = if ids.is_empty() { Value::Null } else { json!(ids) };
    Ok(axum::Json(json!({"CachesDeleted": ids, "SpaceReclaimed": bytes})).into_response())
}
