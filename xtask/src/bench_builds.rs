//! The part of the bench that is about loads and builds, beside dockerd's classic builder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Outcome, run};

/// Bytes of the image that is loaded.
const BYTES: usize = 500_000_000;
/// Files of the image and of the context that have many.
const FILES: usize = 20_000;
/// Runs to take the median of.
const RUNS: usize = 3;

/// A build of ten steps as services have them: settings, files, programs run.
const STEPS: &str = "FROM bench-base:1\nENV APP=/app\nWORKDIR /app\nCOPY one .\nRUN mkdir -p data && echo 1 > data/1\n\
    RUN cat one > data/2\nCOPY two .\nRUN for i in 1 2 3 4 5 6 7 8 9; do echo $i > data/f$i; done\nRUN rm data/f1\nCMD [\"cat\", \"one\"]\n";

/// Rows: title, the share of dockerd's time that is promised.
pub(crate) const ROWS: &[(&str, f64)] = &[
    ("load of 500 MB in one file, s", 0.33),
    ("load of 500 MB in 20,000 files, s", 0.67),
    ("build of 10 steps, cold, s", 0.4),
    ("build of 10 steps, cached, s", 0.4),
    ("build with COPY of 20,000 files, s", 0.5),
];

/// What both engines are given.
pub(crate) struct Given {
    one: PathBuf,
    many: PathBuf,
    steps: PathBuf,
    copy: PathBuf,
}

/// Bytes that no compression shortens, the same each time.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    out.truncate(size);
    out
}

fn docker(host: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", host).env("DOCKER_BUILDKIT", "0").args(arguments);
    run(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Makes archives and contexts; `host` is an engine that saves the images.
pub(crate) fn prepare(host: &str, dir: &Path) -> Outcome<Given> {
    let at = |e: std::io::Error| format!("{}: {e}", dir.display());
    let (one, many) = (dir.join("tree-one"), dir.join("tree-many"));
    let (steps, copy) = (dir.join("steps"), dir.join("copy"));
    for new in [&one, &many, &steps, &copy] {
        std::fs::create_dir_all(new).map_err(at)?;
    }
    std::fs::write(one.join("file"), noise(BYTES, 1)).map_err(at)?;
    for number in 0..FILES {
        let (below, inside) =
            (many.join(format!("d{}", number % 100)), copy.join(format!("files/d{}", number % 100)));
        for new in [&below, &inside] {
            std::fs::create_dir_all(new).map_err(at)?;
        }
        let name = format!("f{number}");
        std::fs::write(below.join(&name), noise(BYTES / FILES, number as u64)).map_err(at)?;
        std::fs::write(inside.join(&name), noise(2_000, number as u64)).map_err(at)?;
    }
    std::fs::write(copy.join("Dockerfile"), "FROM bench-base:1\nCOPY files /files\n").map_err(at)?;
    std::fs::write(steps.join("Dockerfile"), STEPS).map_err(at)?;
    std::fs::write(steps.join("one"), "one\n").map_err(at)?;
    std::fs::write(steps.join("two"), "two\n").map_err(at)?;
    let mut archives = Vec::new();
    for (tree, name) in [(one, "load-one:1"), (many, "load-many:1")] {
        let script = "tar -C \"$1\" -c . | docker import -c 'CMD [\"x\"]' - \"$2\"";
        let mut import = Command::new("sh");
        import.args(["-c", script, "sh"]).arg(&tree).arg(name).env("DOCKER_HOST", host);
        run(import.stdout(Stdio::null()))?;
        let archive = dir.join(format!("{}.tar", &name[..name.len() - 2]));
        docker(host, &["save", "-o", &text(&archive), name])?;
        std::fs::remove_dir_all(&tree).map_err(at)?;
        archives.push(archive);
    }
    let many = archives.pop().ok_or("no archive")?;
    let one = archives.pop().ok_or("no archive")?;
    Ok(Given { one, many, steps, copy })
}

fn median_of(mut before: impl FnMut() -> Outcome, mut work: impl FnMut() -> Outcome) -> Outcome<f64> {
    let mut all = Vec::new();
    for _ in 0..RUNS {
        before()?;
        let start = Instant::now();
        work()?;
        all.push(start.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// Measures one engine, which has `bench-base:1` (busybox); seconds, in the order of [`ROWS`].
pub(crate) fn measure(host: &str, given: &Given) -> Outcome<Vec<f64>> {
    println!("measuring load and build of {host}");
    let mut all = Vec::new();
    for (archive, name) in [(&given.one, "load-one:1"), (&given.many, "load-many:1")] {
        let archive = text(archive);
        // The first has nothing to remove.
        let gone = || docker(host, &["rmi", "-f", name]).or(Ok(()));
        all.push(median_of(gone, || docker(host, &["load", "-q", "-i", &archive]))?);
        docker(host, &["rmi", "-f", name])?;
    }
    let (steps, copy) = (text(&given.steps), text(&given.copy));
    let nothing = || Ok(());
    all.push(median_of(nothing, || {
        docker(host, &["build", "-q", "--no-cache", "-t", "bench-steps", &steps])
    })?);
    docker(host, &["build", "-q", "-t", "bench-steps", &steps])?;
    all.push(median_of(nothing, || docker(host, &["build", "-q", "-t", "bench-steps", &steps]))?);
    all.push(median_of(nothing, || docker(host, &["build", "-q", "--no-cache", "-t", "bench-copy", &copy]))?);
    println!(
        "{}",
        all.iter().zip(ROWS).map(|(s, (title, _))| format!("{title} {s:.2}")).collect::<Vec<_>>().join("; ")
    );
    Ok(all)
}
