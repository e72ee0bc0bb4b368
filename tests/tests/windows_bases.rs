//! Images that look like those on Microsoft's Windows bases, by the published format: only their own layers are fetched, they
//! run on the local base, and go on as they came.

use std::collections::HashMap;

use serde_json::{Value, json};
use silo_hive::{Hive, Key};
use silo_tests::http::{Reply, Server};
use silo_tests::images::{INDEX, MANIFEST, Packed, digest, noise, pack, tar};
use silo_tests::registry::{Options, Registry, run};
use silo_tests::{Daemon, NANOSERVER};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const VERSION: &str = "10.0.20348.9999";

/// What of an image is told where.
struct Look<'a> {
    /// OCI's or Docker's manifest.
    kind: &'a str,
    /// Type, URLs and size of the base layer, as described.
    base_type: &'a str,
    urls: Vec<String>,
    size: Option<u64>,
    /// The base layer's history.
    history: &'a str,
    /// The image's own layers.
    own: Vec<Vec<u8>>,
}

struct Made {
    manifest: Vec<u8>,
    config: Vec<u8>,
    base: Vec<u8>,
    own: Vec<Vec<u8>>,
    diffs: Vec<String>,
}

/// The base layer of all: never unpacked, so anything.
fn base_tar() -> Vec<u8> {
    tar(&[("Files/Windows/System32/ntdll.dll", &noise(1 << 16, 3))])
}

