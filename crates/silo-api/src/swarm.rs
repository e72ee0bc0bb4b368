//! What is a swarm's: dockerd's answers where there is none.

use axum::http::StatusCode;

use crate::error::ApiError;

/// Whatever a manager would answer.
pub(crate) async fn no_manager() -> ApiError {
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                   node to swarm and try again.";
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned() }
}

/// There is none to leave.
pub(crate) async fn leave() -> ApiError {
    let message = "This node is not part of a swarm";
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned() }
}

/// None can be made.
pub(crate) async fn unsupported() -> ApiError {
    ApiError { status: StatusCode::NOT_IMPLEMENTED, message: "silo has no swarm mode".to_owned() }
}
