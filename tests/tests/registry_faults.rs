//! Registries that lie, break off, are busy or speak nonsense: a clear error and the store as before, or patience that
//! leads to the image all the same. And which image of an index is taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use serde_json::json;
use silo_tests::Daemon;
use silo_tests::http::{Reply, Request, Server};
use silo_tests::images::{INDEX, Image, MANIFEST, Packed, digest, image, noise, tar};
use silo_tests::registry::{Options, Registry, certificates, free_port, run};

type Trick = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

/// What a truthful registry would serve, by path below `/v2/`.
fn contents(images: &[(&str, &Image)]) -> HashMap<String, (String, Vec<u8>)> {
    let mut all = HashMap::new();
    for (tag, image) in images {
        let manifest = (MANIFEST.to_owned(), image.manifest.clone());
        all.insert(format!("x/manifests/{tag}"), manifest.clone());
        all.insert(format!("x/manifests/{}", digest(&image.manifest)), manifest);
        for blob in &image.blobs {
            all.insert(
                format!("x/blobs/{}", digest(blob)),
                ("application/octet-stream".to_owned(), blob.clone()),
            );
        }
    }
    all
}

/// A registry that plays a trick first.
fn registry(
    all: HashMap<String, (String, Vec<u8>)>,
    trick: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let trick: Arc<Trick> = Arc::new(trick);
    Server::start(move |_, request| {
        if let Some(reply) = trick(request) {
            return reply;
        }
        let Some(path) = request.path.strip_prefix("/v2/") else { return Reply::new(404, "") };
        if path.is_empty() {
            return Reply::new(200, "{}");
        }
        let unknown =
            json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).to_string();
        let Some((kind, bytes)) = all.get(path) else { return Reply::new(404, unknown) };
        let start = request.start();
        if start == 0 {
            return Reply::new(200, bytes.clone()).with("content-type", kind.clone());
        }
        Reply::new(206, &bytes[start..])
            .with("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
    })
}

fn is_blob(request: &Request, blob: &str) -> bool {
    request.path.ends_with(blob)
}

