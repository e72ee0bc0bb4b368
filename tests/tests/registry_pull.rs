//! Images go to and come from real registries (Debian's docker-registry) by the stock client; skopeo reads what we pushed,
//! we what it pushed.

use std::path::Path;
use std::process::{Command, Stdio};

use silo_tests::Daemon;
use silo_tests::images::{INDEX, MANIFEST, Packed, digest, image, noise, tar};
use silo_tests::registry::{HTPASSWD, Options, Registry, certificates, run};

const BUSYBOX: &str = "localhost/busybox";

/// The lines of progress without the layers' IDs, each once, in order.
fn words(out: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in out.lines() {
        let text = match line.split_once(": ") {
            Some((id, text)) if id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
                format!("ID: {text}")
            }
            _ => line.to_owned(),
        };
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// Writes an image as an OCI layout; returns its manifest's digest.
fn layout(dir: &Path, platform: &str, layers: &[(Vec<u8>, Packed)]) -> String {
    let made = image(platform, layers);
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put =
        |bytes: &[u8]| std::fs::write(dir.join("blobs/sha256").join(&digest(bytes)[7..]), bytes).unwrap();
    made.blobs.iter().for_each(|b| put(b));
    put(&made.manifest);
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST,
        "digest": digest(&made.manifest), "size": made.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "it"}}]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    digest(&made.manifest)
}

fn raw_digest(image: &str) -> String {
    let arguments =
        ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{image}")];
    run("skopeo", &arguments)
}

#[test]
fn an_image_that_was_pushed_comes_back_the_same() {
    let (d, r) = (Daemon::start(), Registry::start());
    let (name, other) = (format!("{}/a/bb", r.host()), format!("{}/other", r.host()));
    let id = d.ok(&["inspect", "-f", "{{.Id}}", BUSYBOX]);
    d.ok(&["tag", BUSYBOX, &format!("{name}:1")]);
    let out = d.ok(&["push", &format!("{name}:1")]);
    let said = words(&out);
    assert_eq!(said[0], format!("The push refers to repository [{name}]"), "{out}");
    assert!(said.contains(&"ID: Preparing".to_owned()) && said.contains(&"ID: Pushed".to_owned()), "{out}");
    let last = said.last().unwrap();
    let digest = last.split(' ').find(|w| w.starts_with("sha256:")).unwrap().to_owned();
    assert!(last.starts_with(&format!("1: digest: {digest} size: ")), "{out}");
    assert_eq!(d.ok(&["inspect", "-f", "{{json .RepoDigests}}", &id]), format!("[\"{name}@{digest}\"]"));
    assert!(d.ok(&["images", "--digests"]).contains(&digest));
    assert_eq!(raw_digest(&format!("{name}:1")), digest);

    // Again: all is there. Elsewhere in the same registry: mounted.
    let out = d.ok(&["push", &format!("{name}:1")]);
    assert!(words(&out).contains(&"ID: Layer already exists".to_owned()), "{out}");
    d.ok(&["tag", BUSYBOX, &format!("{other}:2")]);
    d.ok(&["tag", BUSYBOX, &format!("{other}:3")]);
    let out = d.ok(&["push", "-a", &other]);
    assert!(words(&out).contains(&"ID: Mounted from a/bb".to_owned()), "{out}");
    assert!(out.contains("\n2: digest: ") && out.contains("\n3: digest: "), "{out}");

    // Gone with its digest, and back.
    d.ok(&["rmi", "-f", &id]);
    assert_eq!(d.ok(&["images", "-q"]), "");
    let out = d.ok(&["pull", &format!("{name}:1")]);
    let said = words(&out);
    assert_eq!(said[0], "1: Pulling from a/bb", "{out}");
    for state in
        ["ID: Pulling fs layer", "ID: Verifying Checksum", "ID: Download complete", "ID: Pull complete"]
    {
        assert!(said.contains(&state.to_owned()), "{state}: {out}");
    }
    assert!(
        out.contains(&format!("\nDigest: {digest}\nStatus: Downloaded newer image for {name}:1\n")),
        "{out}"
    );
    assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", &format!("{name}:1")]), id);
    let out = d.ok(&["pull", &format!("{name}:1")]);
    assert!(out.contains(&format!("Status: Image is up to date for {name}:1")), "{out}");
    assert_eq!(d.ok(&["pull", "-q", &format!("{name}@{digest}")]), format!("{name}@{digest}"));
    d.ok(&["pull", "-a", &other]);
    assert!(d.ok(&["images"]).matches(&other).count() == 2);
    assert!(
        d.ok(&["events", "--since", "1", "--until", &silo_tests::now(), "-f", "event=pull"]).contains(&name)
    );
    assert_eq!(d.silo(&["image", "check"]).code, 0);

    // A name's last tag takes the digests of its repository along, and the image stays by its other names.
    let out = d.ok(&["rmi", &format!("{name}:1")]);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(!out.contains("Deleted"), "{out}");
    assert_eq!(d.ok(&["run", "--rm", &format!("{other}:2"), "echo", "runs"]), "runs");
    d.ok(&["image", "prune", "-a", "-f"]);
    assert_eq!(d.ok(&["images", "-q"]), "");
    assert_eq!(std::fs::read_dir(d.path("root/content/sha256")).unwrap().count(), 0);
    // Run pulls what is not here.
    let said = d.docker(&["run", "--rm", &format!("{other}:3"), "echo", "pulled"]);
    assert_eq!(said.out, "pulled", "{said:?}");
    assert!(
        said.err.contains("Unable to find image") && said.err.contains("Downloaded newer image"),
        "{said:?}"
    );
}

