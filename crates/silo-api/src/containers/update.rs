//! update.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::json;
use silo_engine::{Engine, LimitsUpdate, Update};

use super::decode::{self, HostConfig};
use crate::error::{Answer, ApiError};
use crate::params;

pub(crate) async fn update(State(engine): State<Engine>, Path(id): Path<String>, body: Body) -> Answer {
    let value = params::json_value(body).await?;
    decode::refuse_unhonoured(&value)?;
    let host: HostConfig = decode::typed(value)?;
    decode::check_limits(&host, true)?;
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return Err(ApiError::bad(
            "CpuRealtimePeriod and CpuRealtimeRuntime cannot be updated by this version of silo",
        ));
    }
    let set = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    let limits = LimitsUpdate {
        memory: set(host.memory),
        memory_reservation: set(host.memory_reservation),
        memory_swap: Some(host.memory_swap).filter(|s| *s != 0),
        nano_cpus: set(host.nano_cpus),
        cpu_quota: Some(host.cpu_quota).filter(|q| *q != 0),
        cpu_period: set(host.cpu_period),
        cpu_shares: set(host.cpu_shares),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids: host.pids_limit.filter(|p| *p != 0),
        blkio_weight: Some(host.blkio_weight).filter(|w| *w > 0),
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        oom_kill_disable: host.oom_kill_disable,
        cpu_count: set(host.cpu_count),
        cpu_percent: set(host.cpu_percent),
        io_bandwidth: Some(host.io_maximum_bandwidth).filter(|n| *n > 0),
        io_operations: Some(host.io_maximum_iops).filter(|n| *n > 0),
        io: decode::devices(&host),
    };
    let restart = match host.restart_policy.name.as_str() {
        "" => None,
        _ => Some(decode::restart_policy(&host.restart_policy, false)?),
    };
    let warnings = engine.update(&id, Update { limits, restart }).await?;
    Ok(axum::Json(
        json!({"Warnings": if warnings.is_empty() { serde_json::Value::Null } else { json!(warnings) }}),
    )
    .into_response())
}
