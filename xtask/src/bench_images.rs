//! The part of the bench that is about images: pull from and push to a registry on this machine, beside dockerd.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench_measure::{median, timed};
use crate::registry::Registry;
use crate::{Outcome, run};

/// Layers of the image that is measured.
const LAYERS: usize = 4;
/// Files in each, and bytes of each file.
const FILES: usize = 600;
const BYTES: usize = 87_000;
/// Runs to take the median of; each has images of its own, for a file system (ext4) is slow for a minute where much was
/// deleted.
const RUNS: usize = 3;

/// Seconds, medians.
pub(crate) struct Figures {
    /// Of an image that is not here.
    pub(crate) pull: f64,
    /// Of an image that was pulled, to a registry that has none of it.
    pub(crate) push_pulled: f64,
    /// Of an image that was loaded, to a registry that has none of it.
    pub(crate) push_loaded: f64,
}

/// Text that gets about a third of its size by gzip, as programs and documents do.
fn text(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut out = Vec::with_capacity(BYTES + 64);
    while out.len() < BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(format!("word{} {:x};\n", state >> 54, state >> 33).as_bytes());
    }
    out
}

fn docker(host: &str, arguments: &[&str]) -> Outcome {
    run(Command::new("docker").env("DOCKER_HOST", host).args(arguments).stdout(Stdio::null()))
}

fn archive(dir: &Path, number: usize) -> String {
    dir.join(format!("image{number}.tar")).display().to_string()
}

/// Makes the images in an engine, pushes them to a registry and writes half of them as archives.
pub(crate) fn prepare(host: &str, registry: &Registry, dir: &Path) -> Outcome {
    println!("making {} images", 2 * RUNS);
    let at = |e: std::io::Error| format!("{}: {e}", dir.display());
    for number in 0..2 * RUNS {
        let name = format!("{}/bench:{number}", registry.host());
        for layer in 0..LAYERS {
            let files = dir.join(format!("layer{layer}"));
            std::fs::create_dir_all(&files).map_err(at)?;
            for file in 0..FILES {
                let seed = (number * LAYERS + layer) * FILES + file;
                std::fs::write(files.join(file.to_string()), text(seed)).map_err(at)?;
            }
            if layer == 0 {
                let script = "tar -C \"$1\" -c . | docker import -c 'CMD [\"x\"]' - \"$2\"";
                let mut import = Command::new("sh");
                import.args(["-c", script, "sh"]).arg(&files).arg(&name).env("DOCKER_HOST", host);
                run(import.stdout(Stdio::null()))?;
                continue;
            }
            docker(host, &["create", "--name", "layer", &name])?;
            docker(host, &["cp", &files.display().to_string(), "layer:/"])?;
            docker(host, &["commit", "layer", &name])?;
            docker(host, &["rm", "layer"])?;
        }
        match number < RUNS {
            true => docker(host, &["push", "-q", &name])?,
            false => docker(host, &["save", "-o", &archive(dir, number), &name])?,
        }
    }
    Ok(())
}

/// Measures one engine, which has none of the images.
pub(crate) fn measure(host: &str, registry: &Registry, dir: &Path) -> Outcome<Figures> {
    println!("measuring pull and push of {host}");
    let push = |name: &str| -> Outcome<f64> {
        let fresh = Registry::start()?;
        let to = format!("{}/bench:1", fresh.host());
        docker(host, &["tag", name, &to])?;
        timed(|| docker(host, &["push", "-q", &to]))
    };
    let (mut pull, mut push_pulled, mut push_loaded) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..RUNS {
        let name = format!("{}/bench:{number}", registry.host());
        pull.push(timed(|| docker(host, &["pull", "-q", &name]))?);
        push_pulled.push(push(&name)?);
        let loaded = number + RUNS;
        docker(host, &["load", "-q", "-i", &archive(dir, loaded)])?;
        push_loaded.push(push(&format!("{}/bench:{loaded}", registry.host()))?);
    }
    let figures =
        Figures { pull: median(pull), push_pulled: median(push_pulled), push_loaded: median(push_loaded) };
    println!(
        "pull {:.2} s, push of what was pulled {:.2} s, of what was loaded {:.2} s",
        figures.pull, figures.push_pulled, figures.push_loaded
    );
    Ok(figures)
}
