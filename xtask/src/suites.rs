//! Test suites of others that lie beside the repository: docker-py's own integration tests.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, demo::Daemon, run};

/// The parts whose features this version has; the others follow with their features.
const PARTS: &[&str] = &["tests/integration/api_exec_test.py", "tests/integration/api_healthcheck_test.py"];

/// Runs docker-py's tests against a daemon of its own. Absent suite: said aloud, not an error.
pub(crate) fn docker_py(root: &Path, silo: &Path) -> Outcome {
    let suite = root.join("../shared/suites/docker-py/run");
    if !suite.exists() {
        println!("SKIPPED: docker-py's suite is not at {}", suite.display());
        return Ok(());
    }
    let daemon = Daemon::start(silo, "sbpy")?;
    let out = daemon.dir().join("docker-py");
    run(Command::new(&suite)
        .args(PARTS)
        .env("DOCKER_HOST", daemon.host())
        .env("OUT", &out)
        .env("LIMIT", "600"))
    .map_err(|e| {
        let report = std::fs::read_to_string(out.join("report.txt")).unwrap_or_default();
        format!("docker-py's suite: {e}\n{report}")
    })
}
