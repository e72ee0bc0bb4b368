//! stats and top.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use silo_engine::Engine;
use silo_engine::sandbox::Stats;
use tokio::sync::mpsc;

use crate::error::Answer;
use crate::params::Params;

/// Between two samples, as dockerd.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn top(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    let (titles, rows) = engine.top(&id, query.get("ps_args").unwrap_or_default()).await?;
    Ok(axum::Json(json!({"Titles": titles, "Processes": rows})).into_response())
}

/// Nanoseconds of processor time of the whole host.
fn system_usage() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal, in USER_HZ (100) ticks.
    first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * 10_000_000
}

fn cpu(stats: &Stats, system: u64) -> Value {
    json!({
        "cpu_usage": {"total_usage": stats.cpu_total, "percpu_usage": stats.cpu_percpu,
            "usage_in_kernelmode": stats.cpu_system, "usage_in_usermode": stats.cpu_user},
        "system_cpu_usage": system, "online_cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": {"periods": stats.throttling_periods, "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_time},
    })
}

const NO_CPU: &str = r#"{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}}"#;

fn sample(id: &str, name: &str, stats: &Stats, before: Option<&Value>, read: &str, preread: &str) -> Value {
    let blkio = |table: &[(u64, u64, String, u64)]| -> Value {
        table
            .iter()
            .map(
                |(major, minor, op, value)| json!({"major": major, "minor": minor, "op": op, "value": value}),
            )
            .collect()
    };
    let host = || crate_memory();
    let limit = if stats.memory_limit == 0 { 0 } else { stats.memory_limit.min(host()) };
    let mut networks = Map::new();
    for (name, n) in &stats.networks {
        networks.insert(
            name.clone(),
            json!({"rx_bytes": n[0], "rx_packets": n[1], "rx_errors": n[2], "rx_dropped": n[3],
                   "tx_bytes": n[4], "tx_packets": n[5], "tx_errors": n[6], "tx_dropped": n[7]}),
        );
    }
    let mut out = json!({
        "name": format!("/{name}"), "id": id, "read": read, "preread": preread,
        "pids_stats": {"current": stats.pids_current}, "num_procs": 0, "storage_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": blkio(&stats.io_service_bytes), "io_serviced_recursive": blkio(&stats.io_serviced),
            "io_queue_recursive": [], "io_service_time_recursive": [], "io_wait_time_recursive": [], "io_merged_recursive": [],
            "io_time_recursive": [], "sectors_recursive": []},
        "cpu_stats": cpu(stats, system_usage()),
        "precpu_stats": before.cloned().unwrap_or_else(|| serde_json::from_str(NO_CPU).unwrap_or_default()),
        "memory_stats": {"usage": stats.memory_usage, "max_usage": stats.memory_max_usage, "stats": stats.memory_stats,
            "limit": limit, "failcnt": stats.memory_failcnt},
    });
    if stats.pids_limit > 0 {
        out["pids_stats"]["limit"] = stats.pids_limit.into();
    }
    if !networks.is_empty() {
        out["networks"] = networks.into();
    }
    out
}

/// Bytes of memory of the host.
fn crate_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    kib * 1024
}

pub(crate) async fn stats(State(engine): State<Engine>, Path(id): Path<String>, query: Params) -> Answer {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let streaming = query.get("stream").is_none() || query.flag("stream");
    let one_shot = query.flag("one-shot");
    let record = engine.container(&id)?;
    let (id, name) = (record.id.0.clone(), record.name.clone());
    let now = || jiff::Timestamp::now().to_string();
    if !streaming {
        let first = engine.stats(&id).await?;
        let first_cpu = cpu(&first, system_usage());
        let first_read = now();
        if one_shot || !record.state.status.is_running() {
            let read = if record.state.status.is_running() { first_read } else { NEVER.to_owned() };
            return Ok(axum::Json(sample(&id, &name, &first, None, &read, NEVER)).into_response());
        }
        tokio::time::sleep(INTERVAL).await;
        let second = engine.stats(&id).await?;
        return Ok(
            axum::Json(sample(&id, &name, &second, Some(&first_cpu), &now(), &first_read)).into_response()
        );
    }
    let (to, from) = mpsc::channel(2);
    tokio::spawn(async move {
        let (mut before, mut preread) = (None, NEVER.to_owned());
        loop {
            let Ok(stats) = engine.stats(&id).await else { return };
            let running = engine.container(&id).is_ok_and(|r| r.state.status.is_running());
            let read = if running { now() } else { NEVER.to_owned() };
            let line = format!("{}\n", sample(&id, &name, &stats, before.as_ref(), &read, &preread));
            if to.send(Ok(Bytes::from(line))).await.is_err() {
                return;
            }
            before = Some(cpu(&stats, system_usage()));
            preread = read;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = to.closed() => return,
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], crate::stream::body(from)).into_response())
}
