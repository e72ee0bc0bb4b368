//! All routes of the API on one page.

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use silo_engine::Engine;

use crate::error::ApiError;
use crate::{
    build, containers as c, exec, images, networks as n, registries, registry, swarm, system, volumes,
};

/// Method and path of every route, versions stripped.
pub(crate) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/df", get(system::disk_usage))
        .route("/auth", post(registries::log_in))
        .route("/distribution/{*name}", get(registries::describe))
        .route("/containers/json", get(c::list::list))
        .route("/containers/create", post(c::create::create))
        .route("/containers/prune", post(c::lifecycle::prune))
        .route("/containers/{id}", delete(c::lifecycle::remove))
        .route("/containers/{holder}/{alias}", delete(c::lifecycle::remove_link).fallback(absent))
        .route("/containers/{id}/json", get(c::inspect::inspect))
        .route("/containers/{id}/start", post(c::lifecycle::start))
        .route("/containers/{id}/stop", post(c::lifecycle::stop))
        .route("/containers/{id}/restart", post(c::lifecycle::restart))
        .route("/containers/{id}/kill", post(c::lifecycle::kill))
        .route("/containers/{id}/pause", post(c::lifecycle::pause))
        .route("/containers/{id}/unpause", post(c::lifecycle::unpause))
        .route("/containers/{id}/rename", post(c::lifecycle::rename))
        .route("/containers/{id}/resize", post(c::lifecycle::resize))
        .route("/containers/{id}/wait", post(c::lifecycle::wait))
        .route("/containers/{id}/update", post(c::update::update))
        .route("/containers/{id}/attach", post(c::streams::attach))
        .route("/containers/{id}/attach/ws", get(c::websocket::attach))
        .route("/containers/{id}/logs", get(c::streams::logs))
        .route("/containers/{id}/top", get(c::stats::top))
        .route("/containers/{id}/stats", get(c::stats::stats))
        .route("/containers/{id}/changes", get(c::files::changes))
        .route("/containers/{id}/export", get(c::files::export))
        .route("/containers/{id}/archive", get(c::files::get).head(c::files::head).put(c::files::put))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/commit", post(c::files::commit))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/images/json", get(images::list))
        .route("/images/create", post(images::create))
        .route("/images/load", post(images::load))
        .route("/images/get", get(images::save_many))
        .route("/images/prune", post(images::prune))
        .route("/images/search", get(registries::search))
        .route("/images/{*name}", get(images::get_named).post(images::post_named).delete(images::remove))
        .route("/networks", get(n::list::list))
        .route("/networks/{id}", get(n::list::inspect).delete(n::remove::remove))
        .route("/networks/{id}/connect", post(n::connect::connect))
        .route("/networks/{id}/disconnect", post(n::connect::disconnect))
        .route("/networks/create", post(n::create::create))
        .route("/networks/prune", post(n::remove::prune))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).put(volumes::update).delete(volumes::remove))
        .route("/build", post(build::build))
        .route("/build/prune", post(build::prune))
        .route("/build/cancel", post(build::cancel))
        .route("/session", post(system::no_build))
        .route("/swarm", get(swarm::no_manager))
        .route("/swarm/init", post(swarm::unsupported))
        .route("/swarm/join", post(swarm::unsupported))
        .route("/swarm/leave", post(swarm::leave))
        .route("/nodes", get(swarm::no_manager))
        .route("/services", get(swarm::no_manager))
        .route("/tasks", get(swarm::no_manager))
        .route("/secrets", get(swarm::no_manager))
        .route("/configs", get(swarm::no_manager))
        .route("/silo/registry", get(registry::get))
        .route("/silo/down", post(system::down))
        .route(
            "/silo/containers/{id}/adapters",
            get(c::adapters::list).post(c::adapters::add).put(c::adapters::set),
        )
        .route("/silo/containers/{id}/adapters/{adapter}", delete(c::adapters::remove))
        .route("/silo/pool", get(system::pool))
        .route("/silo/images/check", get(registries::check))
        .fallback(absent)
        .method_not_allowed_fallback(|| async {
            ApiError { status: StatusCode::METHOD_NOT_ALLOWED, message: "method not allowed".to_owned() }
                .into_response()
        })
        .with_state(engine)
}

async fn absent() -> ApiError {
    ApiError::not_found("page not found")
}
