//! `/volumes`: the local driver.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use silo_engine::{Engine, VolumeRecord};

use crate::error::{Answer, ApiError};
use crate::params::{self, Params};
use crate::version::ApiVersion;

/// From this version on, prune takes volumes with a name only if asked to.
const ONLY_ANONYMOUS: ApiVersion = ApiVersion((1, 42));

pub(crate) fn show(volume: &VolumeRecord) -> Value {
    json!({
        "Name": volume.name, "Driver": "local", "Mountpoint": volume.mountpoint, "Scope": "local",
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Labels": if volume.labels.is_empty() { Value::Null } else { json!(volume.labels) },
        "Options": if volume.options.is_empty() { Value::Null } else { json!(volume.options) },
    })
}

pub(crate) async fn list(State(engine): State<Engine>, query: Params) -> Answer {
    let volumes: Vec<Value> = engine.volumes(&query.filters()?)?.iter().map(show).collect();
    Ok(axum::Json(json!({"Volumes": volumes, "Warnings": null})).into_response())
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Create {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    cluster_volume_spec: Value,
}

/// Cluster volumes are a swarm's.
fn no_swarm(message: &str) -> ApiError {
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned() }
}

pub(crate) async fn create(State(engine): State<Engine>, body: Body) -> Answer {
    let create: Create = params::json(body).await?;
    if !create.cluster_volume_spec.is_null() {
        return Err(no_swarm("ClusterVolumeSpec: this node is not a swarm manager"));
    }
    if !matches!(create.driver.as_str(), "" | "local") {
        return Err(ApiError::not_found(format!(
            "create {}: error looking up volume plugin {}: plugin \"{}\" not found",
            create.name, create.driver, create.driver
        )));
    }
    let name = Some(create.name).filter(|n| !n.is_empty());
    let volume = engine.volume_create(name, create.labels, create.driver_opts).await?;
    Ok((StatusCode::CREATED, axum::Json(show(&volume))).into_response())
}

pub(crate) async fn inspect(State(engine): State<Engine>, Path(name): Path<String>) -> Answer {
    Ok(axum::Json(show(&engine.volume(&name)?)).into_response())
}

pub(crate) async fn remove(State(engine): State<Engine>, Path(name): Path<String>, query: Params) -> Answer {
    engine.volume_remove(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn update() -> ApiError {
    no_swarm("volume update only valid for cluster volumes, but swarm is unavailable")
}

pub(crate) async fn prune(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Params,
) -> Answer {
    let mut filters = query.filters()?;
    if version < ONLY_ANONYMOUS {
        filters.0.insert("all".to_owned(), vec!["true".to_owned()]);
    }
    let (removed, bytes) = engine.volume_prune(&filters).await?;
    Ok(axum::Json(json!({"VolumesDeleted": removed, "SpaceReclaimed": bytes})).into_response())
}
