//! `/containers`: one file a group of verbs; each decodes, calls one engine verb, encodes.

pub(crate) mod adapters;
pub(crate) mod create;
pub(crate) mod decode;
pub(crate) mod endpoints;
pub(crate) mod files;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod stats;
pub(crate) mod streams;
pub(crate) mod update;
pub(crate) mod websocket;

use crate::error::{Answer, ApiError};
use crate::params::Params;

/// `h` and `w` of a resize.
pub(crate) fn size(query: &Params) -> Answer<(u16, u16)> {
    let get = |name: &str| -> Answer<u16> {
        query.number(name)?.ok_or_else(|| ApiError::bad(format!("parameter {name:?} is missing")))
    };
    Ok((get("h")?, get("w")?))
}
