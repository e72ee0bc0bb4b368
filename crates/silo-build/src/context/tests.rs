//! Contexts by all their ways in.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::*;

fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(5);
        // As a hostile client writes it.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn receive(bytes: Vec<u8>, at: &Path) -> Result<Context> {
    Context::receive(Box::new(io::Cursor::new(bytes)), at, &layer::Limits::default())
}

#[test]
fn an_archive_may_end_with_its_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let whole = archive(&[("a", "x"), ("Dockerfile", "FROM x\n")]);
    // Two members before, each of a header and a block.
    let context = receive(whole[..1024 + 512 + 7].to_vec(), &dir.path().join("context")).unwrap();
    assert_eq!(context.dockerfile("").unwrap().0, "FROM x\n");
    assert!(receive(whole[..1024 + 512 + 6].to_vec(), &dir.path().join("cut")).is_err());
}

#[test]
fn a_body_is_unpacked_and_what_is_ignored_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("context");
    let plain = archive(&[
        ("sub/My.Dockerfile", "FROM x\n"),
        ("sub/My.Dockerfile.dockerignore", "keep\n"),
        (".dockerignore", "**\n"),
        ("dockerfile", "\u{feff}FROM y\n"),
        ("node/a", "a"),
        ("node/keep", "k"),
        ("empty", " \n"),
    ]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    let zst = zstd::encode_all(&plain[..], 1).unwrap();
    for bytes in [plain, gz.finish().unwrap(), zst] {
        let context = receive(bytes, &at).unwrap();
        let meta = std::fs::metadata(at.join("node/a")).unwrap();
        let seen = std::os::unix::fs::MetadataExt::uid(&meta);
        assert_eq!((seen, meta.len()), (0, 1));
        assert_eq!(context.dockerfile("").unwrap(), ("FROM y\n".to_owned(), "dockerfile".to_owned()));
        let named = context.dockerfile("./sub/My.Dockerfile").unwrap();
        assert_eq!(named.1, "sub/My.Dockerfile");
        assert_eq!(context.ignore_file(&named.1).unwrap().as_deref(), Some("keep\n"));
        assert_eq!(context.ignore_file("dockerfile").unwrap().as_deref(), Some("**\n"));
        let error = |path: &str| context.dockerfile(path).unwrap_err().to_string();
        assert_eq!(error("None"), "Cannot locate specified Dockerfile: None");
        assert_eq!(error("empty"), "the Dockerfile (empty) cannot be empty");
        assert_eq!(error("sub"), "sub is no file");
        context.leave_out(&|path| !path.ends_with("keep")).unwrap();
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
        assert!(at.join("node/keep").exists());
        drop(context);
        assert!(!at.exists());
    }
}

#[test]
fn hostile_archives_stay_inside_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("context");
    let refused = receive(archive(&[("../out", "x")]), &at).unwrap_err().to_string();
    assert!(refused.contains("leads out"), "{refused}");
    assert!(!dir.path().join("out").exists() && !at.exists());
    let context = receive(archive(&[("/etc/passwd", "x")]), &at).unwrap();
    assert!(at.join("etc/passwd").exists());
    drop(context);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_link(&mut header, "Dockerfile", dir.path().join("secret")).unwrap();
    std::fs::write(dir.path().join("secret"), "FROM secret").unwrap();
    let context = receive(tar.into_inner().unwrap(), &at).unwrap();
    assert!(context.dockerfile("").unwrap_err().to_string().starts_with("Cannot locate"));
    drop(context);
    for bytes in [b"no tar at all, and longer than a block of one has to be".repeat(20), vec![0x1f, 0x8b, 8]]
    {
        assert!(receive(bytes, &at).is_err());
        assert!(!at.exists());
    }
}

