//! `ps`.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde_json::{Value, json};
use silo_engine::{ContainerRecord, ContainerSummary, Engine, Status};

use super::{endpoints, inspect};
use crate::error::Answer;
use crate::params::Params;
use crate::version::ApiVersion;

/// go-units' HumanDuration.
fn human(since: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(since).as_secs().max(0);
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..=59 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`.
fn status(record: &ContainerRecord) -> String {
    let state = &record.state;
    let started = state.started_at.map(human).unwrap_or_default();
    let finished = state.finished_at.map(human).unwrap_or_default();
    let health = record.health.as_ref().map_or(String::new(), |h| match h.status.as_str() {
        "starting" => " (health: starting)".to_owned(),
        other => format!(" ({other})"),
    });
    match state.status {
        Status::Running => format!("Up {started}{health}"),
        Status::Paused => format!("Up {started} (Paused)"),
        Status::Restarting => format!("Restarting ({}) {finished} ago", state.exit_code),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {finished} ago", state.exit_code),
    }
}

/// The command as `ps` shows it: parts with blanks are quoted.
fn command(record: &ContainerRecord) -> String {
    let config = &record.spec.config;
    let parts = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let quoted = parts.map(|p| if p.contains(char::is_whitespace) { format!("'{p}'") } else { p.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// One row; `links` are the names that the container has by others' links.
pub(crate) fn row(
    engine: &Engine,
    summary: &ContainerSummary,
    links: Option<&Vec<String>>,
    version: ApiVersion,
) -> Value {
    let record = &summary.record;
    // dockerd shows the ID once the name has gone to another image.
    let image = match engine.images().get(&record.spec.image) {
        Ok(image) if image.id.as_str() == record.image_id => record.spec.image.clone(),
        _ => record.image_id.clone(),
    };
    let mut ports: Vec<Value> = record
        .published
        .iter()
        .map(|p| json!({"IP": p.host_ip, "PrivatePort": p.container_port, "PublicPort": p.host_port, "Type": p.protocol}))
        .collect();
    if record.state.status.is_running() {
        for exposed in &record.spec.config.exposed_ports {
            let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let shown = record
                .published
                .iter()
                .any(|p| p.container_port.to_string() == port && p.protocol == protocol);
            if let (Ok(port), false) = (port.parse::<u16>(), shown) {
                ports.push(json!({"PrivatePort": port, "Type": protocol}));
            }
        }
    }
    let mut names = vec![format!("/{}", record.name)];
    names.extend(links.into_iter().flatten().map(|n| format!("/{n}")));
    let mut out = json!({
        "Id": record.id, "Names": names, "Image": image, "ImageID": record.image_id,
        "Command": command(record), "Created": record.created.as_second(), "Ports": ports,
        "Labels": record.spec.config.labels, "State": record.state.status.as_str(), "Status": status(record),
        "HostConfig": {"NetworkMode": inspect::network_mode(record)},
        "NetworkSettings": {"Networks": endpoints::networks(record, version)}, "Mounts": inspect::mounts(record),
    });
    if let Some((own, whole)) = summary.size {
        if own > 0 {
            out["SizeRw"] = own.into();
        }
        out["SizeRootFs"] = whole.into();
    }
    out
}

pub(crate) async fn list(
    State(engine): State<Engine>,
    Extension(version): Extension<ApiVersion>,
    query: Params,
) -> Answer {
    let limit = query.number::<i64>("limit")?.and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
    let list = engine.list(query.flag("all"), limit, query.flag("size"), &query.filters()?).await?;
    let links = engine.link_names();
    let rows: Vec<Value> = list.iter().map(|c| row(&engine, c, links.get(&c.record.id.0), version)).collect();
    Ok(axum::Json(rows).into_response())
}