#[test]
fn lies_are_told_and_leave_nothing() {
    let d = Daemon::empty();
    let layers = [(tar(&[("a", &noise(3 << 20, 1))]), Packed::Gzip), (tar(&[("b", b"small")]), Packed::Gzip)];
    let made = image("linux/amd64", &layers);
    let (config, big) = (digest(&made.blobs[0]), digest(&made.blobs[1]));
    let bytes = made.blobs[1].clone();
    let wrong = {
        let mut wrong = bytes.clone();
        wrong[1 << 20] ^= 1;
        wrong
    };
    // Unpacks to something else, and is compressed soundly.
    let other = silo_tests::images::pack(&tar(&[("a", &noise(3 << 20, 2))]), Packed::Gzip);
    let foreign_diff = image("linux/amd64", &[(tar(&[("z", b"z")]), Packed::Gzip), layers[1].clone()]);
    let mut lying_manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    let honest: serde_json::Value = serde_json::from_slice(&foreign_diff.manifest).unwrap();
    lying_manifest["layers"][0] = honest["layers"][0].clone();
    let mut short: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    short["layers"].as_array_mut().unwrap().pop();
    let html = "<html>hello</html>";
    let blob = |to: Vec<u8>| Reply::new(200, to);
    let cases: Vec<(&str, Box<Trick>)> = vec![
        ("filesystem layer verification failed for digest", {
            let (big, wrong) = (big.clone(), wrong.clone());
            Box::new(move |r| is_blob(r, &big).then(|| blob(wrong.clone())))
        }),
        ("bytes for blob", {
            let (big, other) = (big.clone(), [other.clone(), vec![0]].concat());
            Box::new(move |r| is_blob(r, &big).then(|| blob(other.clone())))
        }),
        ("bytes for blob", {
            let (big, half) = (big.clone(), bytes[..1 << 20].to_vec());
            Box::new(move |r| is_blob(r, &big).then(|| blob(half.clone())))
        }),
        ("more bytes for blob", {
            let (big, bytes) = (big.clone(), bytes.clone());
            Box::new(move |r| is_blob(r, &big).then(|| Reply { endless: true, ..blob(bytes.clone()) }))
        }),
        ("verification failed for digest", {
            let config = config.clone();
            Box::new(move |r| is_blob(r, &config).then(|| blob(b"{}".to_vec())))
        }),
        ("web page (text/html) instead of a manifest", {
            Box::new(move |r| {
                is_blob(r, "manifests/1").then(|| Reply::new(200, html).with("content-type", "text/html"))
            })
        }),
        ("EOF while parsing", {
            Box::new(move |r| is_blob(r, "manifests/1").then(|| Reply::new(200, "{\"schemaVersion\":2,")))
        }),
        ("manifest verification failed", {
            let lie = digest(b"something else");
            let manifest = made.manifest.clone();
            Box::new(move |r| {
                let reply = || Reply::new(200, manifest.clone()).with("docker-content-digest", lie.clone());
                is_blob(r, "manifests/1").then(reply)
            })
        }),
        ("1 layers, and 2 in its config", {
            let short = short.to_string();
            Box::new(move |r| is_blob(r, "manifests/1").then(|| Reply::new(200, short.clone())))
        }),
        ("more than 4194304 bytes", {
            Box::new(move |r| {
                is_blob(r, "manifests/1")
                    .then(|| Reply { endless: true, ..Reply::new(200, vec![b' '; 1 << 16]) })
            })
        }),
        ("schema 1", {
            Box::new(move |r| is_blob(r, "manifests/1").then(|| Reply::new(200, "{\"schemaVersion\":1}")))
        }),
        ("invalid diffID for a layer", {
            let lying = lying_manifest.to_string();
            Box::new(move |r| is_blob(r, "manifests/1").then(|| Reply::new(200, lying.clone())))
        }),
        ("denied: not for you", {
            let refusal = json!({"errors": [{"code": "DENIED", "message": "not for you"}]}).to_string();
            Box::new(move |r| is_blob(r, &big).then(|| Reply::new(403, refusal.clone())))
        }),
    ];
    for (words, trick) in cases {
        let server = registry(contents(&[("1", &made), ("other", &foreign_diff)]), trick);
        let name = format!("{}/x:1", server.host());
        d.fails(&["pull", &name], words);
        assert_eq!(d.ok(&["images", "-aq"]), "", "{words}");
        for dir in ["root/content/sha256", "root/content/layers", "root/snapshots", "root/images"] {
            assert_eq!(std::fs::read_dir(d.path(dir)).unwrap().count(), 0, "{words}: {dir}");
        }
    }
    let server = registry(contents(&[("1", &made)]), |_| None);
    d.ok(&["pull", &format!("{}/x:1", server.host())]);
    assert_eq!(d.silo(&["image", "check"]).code, 0);
}

