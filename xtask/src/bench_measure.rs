//! How the parts of the bench take a figure: the time that something took, the median of many, a command that has to end.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::Outcome;

/// Seconds that work takes.
pub(crate) fn timed(work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The median of figures; not a number if there are none.
pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A program that is asked to end after so many seconds, and killed if it does not.
pub(crate) fn limited(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds.to_string(), program]).stdin(Stdio::null());
    command
}

/// Runs a command to its end; what it printed, trimmed. An error has its words.
pub(crate) fn said(command: &mut Command) -> Outcome<String> {
    let name = format!("{command:?}");
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{name}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match status.success() {
        true => Ok(text(&stdout)),
        false => Err(format!("{name}: {status}: {} {}", text(&stdout), text(&stderr))),
    }
}
