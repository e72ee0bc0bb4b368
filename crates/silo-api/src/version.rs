//! API versions: the `/v1.41` prefix, and which are served.

use axum::http::StatusCode;

use crate::error::ApiError;

/// Oldest API version served, as (major, minor).
pub const MIN_VERSION: (u32, u32) = (1, 24);
/// Newest.
pub const MAX_VERSION: (u32, u32) = (1, 50);

/// The version a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) (u32, u32));

/// Splits `/v1.41/info` into version and path; no prefix: the newest.
pub(crate) fn split(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok((ApiVersion(MAX_VERSION), path)) };
    let (version, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((major, minor)) = version.split_once('.') else { return Ok((ApiVersion(MAX_VERSION), path)) };
    let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
        return Ok((ApiVersion(MAX_VERSION), path));
    };
    let wrong = |text: String| ApiError { status: StatusCode::BAD_REQUEST, message: text };
    if (major, minor) < MIN_VERSION {
        return Err(wrong(format!(
            "client version {version} is too old. Minimum supported API version is {}.{}, please upgrade your client to a newer version",
            MIN_VERSION.0, MIN_VERSION.1
        )));
    }
    if (major, minor) > MAX_VERSION {
        return Err(wrong(format!(
            "client version {version} is too new. Maximum supported API version is {}.{}",
            MAX_VERSION.0, MAX_VERSION.1
        )));
    }
    Ok((ApiVersion((major, minor)), if tail.is_empty() { "/" } else { tail }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        assert_eq!(split("/v1.41/info").unwrap(), (ApiVersion((1, 41)), "/info"));
        assert_eq!(split("/info").unwrap(), (ApiVersion(MAX_VERSION), "/info"));
        assert_eq!(split("/volumes").unwrap().1, "/volumes");
        assert!(split("/v1.99/info").unwrap_err().message.contains("client version 1.99 is too new"));
        assert!(split("/v1.12/info").unwrap_err().message.contains("too old"));
    }
}