#[test]
fn what_was_pulled_is_pushed_under_the_same_digest() {
    let (d, r, second) = (Daemon::empty(), Registry::start(), Registry::start());
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        (tar(&[("a", b"gzip")]), Packed::Gzip),
        (tar(&[("b", &noise(40 << 20, 1))]), Packed::Zstd),
        (tar(&[("c", b"plain")]), Packed::Plain),
    ];
    let oci = layout(dir.path(), "linux/amd64", &layers);
    let name = format!("{}/oci:1", r.host());
    let from = format!("oci:{}:it", dir.path().display());
    let to = format!("docker://{name}");
    run("skopeo", &["copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &from, &to]);
    d.ok(&["pull", &name]);
    assert_eq!(d.silo(&["image", "check"]).code, 0);
    // Elsewhere in the registry, and in a registry that has none of it.
    for to in [format!("{}/copy:1", r.host()), format!("{}/deep/er/copy:x", second.host())] {
        d.ok(&["tag", &name, &to]);
        let out = d.ok(&["push", &to]);
        assert!(out.contains(&oci), "{out}");
        assert_eq!(raw_digest(&to), oci);
    }
    // Docker's own format, in both directions.
    let gzip = tempfile::tempdir().unwrap();
    layout(gzip.path(), "linux/amd64", &layers[..1]);
    let v2 = format!("{}/docker:1", r.host());
    let (to, from) = (format!("docker://{v2}"), format!("oci:{}:it", gzip.path().display()));
    run("skopeo", &["copy", "-q", "--format", "v2s2", "--dest-tls-verify=false", &from, &to]);
    let out = d.ok(&["pull", &v2]);
    assert!(out.contains("Already exists") && out.contains(&raw_digest(&v2)), "{out}");
    let copy = format!("{}/docker:2", second.host());
    d.ok(&["tag", &v2, &copy]);
    assert!(d.ok(&["push", &copy]).contains(&raw_digest(&v2)));
    let id = d.ok(&["inspect", "-f", "{{.Id}}", &name]);
    let back = dir.path().join("back");
    let (from, to) = (format!("docker://{copy}"), format!("oci:{}:back", back.display()));
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to]);
    assert!(back.join("index.json").exists());
    // Saved, it has the same layers as it came with.
    let saved = dir.path().join("saved.tar");
    d.ok(&["save", "-o", &saved.display().to_string(), &name]);
    d.ok(&["rmi", "-f", &id]);
    d.ok(&["load", "-i", &saved.display().to_string()]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", &name]), id);
    assert_eq!(d.silo(&["image", "check"]).code, 0);
}

#[test]
fn certificates_of_a_registry_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let at = |name: &str| dir.path().join(name);
    let r = Registry::with(&Options {
        tls: Some((at("server.crt"), at("server.key"))),
        client_ca: Some(at("ca.crt")),
        ..Default::default()
    });
    let mut d = Daemon::with(|dir| vec!["--certs-dir".into(), dir.join("certs.d").display().to_string()]);
    d.import_busybox();
    let name = format!("{}/tls:1", r.host());
    d.ok(&["tag", BUSYBOX, &name]);
    // No certificate for us: the registry ends the connection.
    d.fails(&["push", &name], "Certificate");
    let own = d.path("certs.d").join(r.host());
    std::fs::create_dir_all(&own).unwrap();
    for file in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(at(file), own.join(file)).unwrap();
    }
    d.ok(&["push", &name]);
    d.ok(&["rmi", "-f", &name]);
    d.ok(&["pull", &name]);
    // Another authority's word is nothing, even on the loopback.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    std::fs::copy(other.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    d.fails(&["pull", &name], "certificate");
    std::fs::write(own.join("client.key"), "no key").unwrap();
    d.fails(&["pull", &name], "client.key has no private key");
    d.stop(false);
}

