//! What a start has of networks, and what they refuse, for containers and networks alike.

use std::os::fd::OwnedFd;

use silo_network::{AdapterRecord, ErrorKind, NetworkError};

use crate::error::{EngineError, Kind};

/// The networks that a start has joined and its end leaves.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) namespace: Option<OwnedFd>,
    pub(crate) adapters: Vec<AdapterRecord>,
    /// The name server that the container is given, when it has one of its own.
    pub(crate) nameserver: Option<std::net::IpAddr>,
}

/// A refusal of the networks' own, in the engine's classes.
pub(crate) fn network_error(error: NetworkError) -> EngineError {
    let kind = match error.kind() {
        ErrorKind::Invalid => Kind::Invalid,
        ErrorKind::Forbidden => Kind::Forbidden,
        ErrorKind::Conflict => Kind::Conflict,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Internal => Kind::Internal,
    };
    EngineError { kind, message: error.to_string() }
}

/// What a start says before why it could not have its networks, as dockerd does.
pub(crate) fn at_start(error: EngineError) -> EngineError {
    EngineError { message: format!("failed to set up container networking: {}", error.message), ..error }
}
