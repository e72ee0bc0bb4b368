//! What comes with a request: query parameters, filters, JSON bodies.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use silo_engine::Filters;

use crate::error::{Answer, ApiError};
use crate::names;

/// Bytes that a JSON body may have.
const MAX_JSON: usize = 8 << 20;

/// The query string, in order, decoded.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Params {
    pub(crate) fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        Self(
            query
                .split('&')
                .filter(|p| !p.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a name, `None` when absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.clone()).collect()
    }

    /// dockerd's boolean: everything but these is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|v| !matches!(v.trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Answer<Option<T>> {
        self.get(name)
            .map(|v| {
                v.parse().map_err(|_| ApiError::bad(format!("invalid value {v:?} for parameter {name:?}")))
            })
            .transpose()
    }

    /// `filters={"label":["a=b"]}` or the older `{"label":{"a=b":true}}`.
    pub(crate) fn filters(&self) -> Answer<Filters> {
        let Some(text) = self.get("filters") else { return Ok(Filters::default()) };
        let invalid = || ApiError::bad(format!("invalid filters: {text}"));
        let all: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = Filters::default();
        for (name, values) in all {
            let list = match values {
                Value::Array(list) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
                Value::Object(map) => map.into_iter().map(|(k, _)| k).collect(),
                _ => return Err(invalid()),
            };
            filters.0.insert(name, list);
        }
        Ok(filters)
    }
}

/// Reads a body as JSON with all nulls taken out: absent, null and zero mean the same to Docker's clients.
pub(crate) async fn json<T: DeserializeOwned + Default>(body: Body) -> Answer<T> {
    let value = json_value(body).await?;
    if value.is_null() {
        return Ok(T::default());
    }
    names::from_value(value).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))
}

/// As [`json`], untyped.
pub(crate) async fn json_value(body: Body) -> Answer<Value> {
    let bytes = to_bytes(body, MAX_JSON)
        .await
        .map_err(|e| ApiError::bad(format!("reading the request body (at most {MAX_JSON} bytes): {e}")))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let value = serde_json::from_slice(&bytes).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))?;
    Ok(without_nulls(value))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let p = Params::parse(
            "a=1&b=%7B%22x%22%3A%7B%22y%22%3Atrue%7D%7D&c&a=2&filters=%7B%22label%22%3A%5B%22k%3Dv%22%5D%7D",
        );
        assert_eq!(p.all("a"), ["1", "2"]);
        assert!(p.flag("a") && !p.flag("c") && !p.flag("zz"));
        assert_eq!(p.filters().unwrap().get("label"), ["k=v"]);
        assert!(Params::parse("filters=[").filters().is_err());
        assert!(p.number::<i64>("b").is_err());
    }
}
