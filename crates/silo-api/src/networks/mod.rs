//! `/networks`: one file a group of verbs; each decodes, calls one engine verb, encodes.

pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod remove;
