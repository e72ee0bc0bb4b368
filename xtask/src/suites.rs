//! Test suites of others that lie beside the repository: docker-py's own integration tests.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, demo::Daemon, run};

/// Files whose features this version does not have: registries, builds, user-defined networks, swarm and plugins.
const LATER: &[&str] = &[
    "api_build_test.py",
    "api_config_test.py",
    "api_network_test.py",
    "api_plugin_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "models_networks_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
];

/// Single tests of the other files, for the same reasons.
const LATER_TESTS: &str = "not test_build and not test_run_with_network";

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
        .args(LATER.iter().map(|f| format!("--ignore=tests/integration/{f}")))
        .args(["-k", LATER_TESTS])
        .env("DOCKER_HOST", daemon.host())
        .env("OUT", &out)
        .env("LIMIT", "600"))
    .map_err(|e| {
        let report = std::fs::read_to_string(out.join("report.txt")).unwrap_or_default();
        format!("docker-py's suite: {e}\n{report}")
    })
}