#[test]
fn names_and_passwords_open_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    let auth = format!("{{htpasswd: {{realm: r, path: {}}}}}", file.display());
    let r = Registry::with(&Options { auth: Some(auth), ..Default::default() });
    let d = Daemon::start();
    let name = format!("{}/private:1", r.host());
    d.ok(&["tag", BUSYBOX, &name]);
    d.fails(&["push", &name], "unauthorized: authentication required");
    d.fails(&["login", "-u", "tester", "-p", "wrong", &r.host()], "unauthorized");
    let said = d.docker(&["login", "-u", "tester", "-p", "secret", &r.host()]);
    assert!(said.out.contains("Login Succeeded"), "{said:?}");
    d.ok(&["push", &name]);
    d.ok(&["rmi", "-f", &name]);
    d.ok(&["pull", &name]);
    d.ok(&["logout", &r.host()]);
    d.ok(&["rmi", "-f", &name]);
    d.fails(&["pull", &name], "pull access denied for");
    d.fails(&["run", "--rm", &name], "may require 'docker login'");
}

#[test]
fn what_a_registry_has_is_described_and_searched_for() {
    let (d, r) = (Daemon::start(), Registry::start());
    let name = format!("{}/a/b:1", r.host());
    d.ok(&["tag", BUSYBOX, &name]);
    d.ok(&["push", &name]);
    let answer: serde_json::Value =
        serde_json::from_str(&d.get(&format!("/distribution/{name}/json"))).unwrap();
    assert_eq!(answer["Descriptor"]["digest"].as_str().unwrap(), raw_digest(&name));
    assert_eq!(answer["Platforms"][0]["os"], "linux");
    assert_eq!(d.request(&format!("GET /distribution/{}/nosuch/json", r.host())).0, 404);
    let shown = d.ok(&["manifest", "inspect", "--insecure", &name]);
    assert!(shown.contains("application/vnd.docker.image.rootfs.diff.tar.gzip"), "{shown}");
    d.fails(&["search", &format!("{}/word", r.host())], "cannot be searched");
    d.fails(&["push", &format!("{}/nothing:1", r.host())], "An image does not exist locally with the tag");
    d.fails(&["push", &format!("{}/a/b:9", r.host())], "tag does not exist");
    d.fails(&["pull", &format!("{}/a/b:9", r.host())], "manifest unknown");
    d.fails(&["pull", "127.0.0.1:1/x"], "refused");
    let info = d.get("/info");
    assert!(info.contains("https://index.docker.io/v1/") && info.contains("127.0.0.0/8"), "{info}");
}

#[test]
fn a_mirror_is_asked_first() {
    let r = Registry::start();
    let mirror = format!("http://{}", r.host());
    let gone = "http://127.0.0.1:1".to_owned();
    let d = Daemon::with(|_| vec!["--registry-mirror".into(), gone, "--registry-mirror".into(), mirror]);
    d.import_busybox();
    let name = format!("{}/library/copied:1", r.host());
    d.ok(&["tag", BUSYBOX, &name]);
    d.ok(&["push", &name]);
    d.ok(&["rmi", "-f", &name, BUSYBOX]);
    let out = d.ok(&["pull", "copied:1"]);
    assert!(
        out.contains("1: Pulling from library/copied") && out.contains("docker.io/library/copied:1"),
        "{out}"
    );
    assert!(d.ok(&["images"]).starts_with("REPOSITORY") && d.ok(&["images", "-q", "copied:1"]).len() == 12);
}

