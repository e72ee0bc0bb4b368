//! archive, changes, export, commit.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use silo_engine::{CommitOptions, Engine, PathStat};

use super::decode::{self, ConfigBody};
use crate::error::{Answer, ApiError};
use crate::params::{self, Params};
use crate::stream;

const STAT: &str = "X-Docker-Container-Path-Stat";

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|c| {
            let n = u32::from(c[0]) << 16
                | u32::from(*c.get(1).unwrap_or(&0)) << 8
                | u32::from(*c.get(2).unwrap_or(&0));
            let digit = |i: u32| DIGITS[(n >> (18 - 6 * i) & 63) as usize] as char;
            [
                digit(0),
                digit(1),
                if c.len() > 1 { digit(2) } else { '=' },
                if c.len() > 2 { digit(3) } else { '=' },
            ]
        })
        .collect()
}

fn stat_headers(stat: &PathStat) -> HeaderMap {
    let text = json!({"name": stat.name, "size": stat.size, "mode": stat.mode, "mtime": stat.mtime.to_string(),
                      "linkTarget": stat.link_target});
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&base64(text.to_string().as_bytes())) {
        headers.insert(STAT, value);
    }
    headers
}

fn path(query: &Params) -> Answer<&str> {
    query.get("path").ok_or_else(|| ApiError::bad("missing parameter: path"))
}

pub(crate) async fn head(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let stat = engine.archive_stat(&id, path(&query)?).await?;
    Ok(stat_headers(&stat).into_response())
}

pub(crate) async fn get(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let (stat, tar) = engine.archive_get(&id, path(&query)?).await?;
    let mut headers = stat_headers(&stat);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok((headers, stream::body(tar)).into_response())
}

pub(crate) async fn put(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    query: Params,
    body: Body,
) -> Answer {
    let (overwrite, owners) = (query.flag("noOverwriteDirNonDir"), query.flag("copyUIDGID"));
    engine.archive_put(&id, path(&query)?, overwrite, owners, stream::reader(body)).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn changes(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let list = engine.changes(&id).await?;
    if list.is_empty() {
        return Ok(axum::Json(Value::Null).into_response());
    }
    let list: Vec<Value> = list.iter().map(|c| json!({"Path": c.path, "Kind": c.kind})).collect();
    Ok(axum::Json(list).into_response())
}

pub(crate) async fn export(State(engine): State<Engine>, Path(id): Path<String>) -> Answer {
    let tar = engine.export(&id).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], stream::body(tar)).into_response())
}

pub(crate) async fn commit(State(engine): State<Engine>, query: Params, body: Body) -> Answer {
    let container = query.get("container").ok_or_else(|| ApiError::bad("missing parameter: container"))?;
    let config = params::json_value(body).await?;
    let config = match config {
        Value::Object(map) if !map.is_empty() => {
            let body: ConfigBody = decode::typed(Value::Object(map))?;
            Some(body.into_config()).filter(|c| *c != Default::default())
        }
        _ => None,
    };
    let reference = query.get("repo").map(|r| match query.get("tag") {
        Some(tag) => format!("{r}:{tag}"),
        None => r.to_owned(),
    });
    let options = CommitOptions {
        reference,
        author: query.get("author").unwrap_or_default().to_owned(),
        message: query.get("comment").unwrap_or_default().to_owned(),
        changes: query.all("changes"),
        pause: query.get("pause").is_none() || query.flag("pause"),
        config,
    };
    let id = engine.commit(container, options).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({"Id": id}))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_lengths() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
