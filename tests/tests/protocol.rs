//! Clients that speak HTTP badly: each gets its error, and nobody else notices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use silo_tests::Daemon;

/// Sends bytes as they are and returns what comes back until the connection closes or is silent for a while.
fn raw(d: &Daemon, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(d.path("silo.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that refuses early may close before everything is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(d: &Daemon, path: &str, body: &str) -> String {
    raw(
        d,
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
}

#[test]
fn bad_requests_get_an_error_and_touch_nobody_else() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "steady", "localhost/busybox", "sleep", "600"]);
    let check = |answer: &str, status: &str, words: &str| {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{answer:?}");
    };
    check(&post(&d, "/v1.43/containers/create", "{\"Image\": \"x"), "400", "message");
    check(&post(&d, "/v1.43/containers/create", "[1, 2]"), "400", "message");
    check(&post(&d, "/v1.43/containers/create", "{\"Image\": 5}"), "400", "message");
    check(&post(&d, "/v1.43/containers/create", "{\"Image\": \"nosuch\"}"), "404", "No such image: nosuch");
    check(
        &post(
            &d,
            "/v1.43/containers/create",
            "{\"Image\": \"localhost/busybox\", \"HostConfig\": {\"KernelMemory\": 9999999}}",
        ),
        "400",
        "KernelMemory",
    );
    check(&post(&d, "/build", ""), "400", "Cannot locate specified Dockerfile: Dockerfile");
    check(&post(&d, "/nosuch", ""), "404", "page not found");
    check(&raw(&d, b"PUT /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "405", "message");
    check(&raw(&d, b"GET /events?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "400", "invalid filter 'nosuch'");
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(9 << 20));
    check(&post(&d, "/v1.43/containers/create", &huge), "4", "message");
    check(&raw(&d, b"nonsense\r\n\r\n"), "400", "");
    // Vanishing in the middle of a head, of a body, and of a stream.
    for part in [
        "POST /containers/create HT",
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"Im",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/steady/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(d.path("silo.sock")).unwrap();
        stream.write_all(part.as_bytes()).unwrap();
    }
    assert_eq!(d.ok(&["exec", "steady", "echo", "here"]), "here");
}

#[test]
fn older_versions_of_the_api_are_spoken() {
    let d = Daemon::start();
    for version in ["1.24", "1.41", "1.50"] {
        let mut command = d.command(&["run", "--rm", "localhost/busybox", "echo", version]);
        let said: silo_tests::Said = command.env("DOCKER_API_VERSION", version).output().unwrap().into();
        assert_eq!((said.code, said.out.as_str()), (0, version), "{said:?}");
    }
    let answer = raw(&d, b"GET /v1.99/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("too new"), "{answer}");
}

#[test]
fn an_exec_that_cannot_be_composed_says_so_and_ends() {
    let d = Daemon::start();
    d.ok(&["run", "-d", "--name", "box", "localhost/busybox", "sleep", "600"]);
    let said = d.docker(&["exec", "-u", "nosuch", "box", "true"]);
    assert!(said.code == 126 && (said.out + &said.err).contains("unable to find user nosuch"));
    let said = d.docker(&["exec", "-u", "nosuch", "-d", "box", "true"]);
    assert!(said.code != 0 && said.err.contains("unable to find user nosuch"), "{said:?}");
}

#[test]
fn a_start_that_failed_leaves_nothing_that_harms_the_next() {
    let mut d = Daemon::start();
    // The bridge's gateway holds the port for the time being.
    let holder = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    d.ok(&["create", "--name", "web", "-p", &format!("{port}:80"), "localhost/busybox", "sleep", "600"]);
    let said = d.docker(&["start", "web"]);
    assert!(said.code != 0 && said.err.contains(&port.to_string()), "{said:?}");
    drop(holder);
    d.ok(&["start", "web"]);
    d.stop(true);
    d.again();
    d.await_state("web", "{{.State.Running}}", "true");
    assert_eq!(d.ok(&["exec", "web", "echo", "alive"]), "alive");
}

#[test]
fn a_forced_removal_does_not_wait_for_a_stop() {
    let d = Daemon::start();
    d.ok(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "localhost/busybox",
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 1; done",
    ]);
    let mut stop = d.command(&["stop", "-t", "80", "deaf"]).spawn().unwrap();
    // The stop is under way once its signal is told.
    d.await_line(&["events", "--since", "1m", "--filter", "event=kill", "--format", "{{.Action}}"], "kill");
    let began = std::time::Instant::now();
    d.ok(&["rm", "-f", "deaf"]);
    assert!(began.elapsed() < Duration::from_secs(40), "it waited for the stop");
    stop.wait().unwrap();
}
