//! What of a request is refused by name since it is not honoured, and what has another type than it should.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Answer, ApiError};
use crate::names;

/// Fields of `HostConfig` that are refused unless they have their zero value.
const UNHONOURED: &[&str] = &["Cgroup", "DeviceRequests", "KernelMemory", "KernelMemoryTCP", "UsernsMode"];

pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(true) => false,
    }
}

/// 400 for the first field that this version cannot honour.
pub(crate) fn refuse_unhonoured(host: &Value) -> Answer<()> {
    for name in UNHONOURED {
        if host.get(name).is_some_and(|v| !is_zero(v)) {
            return Err(ApiError::bad(format!("HostConfig.{name} is not supported by this version of silo")));
        }
    }
    if let Some(runtime) = host.get("Runtime").and_then(Value::as_str)
        && !matches!(runtime, "" | "runc" | "silo" | "io.containerd.runc.v2")
    {
        return Err(ApiError::bad(format!("unknown or invalid runtime name: {runtime}")));
    }
    Ok(())
}

/// A value as a typed document; the error names the field.
pub(crate) fn typed<T: for<'a> Deserialize<'a> + Default>(value: Value) -> Answer<T> {
    if value.is_null() {
        return Ok(T::default());
    }
    names::from_value(value).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))
}