/// Answers each connection with the next of `answers`; the address.
fn serve(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
            }
            stream.write_all(&answer).unwrap();
        }
    });
    format!("http://{address}")
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn urls_lead_to_archives_dockerfiles_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("context");
    let (settings, cancel) = (Arc::new(RegistrySettings::default()), Cancel::default());
    let tar = archive(&[("Dockerfile", "FROM tar\n")]);
    let host = serve(vec![
        answer("200 OK", "Content-Type: application/x-tar\r\n", &tar),
        answer("200 OK", "Content-Type: text/plain; charset=utf-8\r\n", b"FROM plain\n"),
        answer("200 OK", "Content-Type: text/html\r\n", b"<html>"),
        answer("404 Not Found", "", b"nothing here"),
        answer("302 Found", "Location: /again\r\n", b""),
        answer("200 OK", "Last-Modified: Thu, 01 Jan 1970 00:02:03 GMT\r\n", b"file"),
        answer("200 OK", "", b"file"),
        answer("200 OK", "", b"file"),
    ]);
    let remote = |url: &str| Context::remote(url, &at, &settings, &cancel, &layer::Limits::default());
    assert_eq!(remote(&format!("{host}/c.tar")).unwrap().dockerfile("").unwrap().0, "FROM tar\n");
    assert_eq!(remote(&format!("{host}/D")).unwrap().dockerfile("").unwrap().0, "FROM plain\n");
    let words = remote(&format!("{host}/page")).unwrap_err().to_string();
    assert!(words.ends_with("unsupported Content-Type \"text/html\""), "{words}");
    let words = remote(&format!("{host}/none")).unwrap_err().to_string();
    assert_eq!(words, format!("failed to GET {host}/none with status 404 Not Found: nothing here"));
    assert_eq!(
        remote("ftp://x").unwrap_err().to_string(),
        "remoteURL (ftp://x) could not be recognized as URL"
    );
    let get = |checksum: Option<&str>, name: &str| {
        fetch(&format!("{host}/d/name?x"), checksum, &dir.path().join(name), &settings, &cancel)
    };
    let fetched = get(None, "one").unwrap();
    assert_eq!((fetched.name.as_deref(), fetched.modified.map(|t| t.as_second())), (Some("name"), Some(123)));
    assert_eq!(std::fs::read(&fetched.path).unwrap(), b"file");
    let right = silo_image::Digest::of(b"file").to_string();
    assert!(get(Some(&right), "two").is_ok());
    let wrong = silo_image::Digest::of(b"other").to_string();
    let words = get(Some(&wrong), "three").unwrap_err().to_string();
    assert_eq!(words, format!("digest mismatch {right}: {wrong}"));
    assert!(
        get(Some("md5:1"), "four").unwrap_err().to_string().starts_with("invalid checksum digest format")
    );
}

#[test]
fn what_is_a_git_repository() {
    let check = |text: &str, expected: Option<(&str, &str, &str)>| {
        let found = git_source(text);
        let found = found.as_ref().map(|s| (s.url.as_str(), s.reference.as_str(), s.directory.as_str()));
        assert_eq!(found, expected, "{text}");
    };
    check("https://h/r.git", Some(("https://h/r.git", "", "")));
    check("https://h/r.git#v1:sub/dir", Some(("https://h/r.git", "v1", "sub/dir")));
    check("git://h/r#:sub", Some(("git://h/r", "", "sub")));
    check("git@h:o/r.git#b", Some(("git@h:o/r.git", "b", "")));
    check("github.com/o/r", Some(("https://github.com/o/r", "", "")));
    check("https://h/r.tar.gz", None);
    check("https://h/r.git/x", None);
}

/// `git daemon` of a repository with two commits; ends with the test.
struct Served(std::process::Child, u16);

impl Drop for Served {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"];
    let output = Command::new("git").args(who).args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn serve_git(base: &Path) -> Served {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("git");
    command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display()));
    command.stderr(std::process::Stdio::null());
    let child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
    let served = Served(child, port);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < end, "git daemon does not listen");
        std::thread::yield_now();
    }
    served
}

