//! Runs the host's programs that a base build needs (`apt-get`, `dpkg-deb`, `unshare`); the only place that does.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Not installed, or not executable.
    #[error("cannot run {tool}: {source}; is the package that brings it installed?")]
    Start {
        /// Program.
        tool: String,
        /// Why.
        source: std::io::Error,
    },
    /// Ended with an error.
    #[error("{tool} failed ({status}): {message}")]
    Failed {
        /// Program and first argument.
        tool: String,
        /// Exit status.
        status: String,
        /// The end of what it wrote to standard error.
        message: String,
    },
}

fn command(tool: &str, args: &[&OsStr]) -> Command {
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn finish(tool: &str, args: &[&OsStr], output: &std::process::Output) -> Result<(), ToolError> {
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(ToolError::Failed {
        tool: format!(
            "{tool} {}",
            args.iter()
                .find(|a| !a.as_encoded_bytes().starts_with(b"-"))
                .map_or(String::new(), |a| a.to_string_lossy().into_owned(),)
        ),
        status: output.status.to_string(),
        message: essence(&message),
    })
}

/// What `apt-get` calls errors, which need not be what it says last; of other tools the end.
fn essence(message: &str) -> String {
    let mut lines: Vec<&str> = message.lines().filter(|line| line.starts_with("E: ")).collect();
    if lines.is_empty() {
        lines = message.lines().collect();
        lines.drain(..lines.len().saturating_sub(5));
    }
    lines.join("; ")
}

/// Runs `tool` in `directory` to its end.
pub(super) fn run(tool: &str, args: &[&OsStr], directory: &Path) -> Result<(), ToolError> {
    let output = command(tool, args).current_dir(directory).stdout(Stdio::null()).output();
    finish(tool, args, &output.map_err(|source| ToolError::Start { tool: tool.into(), source })?)
}

/// Runs `tool` in `directory` to its end; returns what it wrote to standard output.
pub(super) fn output(tool: &str, args: &[&OsStr], directory: &Path) -> Result<String, ToolError> {
    let output = command(tool, args).current_dir(directory).output();
    let output = output.map_err(|source| ToolError::Start { tool: tool.into(), source })?;
    finish(tool, args, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Hands `tool`'s standard output to `read` while it runs; returns what `read` returned once the tool is done.
pub(super) fn read_from<T>(
    tool: &str,
    args: &[&OsStr],
    read: impl FnOnce(&mut dyn Read) -> T,
) -> Result<T, ToolError> {
    let mut child = command(tool, args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ToolError::Start { tool: tool.into(), source })?;
    let result = child.stdout.take().map(|mut stdout| {
        let result = read(&mut stdout);
        // A reader that stopped early must not make the tool fail with a broken pipe.
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        result
    });
    let output = child.wait_with_output().map_err(|source| ToolError::Start { tool: tool.into(), source })?;
    finish(tool, args, &output)?;
    result.ok_or_else(|| ToolError::Start {
        tool: tool.into(),
        source: std::io::Error::other("no standard output"),
    })
}

#[cfg(test)]
mod tests {
    use super::essence;

    #[test]
    fn an_error_is_told_though_explanations_follow() {
        let apt = "E: Failed to fetch i386/Packages\n  size\n  hash\n  hash\n  date\n  x\nE: Some failed\n";
        assert_eq!(essence(apt), "E: Failed to fetch i386/Packages; E: Some failed");
        assert_eq!(essence("a\nb\nc\nd\ne\nf"), "b; c; d; e; f");
        assert_eq!(essence(""), "");
    }
}
