//! `stats` and `top`.

use std::io::Read;

use silo_sandbox::{Stats, Tool};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result, sandbox_error};
use crate::ids::random_id;
use crate::record::Status;

use super::keeper::{are_asked_for, tool_error};

/// Most bytes of a list of processes.
const LISTED: u64 = 16 << 20;

impl Engine {
    /// Usage at this moment; zeros for a container that does not run.
    pub async fn stats(&self, name: &str) -> Result<Stats> {
        let entry = self.find(name)?;
        match entry.running() {
            Ok(sandbox) => match sandbox.stats().await {
                Ok(stats) => Ok(stats),
                Err(_) if !entry.status().is_running() => Ok(Stats::default()),
                Err(e) => Err(sandbox_error(e)),
            },
            Err(_) => Ok(Stats::default()),
        }
    }

    /// `ps` of the host (what the agent knows of it, in a machine) with `arguments`, limited to the container's processes:
    /// titles and rows.
    pub async fn top(&self, name: &str, arguments: &str) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        let arguments = if arguments.trim().is_empty() { "-ef" } else { arguments };
        if !arguments.chars().all(|c| c.is_ascii_alphanumeric() || " -,=_:%".contains(c)) {
            return Err(EngineError::invalid(format!(
                "Error running ps: arguments {arguments:?} are not allowed"
            )));
        }
        let entry = self.find(name)?;
        if entry.status() == Status::Restarting {
            return Err(EngineError::conflict(format!(
                "container {} is restarting, wait until the container is running",
                entry.id
            )));
        }
        let sandbox = entry.running()?;
        if entry.with(are_asked_for) {
            // Its kernel's processes are no processes of the host's; `ps` may not be in it.
            let arguments = arguments.split_whitespace().map(str::to_owned).collect();
            let tool = Tool::Processes { arguments };
            let mut stream = sandbox.tool(random_id(), tool).await.map_err(sandbox_error)?;
            return blocking(move || {
                let mut text = String::new();
                let read = (&mut stream).take(LISTED).read_to_string(&mut text);
                read.and_then(|_| stream.finish()).map_err(tool_error)?;
                table(&text, |_| true)
            })
            .await;
        }
        let pids = sandbox.pids().await.map_err(sandbox_error)?;
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        blocking(move || {
            let output = std::process::Command::new("ps")
                .args(&arguments)
                .output()
                .map_err(|e| EngineError::internal(format!("Error running ps: {e}")))?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(EngineError::invalid(format!("Error running ps: {}", text.trim())));
            }
            table(&String::from_utf8_lossy(&output.stdout), |pid| pids.contains(&pid))
        })
        .await
    }
}

/// Picks the rows of wanted processes out of what ps printed.
fn table(text: &str, wanted: impl Fn(i32) -> bool) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|t| t == "PID")
        .ok_or_else(|| EngineError::invalid("Couldn't find PID field in ps output"))?;
    let rows = lines
        .filter_map(|line| {
            let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let pid: i32 = fields.get(column)?.parse().ok()?;
            if !wanted(pid) {
                return None;
            }
            if fields.len() > titles.len() {
                let rest = fields.split_off(titles.len() - 1).join(" ");
                fields.push(rest);
            }
            Some(fields)
        })
        .collect();
    Ok((titles, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_only() {
        let text = "UID PID CMD\nroot 1 init\nroot 42 sleep 60 and more\n";
        let (titles, rows) = table(text, |pid| pid == 42).unwrap();
        assert_eq!(titles, ["UID", "PID", "CMD"]);
        assert_eq!(rows, [["root", "42", "sleep 60 and more"]]);
        assert!(table("A B\n", |_| true).is_err());
    }
}