#[test]
fn trouble_is_outlasted() {
    let d = Daemon::empty();
    let layers = [(tar(&[("a", &noise(5 << 20, 3))]), Packed::Gzip)];
    let made = image("linux/amd64", &layers);
    let big = digest(&made.blobs[1]);
    let total = made.blobs[1].len();
    // A connection that breaks off again and again goes on where it was, by a range or, without those, from the start.
    for ranges in [true, false] {
        let (times, bytes, of) = (AtomicUsize::new(0), made.blobs[1].clone(), big.clone());
        let server = registry(contents(&[("1", &made)]), move |r| {
            if !is_blob(r, &of) {
                return None;
            }
            let time = times.fetch_add(1, Ordering::SeqCst);
            let start = if ranges { r.start() } else { 0 };
            let end = ((time + 1) * (1 << 20)).min(bytes.len());
            let reply =
                Reply { length: Some((bytes.len() - start) as u64), ..Reply::new(200, &bytes[start..end]) };
            match start {
                0 => Some(reply),
                _ => Some(
                    Reply { status: 206, ..reply }
                        .with("content-range", format!("bytes {start}-{}/{total}", total - 1)),
                ),
            }
        });
        d.ok(&["pull", &format!("{}/x:1", server.host())]);
        let asked = server.seen().iter().filter(|r| is_blob(r, &big) && r.header("range").is_some()).count();
        assert!(asked >= 4, "{asked} ranges");
        assert_eq!(d.silo(&["image", "check"]).code, 0);
        d.ok(&["rmi", "-f", &made.id]);
    }
    // Busy, in trouble, busy again: three times each of manifest and layer.
    let times = (AtomicUsize::new(0), AtomicUsize::new(0));
    let of = big.clone();
    let server = registry(contents(&[("1", &made)]), move |r| {
        let time = match r.path.contains("/manifests/") {
            true => times.0.fetch_add(1, Ordering::SeqCst),
            false if is_blob(r, &of) => times.1.fetch_add(1, Ordering::SeqCst),
            false => return None,
        };
        match time {
            0 => Some(Reply::new(429, "").with("retry-after", "1")),
            1 => Some(Reply::new(500, "")),
            _ => None,
        }
    });
    let start = std::time::Instant::now();
    d.ok(&["pull", &format!("{}/x:1", server.host())]);
    assert!(start.elapsed() >= std::time::Duration::from_secs(2), "it was asked to wait");
    d.ok(&["rmi", "-f", &made.id]);
    // Nothing ever: patience ends.
    let of = big.clone();
    let server = registry(contents(&[("1", &made)]), move |r| {
        is_blob(r, &of).then(|| Reply { length: Some(10), ..Reply::new(200, "") })
    });
    d.fails(&["pull", &format!("{}/x:1", server.host())], "the registry sent 10 bytes for blob");
    let server = registry(contents(&[]), |r| {
        r.path.contains("/manifests/").then(|| Reply::new(429, "").with("retry-after", "0"))
    });
    d.fails(&["pull", &format!("{}/x:1", server.host())], "toomanyrequests");
    assert_eq!(server.seen().iter().filter(|r| r.path.contains("/manifests/")).count(), 5);
}

#[test]
fn pushes_outlast_trouble_too() {
    let d = Daemon::start();
    let times = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::start(move |_, r| match (r.method.as_str(), r.path.as_str()) {
        ("GET", "/v2/") => Reply::new(200, "{}"),
        ("HEAD", _) => Reply::new(404, ""),
        ("POST", _) if times.0.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::new(503, "").with("retry-after", "1")
        }
        // A location without a host, and with a query of its own.
        ("POST", _) => Reply::new(202, "").with("location", "/v2/y/blobs/uploads/1?state=a"),
        ("PUT", path) if path.ends_with("/uploads/1") && times.1.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::new(500, "")
        }
        ("PUT", _) => Reply::new(201, ""),
        _ => Reply::new(405, ""),
    });
    let name = format!("{}/y:1", server.host());
    d.ok(&["tag", "localhost/busybox", &name]);
    d.ok(&["push", &name]);
    let seen = server.seen();
    let puts: Vec<&Request> = seen.iter().filter(|r| r.path.ends_with("/uploads/1")).collect();
    assert!(puts.iter().all(|r| r.query.starts_with("state=a&digest=sha256%3A")), "{:?}", puts[0].query);
    // What was sent in the end is what its digest says, layer and config alike.
    for put in &puts[1..] {
        assert!(put.query.ends_with(&digest(&put.body)[7..]));
    }
    assert!(puts.len() == 3 && puts[0].body == puts[1].body, "{} uploads", puts.len());
    // A registry that takes the manifest for another one is not believed.
    let liar = Server::start(|_, r| match (r.method.as_str(), r.path.as_str()) {
        ("GET", _) | ("HEAD", _) => Reply::new(200, "{}"),
        _ => Reply::new(201, "").with("docker-content-digest", digest(b"another")),
    });
    let name = format!("{}/z:1", liar.host());
    d.ok(&["tag", "localhost/busybox", &name]);
    d.fails(&["push", &name], "the registry took the manifest");
}