#[test]
fn a_repository_is_checked_out_by_branch_commit_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("served/r");
    std::fs::create_dir_all(repository.join("sub/sub")).unwrap();
    git(&repository, &["init", "-q"]);
    std::fs::write(repository.join("Dockerfile"), "FROM one\n").unwrap();
    std::fs::write(repository.join("sub/sub/f"), "f").unwrap();
    // What a repository holds is never git's settings: this program would be run.
    let mark = dir.path().join("ran");
    let settings_of_its_own = format!("[core]\n\tfsmonitor = \"touch {}; false\"\n", mark.display());
    std::fs::create_dir_all(repository.join(".config/git")).unwrap();
    for file in [".gitconfig", ".config/git/config"] {
        std::fs::write(repository.join(file), &settings_of_its_own).unwrap();
    }
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-qm", "1"]);
    let first = git(&repository, &["rev-parse", "HEAD"]);
    std::fs::write(repository.join("Dockerfile"), "FROM two\n").unwrap();
    git(&repository, &["commit", "-qam", "2"]);
    git(&repository, &["tag", "v2"]);
    let served = serve_git(&dir.path().join("served"));
    let (settings, at) = (Arc::new(RegistrySettings::default()), dir.path().join("context"));
    let url = format!("git://127.0.0.1:{}/r", served.1);
    let context = |fragment: &str| {
        let limits = layer::Limits::default();
        Context::remote(&format!("{url}{fragment}"), &at, &settings, &Cancel::default(), &limits)
    };
    for (fragment, text) in [("", "two"), ("#main", "two"), ("#v2", "two"), (&*format!("#{first}"), "one")] {
        let context = context(fragment).unwrap();
        assert_eq!(context.dockerfile("").unwrap().0, format!("FROM {text}\n"), "{fragment}");
        assert!(!at.join(".git").exists());
    }
    let names =
        |at: &Path| -> Vec<_> { std::fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let below = context("#:sub").unwrap();
    assert_eq!((names(&at), at.join("sub/f").exists()), (vec!["sub".into()], true));
    drop(below);
    let missing = context("#:none").unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{url}: none: ")), "{missing}");
    let missing = context("#none").unwrap_err().to_string();
    assert!(missing.contains("git checkout: "), "{missing}");
    let kept = dir.path().join("kept");
    clone(&git_source(&url).unwrap(), &kept, true, &settings, &Cancel::default()).unwrap();
    assert!(kept.join(".git/HEAD").exists());
    assert!(!mark.exists(), "the repository's own settings were taken");
}

#[test]
fn a_repository_that_cannot_be_had_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let source = |reference: &str, directory: &str| GitSource {
        url: "http://127.0.0.1:9/r.git".to_owned(),
        reference: reference.to_owned(),
        directory: directory.to_owned(),
    };
    let clone = |source: &GitSource| {
        clone(source, dir.path(), false, &RegistrySettings::default(), &Cancel::default())
            .unwrap_err()
            .to_string()
    };
    assert!(clone(&source("--upload-pack=x", "")).ends_with("is no reference"));
    assert!(clone(&source("", "../x")).ends_with("leads out of the repository"));
    let words = clone(&source("main", ""));
    assert!(words.starts_with("http://127.0.0.1:9/r.git: git fetch: "), "{words}");
}

#[test]
fn a_clone_that_is_given_up_ends() {
    let dir = tempfile::tempdir().unwrap();
    // Takes the call, and says nothing.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let source = git_source(&format!("git://{}/r", server.local_addr().unwrap())).unwrap();
    let (cancel, to) = (Cancel::default(), dir.path().join("r"));
    let given_up = cancel.clone();
    let clone = std::thread::spawn(move || clone(&source, &to, false, &RegistrySettings::default(), &cancel));
    let _call = server.accept().unwrap();
    given_up.cancel();
    let error = clone.join().unwrap().unwrap_err().to_string();
    assert!(error.ends_with("git fetch: cancelled"), "{error}");
}
