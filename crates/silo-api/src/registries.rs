//! `/auth`, `/distribution/{name}/json`, `/images/search`: what is asked of registries without an image coming or going;
//! `/silo/images/check`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use silo_engine::Engine;
use silo_engine::images::Credentials;

use crate::error::{Answer, ApiError};
use crate::images::credentials;
use crate::params::{Params, json_value};

/// Results of a search if nobody says how many (dockerd's number), and at most.
const RESULTS: u32 = 25;
const MAX_RESULTS: u32 = 100;

pub(crate) async fn log_in(State(engine): State<Engine>, body: Body) -> Answer {
    let value = json_value(body).await?;
    let given: Credentials = match value {
        Value::Null => Credentials::default(),
        value => serde_json::from_value(value).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))?,
    };
    let token = engine.registry_log_in(given.normal()).await?;
    Ok(axum::Json(json!({"Status": "Login Succeeded", "IdentityToken": token.unwrap_or_default()}))
        .into_response())
}

pub(crate) async fn describe(
    State(engine): State<Engine>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some(name) = path.strip_suffix("/json") else { return Err(ApiError::not_found("page not found")) };
    let found = engine.image_describe(name, credentials(&headers)?).await?;
    Ok(axum::Json(json!({
        "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
        "Platforms": found.platforms,
    }))
    .into_response())
}

pub(crate) async fn search(State(engine): State<Engine>, query: Params, headers: HeaderMap) -> Answer {
    let term = query.get("term").ok_or_else(|| ApiError::bad("search needs a term"))?;
    let limit = query.number("limit")?.unwrap_or(RESULTS);
    if !(1..=MAX_RESULTS).contains(&limit) {
        return Err(ApiError::bad(format!("limit {limit} is outside the range of [1, {MAX_RESULTS}]")));
    }
    let filters = query.filters()?;
    if let Some(unknown) = filters.unknown(&["is-automated", "is-official", "stars"]) {
        return Err(ApiError::bad(format!("invalid filter '{unknown}'")));
    }
    let flag = |name: &str| -> Answer<Option<bool>> {
        match filters.get(name).first().map(String::as_str) {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(other) => Err(ApiError::bad(format!("invalid filter '{name}={other}'"))),
        }
    };
    let (official, automated) = (flag("is-official")?, flag("is-automated")?);
    let mut stars = 0i64;
    for text in filters.get("stars") {
        let least =
            text.parse::<i64>().map_err(|_| ApiError::bad(format!("invalid filter 'stars={text}'")))?;
        stars = stars.max(least);
    }
    let all = engine.registry_search(term, limit, credentials(&headers)?).await?;
    let wanted: Vec<Value> = all
        .into_iter()
        .filter(|r| official.is_none_or(|w| r["is_official"].as_bool().unwrap_or(false) == w))
        .filter(|r| automated.is_none_or(|w| r["is_automated"].as_bool().unwrap_or(false) == w))
        .filter(|r| r["star_count"].as_i64().unwrap_or(0) >= stars)
        .collect();
    Ok((StatusCode::OK, axum::Json(wanted)).into_response())
}

/// Beyond Docker's API, for `silo image check`.
pub(crate) async fn check(State(engine): State<Engine>) -> Answer {
    let checked = engine.image_check().await?;
    Ok(axum::Json(json!({
        "Images": checked.images, "Layers": checked.layers, "Blobs": checked.blobs,
        "References": checked.references, "Bytes": checked.bytes, "Faults": checked.faults,
    }))
    .into_response())
}