#[test]
fn a_pull_is_killed_and_the_store_is_sound() {
    let r = Registry::start();
    let mut d = Daemon::empty();
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..4).map(|i| (tar(&[("f", &noise(24 << 20, 7 + i))]), Packed::Gzip)).collect();
    layout(dir.path(), "linux/amd64", &layers);
    let name = format!("{}/big:1", r.host());
    let (from, to) = (format!("oci:{}:it", dir.path().display()), format!("docker://{name}"));
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &from, &to]);
    let mut random = silo_tests::Random::new(silo_tests::seed(11));
    for round in 0..silo_tests::rounds(4) {
        let mut client =
            d.command(&["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment is the point.
        std::thread::sleep(std::time::Duration::from_millis(random.below(1200)));
        d.stop(true);
        client.wait().unwrap();
        d.again();
        let checked = d.silo(&["image", "check"]);
        assert_eq!(checked.code, 0, "round {round}: {checked:?}");
        let leftovers = |dir: &str| {
            let all = std::fs::read_dir(d.path(dir)).unwrap().flatten();
            all.filter(|e| e.file_name().to_string_lossy().starts_with('.')).count()
        };
        assert_eq!(leftovers("root/content/sha256") + leftovers("root/snapshots"), 0, "round {round}");
        d.docker(&["rmi", "-f", &name]);
        assert_eq!(std::fs::read_dir(d.path("root/snapshots")).unwrap().count(), 0, "round {round}");
    }
    // A client that goes ends its pull.
    let mut client = d.command(&["pull", &name]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut first).unwrap();
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", client.id())]).status();
    client.wait().unwrap();
    // Others' removals and prunes meanwhile take nothing away.
    let mut pull = d.command(&["pull", "-q", &name]).stdout(Stdio::piped()).spawn().unwrap();
    d.import_busybox();
    while pull.try_wait().unwrap().is_none() {
        d.ok(&["tag", BUSYBOX, "x"]);
        d.ok(&["rmi", "x"]);
        d.ok(&["image", "prune", "-f"]);
    }
    assert!(pull.wait().unwrap().success(), "{}", d.log());
    let checked = d.silo(&["image", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn a_check_finds_what_is_damaged() {
    let (mut d, r) = (Daemon::start(), Registry::start());
    let name = format!("{}/check:1", r.host());
    d.ok(&["tag", BUSYBOX, &name]);
    d.ok(&["push", &name]);
    let said = d.silo(&["image", "check"]);
    assert!(said.code == 0 && said.out.starts_with("1 images, 1 layers, 4 blobs, 3 names"), "{said:?}");
    let blobs = d.path("root/content/sha256");
    let largest =
        std::fs::read_dir(&blobs).unwrap().flatten().max_by_key(|e| e.metadata().unwrap().len()).unwrap();
    let whole = std::fs::read(largest.path()).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(largest.path(), &damaged).unwrap();
    let said = d.silo(&["image", "check"]);
    assert!(said.code == 1 && said.out.contains(&*largest.file_name().to_string_lossy()), "{said:?}");
    std::fs::write(largest.path(), &whole).unwrap();
    let snapshots = d.path("root/snapshots");
    let layer = std::fs::read_dir(&snapshots).unwrap().flatten().find(|e| e.path().is_dir()).unwrap().path();
    std::fs::rename(&layer, layer.with_extension("away")).unwrap();
    let said = d.silo(&["image", "check", "--json"]);
    assert!(said.code == 1 && said.out.contains("is not unpacked"), "{said:?}");
    std::fs::rename(layer.with_extension("away"), &layer).unwrap();
    assert_eq!(d.silo(&["image", "check"]).code, 0);
    d.stop(false);
}

#[test]
fn transfers_are_limited_over_all_pulls() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex};
    let made: Vec<_> = (0..3)
        .map(|i| {
            image(
                "linux/amd64",
                &[
                    (tar(&[("a", &noise(64 << 10, i))]), Packed::Gzip),
                    (tar(&[("b", &noise(64 << 10, 9 + i))]), Packed::Gzip),
                ],
            )
        })
        .collect();
    let all: std::collections::HashMap<String, Vec<u8>> = made
        .iter()
        .enumerate()
        .flat_map(|(i, image)| {
            let manifest = [(format!("/v2/x{i}/manifests/1"), image.manifest.clone())];
            let blobs = image.blobs.iter().map(move |b| (format!("/v2/x{i}/blobs/{}", digest(b)), b.clone()));
            manifest.into_iter().chain(blobs).collect::<Vec<_>>()
        })
        .collect();
    let layers: Vec<String> =
        made.iter().flat_map(|image| image.blobs[1..].iter().map(|b| digest(b))).collect();
    // Each transfer waits for a second one beside it, and no third one ever comes.
    let (now, most) = (Arc::new((Mutex::new(0_usize), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let (state, seen) = (now.clone(), most.clone());
    let server = silo_tests::http::Server::start(move |_, request| {
        if request.path == "/v2/" {
            return silo_tests::http::Reply::new(200, "{}");
        }
        let is_layer = layers.iter().any(|l| request.path.ends_with(l.as_str()));
        if is_layer {
            let mut at_once = state.0.lock().unwrap();
            *at_once += 1;
            seen.fetch_max(*at_once, Ordering::SeqCst);
            state.1.notify_all();
            let limit = std::time::Duration::from_millis(500);
            let (mut at_once, _) = state.1.wait_timeout_while(at_once, limit, |n| *n < 3).unwrap();
            *at_once -= 1;
        }
        match all.get(&request.path) {
            Some(bytes) => {
                let kind = if request.path.contains("manifests") { MANIFEST } else { "a/b" };
                silo_tests::http::Reply::new(200, bytes.clone()).with("content-type", kind)
            }
            None => silo_tests::http::Reply::new(404, "{}"),
        }
    });
    let d = Daemon::with(|_| ["--max-concurrent-downloads", "2"].map(str::to_owned).to_vec());
    let mut pulls: Vec<_> = (0..3)
        .map(|i| {
            d.command(&["pull", "-q", &format!("{}/x{i}:1", server.host())])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for pull in &mut pulls {
        assert!(pull.wait().unwrap().success(), "{}", d.log());
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn images_are_counted_with_their_archives_and_imported_from_the_web() {
    let d = Daemon::start();
    let archive = tar(&[("etc/word", &noise(3 << 20, 4))]);
    let server = silo_tests::http::Server::start(move |_, request| match request.path.as_str() {
        "/files/rootfs.tar" => silo_tests::http::Reply::new(200, archive.clone()),
        _ => silo_tests::http::Reply::new(404, ""),
    });
    let url = format!("http://{}/files/rootfs.tar", server.host());
    let out = d.ok(&["import", "-c", "LABEL kind=web", &url, "web:1"]);
    assert!(out.contains(&format!("Downloading from {url}")) && out.contains("sha256:"), "{out}");
    assert_eq!(d.ok(&["inspect", "-f", "{{.Comment}}", "web:1"]), format!("Imported from {url}"));
    d.fails(&["import", &format!("{url}x")], "404");

    // What an image takes is what goes with it.
    let df = || -> serde_json::Value { serde_json::from_str(&d.get("/system/df")).unwrap() };
    let bytes = |value: &serde_json::Value| value.as_u64().unwrap();
    let before = df();
    let of =
        before["Images"].as_array().unwrap().iter().find(|i| i["RepoTags"][0] == "web:1").unwrap().clone();
    // Unpacked, and no archive beside it: that is put together of the files.
    let size = bytes(&of["Size"]);
    assert!((3 << 20..4 << 20).contains(&size) && bytes(&of["SharedSize"]) == 0, "{of}");
    let all: u64 = before["Images"].as_array().unwrap().iter().map(|i| bytes(&i["Size"])).sum();
    assert_eq!(bytes(&before["LayersSize"]), all);
    d.ok(&["rmi", "web:1"]);
    assert_eq!(bytes(&before["LayersSize"]) - bytes(&df()["LayersSize"]), bytes(&of["Size"]));
    assert!(d.ok(&["system", "df"]).contains("Images"));

    // Filters of lists and prunes.
    for (name, label) in [("one:1", "a=1"), ("two:1", "a=2")] {
        d.ok(&["import", "-c", &format!("LABEL {label}"), &url, name]);
    }
    let list = |filter: &str| {
        let out = d.ok(&["images", "--format", "{{.Repository}}", "-f", filter]);
        out.lines().map(|l| l.trim_start_matches("localhost/").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("label=a=1"), ["one"]);
    assert_eq!(list("since=one:1"), ["two"]);
    assert_eq!(list("before=two:1"), ["one", "busybox"]);
    assert_eq!(list("reference=t*"), ["two"]);
    assert_eq!(list("dangling=true"), [""; 0]);
    assert_eq!(list("until=1h"), [""; 0]);
    d.fails(&["images", "-f", "dangling=maybe"], "invalid filter");
    d.fails(&["images", "-f", "nosuch=x"], "invalid filter");
    d.ok(&["image", "prune", "-a", "-f", "--filter", "until=1h"]);
    d.ok(&["image", "prune", "-a", "-f", "--filter", "label!=a=1"]);
    assert_eq!(d.ok(&["images", "--format", "{{.Repository}}"]), "one");
    d.ok(&["image", "prune", "-a", "-f", "--filter", "label=a=1"]);
    assert_eq!(d.ok(&["images", "-q"]), "");
}
