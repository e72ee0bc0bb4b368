//! The daemon is killed at random moments of what changes the store of images: the next start has it sound, and without rests.

use std::process::Stdio;

use silo_tests::images::{noise, tar};
use silo_tests::{Daemon, Random};

const BUSYBOX: &str = "localhost/busybox";

/// Kills the daemon up to `most` milliseconds after `docker arguments` has begun, and looks at what is there then; `after` makes it
/// ready for another round.
fn campaign(
    d: &mut Daemon,
    seed: u64,
    most: u64,
    arguments: impl Fn(u64) -> Vec<String>,
    before: impl Fn(&Daemon, u64),
    after: impl Fn(&Daemon, u64),
) {
    let mut random = Random::new(silo_tests::seed(seed));
    for round in 0..silo_tests::rounds(4) {
        before(d, round);
        let arguments = arguments(round);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut client = d.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment is the point.
        std::thread::sleep(std::time::Duration::from_millis(random.below(most)));
        d.stop(true);
        client.wait().unwrap();
        d.again();
        let checked = d.silo(&["image", "check"]);
        assert_eq!(checked.code, 0, "round {round}: {checked:?}");
        for dir in ["root/content/sha256", "root/snapshots", "root/tmp"] {
            let all = std::fs::read_dir(d.path(dir)).unwrap().flatten();
            let rests =
                all.filter(|e| dir.ends_with("tmp") || e.file_name().to_string_lossy().starts_with('.'));
            assert_eq!(rests.count(), 0, "round {round}: {dir}");
        }
        after(d, round);
    }
    // All can go, and then nothing is left of any of it.
    d.docker(&["container", "prune", "-f"]);
    d.ok(&["image", "prune", "-a", "-f"]);
    d.ok(&["builder", "prune", "-a", "-f"]);
    assert_eq!(d.ok(&["images", "-aq"]), "");
    for dir in ["root/content/sha256", "root/content/layers", "root/snapshots", "root/images"] {
        assert_eq!(std::fs::read_dir(d.path(dir)).unwrap().count(), 0, "{dir}");
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Makes an image of further layers, each with a file of so many bytes, out of one.
fn layered(d: &Daemon, name: &str, layers: u64, bytes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut from = BUSYBOX.to_owned();
    for layer in 0..layers {
        std::fs::write(dir.path().join("file"), noise(bytes, layer + 1)).unwrap();
        let id = d.ok(&["create", &from]);
        d.ok(&["cp", &dir.path().join("file").display().to_string(), &format!("{id}:/file{layer}")]);
        d.ok(&["commit", &id, name]);
        d.ok(&["rm", &id]);
        from = name.to_owned();
    }
}

#[test]
fn a_load_is_killed_and_the_store_is_sound() {
    let mut d = Daemon::start();
    layered(&d, "layers:1", 3, 16 << 20);
    let id = d.ok(&["inspect", "-f", "{{.Id}}", "layers:1"]);
    let saved = d.path("saved.tar").display().to_string();
    d.ok(&["save", "-o", &saved, "layers:1", BUSYBOX]);
    d.ok(&["rmi", "-f", &id]);
    let load = words(&format!("load -q -i {saved}"));
    campaign(
        &mut d,
        21,
        600,
        |_| load.clone(),
        |_, _| (),
        |d, round| {
            // Whole or not there.
            let there = d.docker(&["inspect", "-f", "{{.Id}}", "layers:1"]);
            assert!(there.code != 0 || there.out == id, "round {round}: {there:?}");
            d.docker(&["rmi", "-f", "layers:1"]);
            d.ok(&["load", "-q", "-i", &saved]);
            assert_eq!(
                d.ok(&["run", "--rm", "layers:1", "sh", "-c", "cat /file* | wc -c"]),
                (48 << 20).to_string()
            );
            d.ok(&["rmi", "layers:1"]);
        },
    );
}

#[test]
fn a_commit_is_killed_and_the_store_is_sound() {
    let mut d = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), tar(&[("x", &noise(24 << 20, 5))])).unwrap();
    let big = dir.path().join("big").display().to_string();
    campaign(
        &mut d,
        22,
        400,
        |round| words(&format!("commit c{round} committed:{round}")),
        |d, round| {
            d.ok(&["create", "--name", &format!("c{round}"), BUSYBOX, "sh", "-c", "wc -c < /big"]);
            d.ok(&["cp", &big, &format!("c{round}:/big")]);
        },
        |d, round| {
            // The container has what it had; an image is whole.
            let name = format!("committed:{round}");
            if d.docker(&["inspect", &name]).code != 0 {
                d.ok(&["commit", &format!("c{round}"), &name]);
            }
            assert_eq!(d.ok(&["run", "--rm", &name]), std::fs::metadata(&big).unwrap().len().to_string());
            d.ok(&["rm", &format!("c{round}")]);
        },
    );
}

#[test]
fn a_prune_is_killed_and_the_store_is_sound() {
    let mut d = Daemon::start();
    d.ok(&["create", "--name", "user", BUSYBOX]);
    campaign(
        &mut d,
        23,
        300,
        |_| words("image prune -a -f"),
        |d, _| {
            for image in ["a:1", "b:1", "c:1"] {
                layered(d, image, 3, 1 << 20);
            }
        },
        |d, round| {
            // What a container uses is never among what goes.
            assert_eq!(d.ok(&["run", "--rm", BUSYBOX, "echo", "runs"]), "runs", "round {round}");
            for image in ["a:1", "b:1", "c:1"] {
                if d.docker(&["inspect", image]).code == 0 {
                    d.ok(&["run", "--rm", image, "ls", "/file0", "/file1", "/file2"]);
                }
            }
        },
    );
}

#[test]
fn a_build_is_killed_and_the_store_is_sound() {
    let mut d = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), noise(8 << 20, 7)).unwrap();
    let context = dir.path().display().to_string();
    campaign(
        &mut d,
        24,
        900,
        |round| words(&format!("build -q -t built:{round} {context}")),
        |_, round| {
            // Each round has steps that no cache has, and one that all share.
            let file = format!(
                "FROM {BUSYBOX} AS one\nCOPY big /shared\nRUN echo {round} > /a && cp /shared /b\n\
                 FROM {BUSYBOX} AS two\nRUN echo two {round} > /c\n\
                 FROM {BUSYBOX}\nCOPY --from=one /a /b /\nCOPY --from=two /c /\nRUN --mount=type=cache,target=/k cat /a /c > /k/d && cp /k/d /e\n\
                 CMD [\"cat\", \"/e\"]\n"
            );
            std::fs::write(dir.path().join("Dockerfile"), file).unwrap();
        },
        |d, round| {
            assert_eq!(d.ok(&["ps", "-aq"]), "", "round {round}");
            let name = format!("built:{round}");
            d.ok(&["build", "-q", "-t", &name, &context]);
            assert_eq!(d.ok(&["run", "--rm", &name]), format!("{round}\ntwo {round}"));
        },
    );
}
