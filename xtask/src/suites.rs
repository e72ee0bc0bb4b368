//! Test suites of others that lie beside the repository: docker-py's own integration tests.

use std::path::Path;
use std::process::Command;

use crate::registry::Registry;
use crate::{Outcome, demo::Daemon, run};

/// Files whose features this version does not have: swarm and plugins (`docs/api.md` has the reasons).
const LATER: &[&str] = &[
    "api_config_test.py",
    "api_plugin_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
];

/// Single tests of the other files: three want a swarm; the last two read the log right after a start, before the program has
/// written to it, which dockerd's slower start hides.
const LATER_TESTS: &str = "not test_create_network_attachable and not test_create_network_ingress \
    and not test_create_inspect_network_with_scope \
    and not test_build_in_context and not test_build_out_of_context_dockerfile";

/// Tests that pull from Docker Hub, which passes on dockerd only where that can be had; here a mirror stands for it.
/// But for one that wants an image of a digest that only Docker Hub has.
const PULLS: &str = "(PullImageTest or InspectDistributionTest or PruneImagesTest or test_get_load_image \
    or ImageCollectionTest or ImageTest) and not test_pull_with_sha and not test_build";
/// How many of them there are.
const PULL_COUNT: usize = 14;

/// What stands on Docker Hub: as much of it as the tests pull.
fn fill(daemon: &Daemon, registry: &Registry) -> Outcome {
    crate::demo::busybox(daemon)?;
    let script = "set -e; d=$(mktemp -d); head -c 100000 /dev/urandom > $d/hello; \
        tar -C $d -c . | docker import -c 'CMD [\"/hello\"]' - $1/library/hello-world:latest; rm -rf $d; \
        for i in alpine:latest alpine:3.10 busybox:latest; do docker tag localhost/busybox $1/library/$i; done; \
        for i in hello-world:latest alpine:latest alpine:3.10 busybox:latest; do docker push -q $1/library/$i; docker rmi $1/library/$i; done";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", &registry.host()]).env("DOCKER_HOST", daemon.host());
    run(command.stdout(std::process::Stdio::null()))
}

/// Runs docker-py's tests against a daemon of its own. Absent suite: said aloud, not an error.
pub(crate) fn docker_py(root: &Path, silo: &Path) -> Outcome {
    let suite = root.join("../shared/suites/docker-py/run");
    if !suite.exists() {
        println!("SKIPPED: docker-py's suite is not at {}", suite.display());
        return Ok(());
    }
    let registry = Registry::start()?;
    let mirror = format!("http://{}", registry.host());
    let daemon = Daemon::start_with(silo, "sbpy", &["--registry-mirror", &mirror])?;
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
    })?;
    pulls(&suite, &daemon, &registry)
}

/// Those that pull, whose outcome is in the suite's own report.
fn pulls(suite: &Path, daemon: &Daemon, registry: &Registry) -> Outcome {
    fill(daemon, registry)?;
    let out = daemon.dir().join("docker-py-pulls");
    // Its exit code is about the tests that pass on a dockerd without Docker Hub.
    let _ = Command::new(suite)
        .args(LATER.iter().map(|f| format!("--ignore=tests/integration/{f}")))
        .args(["-k", PULLS])
        .env("DOCKER_HOST", daemon.host())
        .env("OUT", &out)
        .env("LIMIT", "300")
        .env("VENV", daemon.dir().join("docker-py/venv"))
        .stdout(std::process::Stdio::null())
        .status();
    let log = std::fs::read_to_string(out.join("dockerpy.log")).unwrap_or_default();
    let last = log.lines().rfind(|l| l.contains(" passed")).unwrap_or_default();
    let passed = last.split(' ').zip(last.split(' ').skip(1)).find(|(_, word)| word.starts_with("passed"));
    let passed: usize = passed.and_then(|(n, _)| n.parse().ok()).unwrap_or(0);
    println!("docker-py's tests that pull, from a mirror: {last}");
    if last.contains("failed") || last.contains("error") || passed < PULL_COUNT {
        return Err(format!("docker-py's tests that pull: {last}\n{log}"));
    }
    Ok(())
}