#[test]
fn the_platform_chooses_from_an_index() {
    let d = Daemon::empty();
    let of =
        |platform: &str, text: &str| image(platform, &[(tar(&[("Files/a", text.as_bytes())]), Packed::Gzip)]);
    let (amd64, arm64) = (of("linux/amd64", "amd64"), of("linux/arm64", "arm64"));
    let (old, own, new) =
        (of("windows/amd64", "old"), of("windows/amd64", "own"), of("windows/amd64", "new"));
    let remarks = image("unknown/unknown", &[]);
    let entry = |image: &Image, platform: &str, version: &str| {
        let (os, architecture) = platform.split_once('/').unwrap();
        json!({"mediaType": MANIFEST, "digest": digest(&image.manifest), "size": image.manifest.len(),
            "platform": {"os": os, "architecture": architecture, "os.version": version}})
    };
    let windows = vec![
        entry(&remarks, "unknown/unknown", ""),
        entry(&old, "windows/amd64", "10.0.17763.1"),
        entry(&own, "windows/amd64", "10.0.20348.9"),
        entry(&new, "windows/amd64", "10.0.26100.1"),
    ];
    let linux = vec![entry(&arm64, "linux/arm64", ""), entry(&amd64, "linux/amd64", "")];
    let index = |entries: &[serde_json::Value]| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
    };
    let (both, only) = (index(&[windows.clone(), linux.clone()].concat()), index(&windows));
    let all = [("a", &amd64), ("b", &arm64), ("c", &old), ("d", &own), ("e", &new), ("f", &remarks)];
    let mut served = contents(&all);
    for (tag, bytes) in [("both", &both), ("windows", &only)] {
        served.insert(format!("x/manifests/{tag}"), (INDEX.to_owned(), bytes.clone()));
        served.insert(format!("x/manifests/{}", digest(bytes)), (INDEX.to_owned(), bytes.clone()));
    }
    let server = registry(served, |_| None);
    let name = |tag: &str| format!("{}/x:{tag}", server.host());
    for (tag, platform, image) in [
        ("both", None, &amd64),
        ("both", Some("linux/arm64"), &arm64),
        ("both", Some("windows/amd64"), &own),
        ("both", Some("windows(10.0.26100)/amd64"), &new),
        ("windows", None, &own),
    ] {
        let mut arguments = vec!["pull"];
        arguments.extend(platform.iter().flat_map(|p| ["--platform", p]));
        let name = name(tag);
        arguments.push(&name);
        let out = d.ok(&arguments);
        let index = if tag == "both" { &both } else { &only };
        assert!(out.contains(&format!("Digest: {}", digest(index))), "{out}");
        assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", &name]), image.id, "{tag} {platform:?}");
    }
    d.fails(
        &["pull", "--platform", "linux/s390x", &name("both")],
        "no matching manifest for linux/s390x in the manifest list entries",
    );
    d.fails(&["pull", "--platform", "plan9", &name("both")], "unknown operating system or architecture");
    // One that is for something else and stands alone is taken, with a word.
    let out = d.ok(&["pull", "--platform", "linux/arm64", &name("a")]);
    assert!(out.contains("WARNING: image with reference"), "{out}");
    // What is pushed of an index is the image, by its own manifest.
    let r = Registry::start();
    let to = format!("{}/y:1", r.host());
    d.ok(&["tag", &name("both"), &to]);
    assert!(
        d.ok(&["push", &to]).contains(&digest(&own.manifest))
            || d.ok(&["inspect", "-f", "{{.Id}}", &to]) != own.id
    );
    let answer = d.get(&format!("/distribution/{}/json", name("both")));
    assert!(answer.contains("10.0.26100.1") && answer.contains(&digest(&both)), "{answer}");
    assert_eq!(d.silo(&["image", "check"]).code, 0);
}