fn made(look: &Look<'_>) -> Made {
    let base = pack(&base_tar(), Packed::Gzip);
    let own: Vec<Vec<u8>> = look.own.iter().map(|tar| pack(tar, Packed::Gzip)).collect();
    let diffs: Vec<String> = [base_tar()].iter().chain(&look.own).map(|tar| digest(tar)).collect();
    let mut history = vec![
        json!({"created": "2024-01-01T00:00:00Z", "created_by": look.history}),
        json!({"created": "2024-01-02T00:00:00Z", "created_by": "ENV A=b", "empty_layer": true}),
    ];
    history
        .extend(look.own.iter().map(|_| json!({"created": "2024-01-03T00:00:00Z", "created_by": "COPY x"})));
    let config = json!({"architecture": "amd64", "os": "windows", "os.version": VERSION,
        "created": "2024-01-03T00:00:00Z", "config": {"Cmd": ["cmd", "/c", "type C:\\app\\hello.txt"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diffs}, "history": history});
    let config = config.to_string().into_bytes();
    let (config_type, layer_type) = match look.kind {
        DOCKER => (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
        _ => ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
    };
    let mut lowest = json!({"mediaType": look.base_type, "digest": digest(&base),
        "size": look.size.unwrap_or(base.len() as u64)});
    if !look.urls.is_empty() {
        lowest["urls"] = json!(look.urls);
    }
    let mut layers = vec![lowest];
    layers.extend(own.iter().map(|b| json!({"mediaType": layer_type, "digest": digest(b), "size": b.len()})));
    let manifest = json!({"schemaVersion": 2, "mediaType": look.kind,
        "config": {"mediaType": config_type, "digest": digest(&config), "size": config.len()}, "layers": layers});
    Made { manifest: manifest.to_string().into_bytes(), config, base, own, diffs }
}

/// A delta layer: a file, a value of the registry, and a file over Wine's own.
fn delta(word: &str) -> Vec<u8> {
    let mut new = Hive::default();
    let mut key = Key::new("Acme");
    key.insert_value(silo_hive::Value::string("Word", word)).unwrap();
    new.root.insert_subkey(key).unwrap();
    let hive = silo_hive::diff(&Hive::default(), &new).to_bytes().unwrap();
    tar(&[
        ("Files/APP/hello.txt", word.as_bytes()),
        ("Files/Windows/SYSTEM32/NtDll.dll", b"MZ: cannot run on Wine"),
        ("Files/Windows/System32/msvcp140.dll", b"MZ: a program's own"),
        ("Hives/Software_Delta", &hive),
    ])
}

/// Serves images by `name:tag`, without their base layers, and lists of them.
fn serve(images: &[(&str, &Made, &str)], list: Option<(&str, Vec<u8>)>) -> Server {
    let mut all: HashMap<String, (String, Vec<u8>)> = HashMap::new();
    for (name, made, kind) in images {
        let (path, tag) = name.split_once(':').unwrap();
        for reference in [tag, &digest(&made.manifest)] {
            all.insert(format!("/v2/{path}/manifests/{reference}"), ((*kind).into(), made.manifest.clone()));
        }
        for blob in made.own.iter().chain([&made.config]) {
            all.insert(format!("/v2/{path}/blobs/{}", digest(blob)), ("a/b".into(), blob.clone()));
        }
    }
    if let Some((path, bytes)) = list {
        all.insert(path.to_owned(), (LIST.into(), bytes));
    }
    Server::start(move |_, request| match all.get(&request.path) {
        _ if request.path == "/v2/" => Reply::new(200, "{}"),
        Some((kind, bytes)) => Reply::new(200, bytes.clone()).with("content-type", kind.clone()),
        None => Reply::new(404, "{}"),
    })
}

fn blobs_asked_for(server: &Server) -> Vec<String> {
    let seen = server.seen();
    seen.iter().filter_map(|r| Some(r.path.split_once("/blobs/")?.1.to_owned())).collect()
}

fn raw(image: &str) -> Value {
    let out = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")]);
    serde_json::from_str(&out).unwrap()
}

/// That an image is what its makers made, and runs.
fn holds(d: &Daemon, name: &str, made: &Made, word: &str) {
    let look = |format: &str| d.ok(&["inspect", "-f", format, name]);
    assert_eq!(look("{{.Id}}"), digest(&made.config));
    assert_eq!(look("{{json .RootFS.Layers}}"), json!(made.diffs).to_string());
    assert_eq!(look("{{.OsVersion}}"), VERSION);
    let history = d.ok(&["history", "--no-trunc", "--format", "is {{.CreatedBy}}", name]);
    assert_eq!(history.lines().count(), made.diffs.len() + 1, "{history}");
    let line = "ver& reg query HKLM\\Software\\Acme& type C:\\app\\hello.txt& type C:\\windows\\system32\\msvcp140.dll";
    let out = d.ok(&["run", "--rm", name, "cmd", "/c", line]);
    for wanted in ["10.0.20348", word, "a program's own"] {
        assert!(out.contains(wanted), "{name} should show {wanted:?}: {out}");
    }
    assert_eq!(out.matches(word).count(), 2, "{out}");
    let checked = d.silo(&["image", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
}

const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const ORDINARY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[test]
fn base_layers_are_recognised_and_not_fetched() {
    let look =
        |kind, base_type, history, own| Look { kind, base_type, urls: Vec::new(), size: None, history, own };
    let url = "https://mcr.microsoft.com/v2/windows/nanoserver/blobs/sha256:0".to_owned();
    let foreign = made(&Look {
        urls: vec![url],
        size: Some(800_000_000),
        ..look(DOCKER, FOREIGN, "", vec![delta("first"), tar(&[("Files/more.txt", b"more")])])
    });
    let history = made(&look(MANIFEST, ORDINARY, "Apply image 10.0.20348.9999", vec![delta("second")]));
    let listed = made(&look(MANIFEST, ORDINARY, "COPY everything", vec![delta("third")]));
    let itself = made(&look(DOCKER, FOREIGN, "Apply image 10.0.20348.9999", vec![]));
    let unsure = made(&Look {
        size: Some(800_000_000),
        ..look(MANIFEST, ORDINARY, "Apply image 10.0.20348.9999", vec![delta("fourth")])
    });
    let entry = |made: &Made, os: &str, version: &str| {
        json!({"mediaType": DOCKER, "digest": digest(&made.manifest), "size": made.manifest.len(),
            "platform": {"os": os, "architecture": "amd64", "os.version": version}})
    };
    // The build of the local base is taken, not the first.
    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [
        entry(&itself, "windows", "10.0.17763.1"), entry(&foreign, "windows", VERSION)]});
    let server = serve(
        &[
            ("foreign:x", &foreign, DOCKER),
            ("history:1", &history, MANIFEST),
            ("listed:1", &listed, MANIFEST),
            ("windows/nanoserver:ltsc2022", &itself, DOCKER),
            ("unsure:1", &unsure, MANIFEST),
        ],
        Some(("/v2/foreign/manifests/list", list.to_string().into_bytes())),
    );
    let host = server.host();

    // Without a base, and without leave to build one: which.
    let bare = Daemon::with(|_| vec!["--no-base-build".into()]);
    let name = format!("{host}/history:1");
    let said = bare.fails(&["pull", &name], "run `silo base build nanoserver`");
    assert!(said.err.contains(&name), "{said:?}");
    let said = bare.fails(&["pull", &format!("{host}/unsure:1")], "nothing tells on which");
    assert!(said.err.contains(&format!("\"{} nanoserver\"", digest(&unsure.base))), "{said:?}");
    assert_eq!(std::fs::read_dir(bare.path("root/snapshots")).unwrap().count(), 0);
    drop(bare);

    let mut d = Daemon::with(|dir| {
        std::fs::write(
            dir.join("digests"),
            format!("{} nanoserver # {}\n", digest(&base_tar()), "by diff ID"),
        )
        .unwrap();
        // No network, where the test is: nobody answers there.
        ["--base-digests", &dir.join("digests").display().to_string(), "--https-proxy", "http://127.0.0.1:1"]
            .map(str::to_owned)
            .to_vec()
    });
    d.add_base("nanoserver").unwrap();
    for (name, made, word) in [
        ("foreign:list", &foreign, "first"),
        ("history:1", &history, "second"),
        ("listed:1", &listed, "third"),
    ] {
        let name = format!("{host}/{name}");
        let out = d.ok(&["pull", &name]);
        assert!(out.contains(&format!("{}: Skipped base layer", &digest(&made.base)[7..19])), "{out}");
        holds(&d, &name, made, word);
        if silo_tests::isolation() == "hyperv" {
            // A disk of those layers, in a machine: the rest is the store's, which no isolation has to do with.
            return;
        }
    }
    // A base itself: manifest and config only.
    let before = blobs_asked_for(&server).len();
    let name = format!("{host}/windows/nanoserver:ltsc2022");
    d.ok(&["pull", &name]);
    assert_eq!(blobs_asked_for(&server)[before..], [digest(&itself.config)]);
    assert!(!blobs_asked_for(&server).contains(&digest(&itself.base)));
    assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", &name]), digest(&itself.config));
    assert!(d.ok(&["run", "--rm", &name, "cmd", "/c", "ver"]).contains("10.0.20348"));
    // Where its registry cannot be reached the local base stands for it.
    let official = "mcr.microsoft.com/windows/nanoserver:ltsc2022";
    let said = d.docker(&["run", "--rm", official, "cmd", "/c", "ver"]);
    assert!(said.code == 0 && said.out.contains("10.0.20348"), "{said:?}");
    assert!(said.err.contains(&format!("The local base {NANOSERVER} stands for {official}")), "{said:?}");
    d.fails(&["pull", "mcr.microsoft.com/other:1"], "Connection refused");
    d.ok(&["rmi", official]);

    // A second start finds all as it was; the base's name may go, its layers stay.
    d.stop(true);
    d.again();
    d.ok(&["rmi", NANOSERVER]);
    let name = format!("{host}/history:1");
    holds(&d, &name, &history, "second");
    assert!(d.ok(&["pull", &name]).contains("Image is up to date"));
    // Another base: nothing of the old one's is taken for it.
    d.ok(&[
        "run",
        "--name",
        "aa",
        &name,
        "cmd",
        "/c",
        "reg add HKLM\\Software\\Base /v New /d 1 /f& echo new> C:\\base.txt",
    ]);
    d.add_base("nanoserver").unwrap();
    d.ok(&[
        "run",
        "--name",
        "bb",
        NANOSERVER,
        "cmd",
        "/c",
        "reg add HKLM\\Software\\Base /v New /d 1 /f& echo new> C:\\base.txt",
    ]);
    d.ok(&["commit", "bb", NANOSERVER]);
    d.ok(&["rm", "aa", "bb"]);
    d.ok(&["rmi", &name]);
    d.ok(&["pull", &name]);
    holds(&d, &name, &history, "second");
    let out = d.ok(&["run", "--rm", &name, "cmd", "/c", "type C:\\base.txt& reg query HKLM\\Software\\Base"]);
    assert!(out.contains("new") && out.contains("REG_SZ    1"), "{out}");
    d.stop(false);
}

/// Copies an image with all its layers into a registry.
fn copy_to(made: &Made, kind: &str, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    for blob in made.own.iter().chain([&made.base, &made.config, &made.manifest]) {
        std::fs::write(dir.path().join("blobs/sha256").join(&digest(blob)[7..]), blob).unwrap();
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": kind,
        "digest": digest(&made.manifest), "size": made.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "it"}}]});
    std::fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let (from, to) = (format!("oci:{}:it", dir.path().display()), format!("docker://{name}"));
    run("skopeo", &["copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &from, &to]);
}

#[test]
fn what_is_built_on_a_base_goes_on_with_the_original() {
    if !silo_tests::only_under(
        "process",
        "what is pushed and saved is the store's: no isolation has to do with it",
    ) {
        return;
    }
    let d = Daemon::windows();
    let (r, second) = (Registry::start(), Registry::with(&Options { foreign: true, ..Default::default() }));
    let image = made(&Look {
        kind: MANIFEST,
        base_type: ORDINARY,
        urls: Vec::new(),
        size: None,
        history: "Apply image 10.0.20348.9999",
        own: vec![delta("word")],
    });
    let (base, own) = (digest(&image.base), digest(&image.own[0]));
    let name = format!("{}/a/image:1", r.host());
    copy_to(&image, MANIFEST, &name);
    d.ok(&["pull", &name]);
    holds(&d, &name, &image, "word");
    assert!(!d.path("root/content/sha256").join(&base[7..]).exists());

    // Mounted in the same registry, and the same to the last byte.
    let mounted = format!("{}/b:1", r.host());
    d.ok(&["tag", &name, &mounted]);
    let out = d.ok(&["push", &mounted]);
    assert!(out.contains("Mounted from a/image") && out.contains(&digest(&image.manifest)), "{out}");
    // Elsewhere it is referenced; nothing stands under another digest.
    let away = format!("{}/c:1", second.host());
    let referenced = |name: &str, others: &[&str]| {
        let layers = raw(name)["layers"].clone();
        assert_eq!(layers[0]["digest"], *base);
        assert_eq!(layers[0]["mediaType"], "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        assert_eq!(layers[0]["urls"], json!([format!("http://{}/v2/a/image/blobs/{base}", r.host())]));
        let rest: Vec<&str> =
            layers.as_array().unwrap()[1..].iter().map(|l| l["digest"].as_str().unwrap()).collect();
        assert_eq!(rest, others);
        assert!(!second.has(&base));
    };
    d.ok(&["tag", &name, &away]);
    let out = d.ok(&["push", &away]);
    assert!(out.contains("Referenced at http://"), "{out}");
    referenced(&away, &[&own]);
    // And the original manifest still where it can be.
    let again = format!("{}/d:1", r.host());
    d.ok(&["tag", &name, &again]);
    assert!(d.ok(&["push", &again]).contains(&digest(&image.manifest)));

    // A commit on it is one on the original.
    d.ok(&[
        "run",
        "--name",
        "aa",
        &name,
        "cmd",
        "/c",
        "reg add HKLM\\Software\\Mine /v Own /d 2 /f& echo mine> C:\\mine.txt",
    ]);
    let committed = format!("{}/committed:1", second.host());
    d.ok(&["commit", "aa", &committed]);
    let layers: Vec<String> =
        serde_json::from_str(&d.ok(&["inspect", "-f", "{{json .RootFS.Layers}}", &committed])).unwrap();
    assert_eq!((&layers[..2], layers.len()), (&image.diffs[..], 3));
    d.ok(&["push", &committed]);
    let top = raw(&committed)["layers"][2]["digest"].as_str().unwrap().to_owned();
    referenced(&committed, &[&own, &top]);
    assert!(second.has(&own) && second.has(&top));
    // What was pushed comes back, by its reference.
    let id = d.ok(&["inspect", "-f", "{{.Id}}", &committed]);
    let saved = d.path("saved.tar").display().to_string();
    d.ok(&["save", "-o", &saved, &committed]);
    d.ok(&["rm", "aa"]);
    let shows = |name: &str| {
        assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", name]), id);
        let line = "type C:\\mine.txt& reg query HKLM\\Software\\Mine& reg query HKLM\\Software\\Acme";
        let out = d.ok(&["run", "--rm", name, "cmd", "/c", line]);
        assert!(out.contains("mine") && out.contains("REG_SZ    2") && out.contains("word"), "{out}");
    };
    d.ok(&["rmi", &committed]);
    d.ok(&["pull", &committed]);
    shows(&committed);

    // An archive leaves the base's layers out, and says where they are.
    d.ok(&["rmi", "-f", &id, &name, &mounted, &away, &again]);
    assert_eq!(d.ok(&["images", "-q"]).lines().count(), 1);
    d.ok(&["load", "-i", &saved]);
    shows(&committed);
    let loaded = format!("{}/loaded:1", r.host());
    d.ok(&["tag", &committed, &loaded]);
    let out = d.ok(&["push", &loaded]);
    assert!(out.contains("Mounted from a/image"), "{out}");
    let manifest = raw(&loaded);
    assert_eq!(
        (&manifest["layers"][0]["digest"], &manifest["layers"][0]["mediaType"]),
        (&json!(base), &json!(ORDINARY))
    );
    assert_eq!(manifest["config"]["digest"], *id);
    let checked = d.silo(&["image", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    // Without it nothing is left but the local base.
    d.ok(&["rmi", "-f", &id]);
    d.ok(&["image", "prune", "-f"]);
    assert_eq!(
        std::fs::read_dir(d.path("root/snapshots"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().is_dir())
            .count(),
        1
    );
}
