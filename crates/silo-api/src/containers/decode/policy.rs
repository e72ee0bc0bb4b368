//! Restart policy and log.

use silo_engine::{LogConfig, RestartPolicy};

use super::body::{LogBody, Restart};
use crate::error::{Answer, ApiError};

/// `--restart`.
pub(crate) fn restart_policy(policy: &Restart, auto_remove: bool) -> Answer<RestartPolicy> {
    let retries = policy.maximum_retry_count;
    if retries < 0 {
        return Err(ApiError::bad("invalid restart policy: maximum retry count cannot be negative"));
    }
    let parsed = match policy.name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure { max_retries: u32::try_from(retries).unwrap_or(u32::MAX) },
        other => {
            return Err(ApiError::bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    if retries > 0 && !matches!(parsed, RestartPolicy::OnFailure { .. }) {
        return Err(ApiError::bad(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if auto_remove && parsed != RestartPolicy::No {
        return Err(ApiError::bad("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(parsed)
}

pub(super) fn log_config(body: &LogBody) -> Answer<LogConfig> {
    let driver = match body.r#type.as_str() {
        "" | "json-file" => "json-file",
        "none" => "none",
        other => return Err(ApiError::bad(format!("logger: no log driver named '{other}' is registered"))),
    };
    let mut log = LogConfig { driver: driver.to_owned(), options: body.config.clone(), ..Default::default() };
    for (name, value) in &body.config {
        let invalid = || ApiError::bad(format!("invalid value for log-opt {name}: {value:?}"));
        match name.as_str() {
            "max-size" => {
                let size = silo_engine::size::decimal(value).filter(|size| *size > 0);
                log.max_size = size.ok_or_else(invalid)?;
            }
            "max-file" => log.max_files = value.parse().ok().filter(|n| *n >= 1).ok_or_else(invalid)?,
            "mode" if value == "blocking" => {}
            other => return Err(ApiError::bad(format!("unknown log opt '{other}' for {driver} log driver"))),
        }
    }
    Ok(log)
}