#[test]
fn foreign_layers_come_from_their_owner_and_are_not_pushed() {
    let d = Daemon::empty();
    let layers =
        [(tar(&[("Files/base", b"base")]), Packed::Gzip), (tar(&[("Files/own", b"own")]), Packed::Gzip)];
    let mut made = image("windows/amd64", &layers);
    let (base, own) = (made.blobs[1].clone(), digest(&made.blobs[2]));
    let giver = {
        let base = base.clone();
        Server::start(move |_, r| Reply::new(if r.path == "/base" { 200 } else { 404 }, base.clone()))
    };
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    manifest["layers"][0]["mediaType"] = kind.into();
    let urls = [format!("http://{}/gone", giver.host()), format!("http://{}/base", giver.host())];
    manifest["layers"][0]["urls"] = json!(urls);
    made.manifest = manifest.to_string().into_bytes();
    // The registry has none of the base.
    made.blobs.remove(1);
    let server = registry(contents(&[("1", &made)]), |_| None);
    let name = format!("{}/x:1", server.host());
    d.ok(&["pull", &name]);
    assert!(giver.seen().iter().all(|r| r.header("authorization").is_none()));
    let r = Registry::with(&Options { foreign: true, ..Default::default() });
    let to = format!("{}/y:1", r.host());
    d.ok(&["tag", &name, &to]);
    let out = d.ok(&["push", &to]);
    assert!(out.contains("Skipped foreign layer") && out.contains(&digest(&made.manifest)), "{out}");
    assert!(r.has(&own) && !r.has(&digest(&base)));
    // Without its owner it cannot be had.
    d.ok(&["rmi", "-f", &made.id]);
    drop(giver);
    d.fails(&["pull", &name], "manifest unknown");
    assert_eq!(d.ok(&["images", "-aq"]), "");
}

#[test]
fn registries_are_reached_through_a_proxy() {
    let made = image("linux/amd64", &[(tar(&[("a", b"a")]), Packed::Gzip)]);
    // Speaks both ways of proxies: whole URLs, and tunnels, in which it is the registry itself.
    let inner = Arc::new(registry(contents(&[("1", &made)]), |_| None));
    let target = inner.host();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let lines = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let seen = lines.clone();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        for client in listener.incoming().flatten() {
            let (target, seen) = (target.clone(), seen.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let mut first = String::new();
                reader.read_line(&mut first).unwrap();
                seen.lock().unwrap().push(first.clone());
                let mut server = std::net::TcpStream::connect(&target).unwrap();
                if first.starts_with("CONNECT ") {
                    if first.contains(":443") {
                        return;
                    }
                    let mut line = String::from("x");
                    while !line.trim().is_empty() {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                    }
                    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                } else {
                    let path = first.replacen("http://registry.test", "", 1);
                    server.write_all(path.as_bytes()).unwrap();
                }
                let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut reader, &mut server);
            });
        }
    });
    let arguments = ["--insecure-registry", "registry.test", "--http-proxy", &proxy, "--https-proxy", &proxy];
    let d = Daemon::with(|dir| {
        // From the settings file.
        let file = dir.join("daemon.toml");
        std::fs::write(&file, "no-proxy = \"direct.test\"\nmax-concurrent-downloads = 1\n").unwrap();
        let config = ["--config".to_owned(), file.display().to_string()];
        config.into_iter().chain(arguments.map(str::to_owned)).collect()
    });
    d.ok(&["pull", "registry.test/x:1"]);
    let said = lines.lock().unwrap().clone();
    assert!(said.iter().any(|l| l.contains("registry.test")), "{said:?}");
    let before = said.len();
    d.fails(&["pull", "direct.test/x:1"], "direct.test");
    assert_eq!(lines.lock().unwrap().len(), before, "a proxy is asked for what is to be reached without");
    let info = d.get("/info");
    assert!(info.contains(&proxy) && info.contains("direct.test"), "{info}");
}

