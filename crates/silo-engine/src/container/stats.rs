//! `stats` and `top`.

use silo_sandbox::Stats;

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result, sandbox_error};
use crate::record::Status;

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

    /// `ps` of the host with `arguments`, limited to the container's processes: titles and rows.
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
        let pids = entry.running()?.pids().await.map_err(sandbox_error)?;
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
            table(&String::from_utf8_lossy(&output.stdout), &pids)
        })
        .await
    }
}

/// Picks the rows of `pids` out of what ps printed.
fn table(text: &str, pids: &[i32]) -> Result<(Vec<String>, Vec<Vec<String>>)> {
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
            if !pids.contains(&pid) {
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
        let (titles, rows) = table(text, &[42]).unwrap();
        assert_eq!(titles, ["UID", "PID", "CMD"]);
        assert_eq!(rows, [["root", "42", "sleep 60 and more"]]);
        assert!(table("A B\n", &[]).is_err());
    }
}
