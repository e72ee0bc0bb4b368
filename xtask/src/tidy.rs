//! The repository checks itself: arrows between crates, files that say what they are for, no unfinished code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// The arrows that HOUSE.md allows.
const ARROWS: &[(&str, &[&str])] = &[
    ("silo", &["silo-api", "silo-build", "silo-engine", "silo-sandbox", "silo-hive"]),
    ("silo-api", &["silo-build", "silo-engine"]),
    ("silo-build", &["silo-engine", "silo-image"]),
    ("silo-engine", &["silo-image", "silo-guest", "silo-sandbox", "silo-network"]),
    ("silo-image", &["silo-layer", "silo-sys"]),
    ("silo-guest", &["silo-layer", "silo-hive", "silo-sys"]),
    ("silo-sandbox", &["silo-runtime", "silo-sys"]),
    ("silo-network", &["silo-sys"]),
    ("silo-layer", &["silo-sys"]),
    ("silo-runtime", &["silo-sys"]),
    ("silo-hive", &[]),
    ("silo-sys", &[]),
];

/// Lines a file may have.
const LONGEST: usize = 800;

pub(crate) fn sources() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(crate::root()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let files: Vec<PathBuf> = text.lines().map(|l| crate::root().join(l)).filter(|p| p.exists()).collect();
    assert!(files.len() > 50, "git lists only {} source files", files.len());
    files
}

#[test]
fn crates_depend_only_downwards() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(crate::root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(may) = allowed.get(name) else { continue };
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(
                !on.starts_with("silo") || may.contains(&on),
                "{name} -> {on} is not among the house's arrows"
            );
        }
    }
    assert_eq!(seen, ARROWS.len());
}

#[test]
fn every_file_opens_with_what_it_is_for_and_is_not_too_long() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with a sentence", path.display());
        assert!(text.lines().count() <= LONGEST, "{} has more than {LONGEST} lines", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not find itself.
    let needles: Vec<String> = ["todo", "unimplemented", "dbg"]
        .iter()
        .map(|w| format!("{w}!("))
        .chain([format!("#[{}", "ignore")])
        .collect();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for needle in &needles {
            assert!(!text.contains(needle), "{} has {needle}", path.display());
        }
    }
}

/// What is kept in the repository, as paths from its root.
fn kept(pattern: &str) -> Vec<String> {
    let output = Command::new("git").args(["ls-files", pattern]).current_dir(crate::root()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn paths_that_pages_name_exist() {
    let root = crate::root();
    let tops: std::collections::BTreeSet<String> =
        kept(".").iter().filter_map(|path| Some(format!("{}/", path.split_once('/')?.0))).collect();
    let mut checked = 0;
    for page in kept("*.md") {
        let text = std::fs::read_to_string(root.join(&page)).unwrap();
        // Backquoted, from the root; a command or a pattern is no path.
        let quoted = text.split('`').skip(1).step_by(2).filter(|p| tops.iter().any(|top| p.starts_with(top)));
        let quoted = quoted.filter(|p| !p.contains([' ', '*', '<', '{', '\n'])).map(|p| root.join(p));
        // Linked, from the page.
        let here = root.join(&page).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|l| !l.is_empty() && !l.contains(':')).map(|l| here.join(l));
        for path in quoted.chain(links) {
            assert!(path.exists(), "{page} names {}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} paths");
}

/// Routes of the Docker Engine API 1.50 (https://docs.docker.com/reference/api/engine/, swagger's paths) with what the router
/// makes of them: `+` served, `-` a later issue's, and refused as unknown.
const API: &str = "
+ GET /_ping
+ HEAD /_ping
+ GET /version
+ GET /info
+ GET /events
+ GET /system/df
+ POST /auth
- POST /session
+ POST /build
+ POST /build/prune
+ POST /commit
+ GET /containers/json
+ POST /containers/create
+ POST /containers/prune
+ DELETE /containers/{id}
+ GET /containers/{id}/json
+ GET /containers/{id}/top
+ GET /containers/{id}/logs
+ GET /containers/{id}/changes
+ GET /containers/{id}/export
+ GET /containers/{id}/stats
+ POST /containers/{id}/resize
+ POST /containers/{id}/start
+ POST /containers/{id}/stop
+ POST /containers/{id}/restart
+ POST /containers/{id}/kill
+ POST /containers/{id}/update
+ POST /containers/{id}/rename
+ POST /containers/{id}/pause
+ POST /containers/{id}/unpause
+ POST /containers/{id}/attach
+ GET /containers/{id}/attach/ws
+ POST /containers/{id}/wait
+ GET /containers/{id}/archive
+ HEAD /containers/{id}/archive
+ PUT /containers/{id}/archive
+ POST /containers/{id}/exec
+ POST /exec/{id}/start
+ POST /exec/{id}/resize
+ GET /exec/{id}/json
+ GET /distribution/{*name}
+ GET /images/json
+ POST /images/create
+ POST /images/load
+ GET /images/get
+ POST /images/prune
+ GET /images/search
+ GET /images/{*name}
+ POST /images/{*name}
+ DELETE /images/{*name}
+ GET /networks
+ GET /networks/{id}
+ DELETE /networks/{id}
+ POST /networks/create
+ POST /networks/{id}/connect
+ POST /networks/{id}/disconnect
+ POST /networks/prune
+ GET /volumes
+ POST /volumes/create
+ GET /volumes/{name}
+ DELETE /volumes/{name}
+ PUT /volumes/{name}
+ POST /volumes/prune
- GET /plugins
- GET /swarm
- GET /nodes
- GET /services
- GET /tasks
- GET /secrets
- GET /configs
";

/// Served beyond the specification: the removal of a link, whose name has a slash; what `silo registry`, `silo pool`,
/// `silo image check`, `silo adapter` and `silo system down` ask for.
const BEYOND: &[&str] = &[
    "DELETE /containers/{holder}/{alias}",
    "POST /build/cancel",
    "GET /silo/registry",
    "GET /silo/pool",
    "GET /silo/images/check",
    "GET /silo/containers/{id}/adapters",
    "POST /silo/containers/{id}/adapters",
    "PUT /silo/containers/{id}/adapters",
    "DELETE /silo/containers/{id}/adapters/{adapter}",
    "POST /silo/down",
];

#[test]
fn the_router_has_the_routes_of_the_specification() {
    let text = std::fs::read_to_string(crate::root().join("crates/silo-api/src/router.rs")).unwrap();
    // Each route is a path and calls named after methods.
    let mut served = std::collections::BTreeSet::new();
    for route in text.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let calls = route.split(".route(").next().unwrap();
        if calls.contains("system::no_build") || calls.contains("swarm::") {
            // Refused by a sentence: not served.
            continue;
        }
        for method in ["get", "post", "put", "delete", "head"] {
            if [' ', '.'].iter().any(|before| calls.contains(&format!("{before}{method}("))) {
                served.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let line =
        |sign: char| API.lines().filter_map(move |l| l.strip_prefix(sign)).map(|l| l.trim().to_owned());
    let mut wanted: std::collections::BTreeSet<String> = line('+').collect();
    wanted.extend(BEYOND.iter().map(|r| (*r).to_owned()));
    assert_eq!(served, wanted);
    for later in line('-') {
        assert!(!served.contains(&later), "{later} is served now: give it a +");
    }
}