/// A JSON web token for a registry, signed by the key whose certificate goes with it (RFC 7515, `x5c`).
fn token(dir: &std::path::Path, host: &str, access: &serde_json::Value) -> String {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let pem = std::fs::read_to_string(dir.join("server.crt")).unwrap();
    let certificate: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]}).to_string();
    let body =
        json!({"iss": "test", "aud": host, "sub": "tester", "exp": now + 600, "nbf": now - 60, "iat": now,
        "jti": "1", "access": access})
        .to_string();
    let text = format!("{}.{}", encode(head.as_bytes()), encode(body.as_bytes()));
    let at = |name: &str| dir.join(name).display().to_string();
    let serial = digest(text.as_bytes());
    let (plain, signed) = (at(&serial[7..20]), at(&format!("{}.sig", &serial[7..20])));
    std::fs::write(&plain, &text).unwrap();
    run("openssl", &["dgst", "-sha256", "-sign", &at("server.key"), "-out", &signed, &plain]);
    format!("{text}.{}", encode(&std::fs::read(signed).unwrap()))
}

#[test]
fn tokens_open_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let port = free_port();
    let host = format!("127.0.0.1:{port}");
    let (keys, audience) = (dir.path().to_owned(), host.clone());
    // Gives what is asked for to who has the password, or the refresh token that a log-in gave.
    let server = Server::start(move |_, request| {
        let decode =
            |text: &str| text.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/").replace("%2E", ".");
        let form = if request.method == "POST" {
            String::from_utf8_lossy(&request.body).into_owned()
        } else {
            request.query.clone()
        };
        let fields: Vec<(String, String)> = form
            .split('&')
            .filter_map(|f| f.split_once('='))
            .map(|(n, v)| (n.to_owned(), decode(v)))
            .collect();
        let get =
            |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        // tester:secret
        let known = request.header("authorization") == Some("Basic dGVzdGVyOnNlY3JldA==")
            || get("refresh_token") == "refresh1";
        if !known {
            let refusal =
                json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]});
            return Reply::new(401, refusal.to_string());
        }
        let access: Vec<serde_json::Value> = fields
            .iter()
            .filter(|(n, _)| n == "scope")
            .flat_map(|(_, v)| v.replace("%20", " ").split(' ').map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|s| {
                let (rest, actions) = s.rsplit_once(':')?;
                let (kind, name) = rest.split_once(':')?;
                Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
            })
            .collect();
        let made = token(&keys, &audience, &json!(access));
        let mut answer = json!({"access_token": made, "expires_in": 300});
        if request.method == "GET" {
            answer["token"] = answer["access_token"].clone();
        }
        if request.query.contains("offline_token=true") {
            answer["refresh_token"] = "refresh1".into();
        }
        Reply::new(200, answer.to_string()).with("content-type", "application/json")
    });
    let auth = format!(
        "{{token: {{realm: \"http://{}/token\", service: \"{host}\", issuer: test, rootcertbundle: {}}}}}",
        server.host(),
        dir.path().join("ca.crt").display()
    );
    let r = Registry::at(port, &Options { auth: Some(auth), ..Default::default() });
    let d = Daemon::start();
    let name = format!("{host}/a/b:1");
    d.ok(&["tag", "localhost/busybox", &name]);
    d.fails(&["push", &name], "unauthorized");
    d.fails(&["login", "-u", "tester", "-p", "wrong", &host], "incorrect username or password");
    d.ok(&["login", "-u", "tester", "-p", "secret", &host]);
    let kept = std::fs::read_to_string(d.path("docker/config.json")).unwrap();
    assert!(kept.contains("refresh1"), "{kept}");
    d.ok(&["push", &name]);
    d.ok(&["tag", &name, &format!("{host}/c:1")]);
    let out = d.ok(&["push", &format!("{host}/c:1")]);
    assert!(out.contains("Mounted from a/b"), "{out}\n{}", r.log());
    d.ok(&["rmi", "-f", &d.ok(&["inspect", "-f", "{{.Id}}", &name])]);
    d.ok(&["pull", &name]);
    assert!(server.seen().iter().any(|r| r.method == "POST"), "the refresh token is not used");
    assert_eq!(d.ok(&["run", "--rm", &name, "echo", "in"]), "in");
}
