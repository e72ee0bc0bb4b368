//! `silo base`: Windows bases built, listed, shown, removed; and what makes `servercore` another one than `nanoserver`.

use std::process::Command;

use silo_tests::http::{Reply, Server};
use silo_tests::images::{MANIFEST, Packed, digest, image, tar};
use silo_tests::{Daemon, NANOSERVER, SERVERCORE};

#[test]
fn bases_are_listed_shown_and_removed() {
    let d = Daemon::windows();
    let say = |arguments: &[&str]| {
        let said = d.silo(&[&["base"], arguments].concat());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}: {said:?}");
        said.out
    };
    // An image of another kind is none.
    d.ok(&["tag", NANOSERVER, "other/image:1"]);
    let id = d.ok(&["inspect", "-f", "{{.Id}}", NANOSERVER]);
    let list = say(&["ls"]);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["BASE", "ID", "SIZE"]);
    assert_eq!(rows[1][..2], [NANOSERVER, &id["sha256:".len()..][..12]], "{list}");
    assert_eq!(rows.len(), 2, "{list}");
    for json in [say(&["ls", "--json"]), say(&["inspect", "nanoserver"])] {
        assert!(json.contains(&id) && json.contains(NANOSERVER), "{json}");
    }
    assert!(say(&["inspect", "nanoserver"]).contains("10.0.20348."));
    let fails = |arguments: &[&str], words: &str| {
        let said = d.silo(&[&["base"], arguments].concat());
        assert!(said.code != 0 && said.err.contains(words), "{arguments:?} should say {words:?}: {said:?}");
    };
    fails(&["inspect", "servercore"], "No such image");
    fails(&["rm", "windows"], "there are nanoserver and servercore");
    let empty = tempfile::tempdir().unwrap();
    let directory = empty.path().display().to_string();
    fails(&["build", "nanoserver", "--packages", &directory], "no .deb files in this directory");
    d.ok(&["rmi", "other/image:1"]);
    assert_eq!(say(&["rm", "nanoserver"]), "");
    assert_eq!(say(&["ls"]).lines().count(), 1);
    fails(&["rm", "nanoserver"], "No such image");
}

/// From the directory form, which must work, by the command and by a daemon whose image needs the base; `cargo xtask soak bases`
/// makes more of them.
#[test]
fn the_same_packages_make_the_same_base() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let packages = dir.path().join("packages").display().to_string();
    let base_tar = tar(&[("Files/x", b"never fetched")]);
    let d = Daemon::with(|own| {
        let list = own.join("digests").display().to_string();
        std::fs::write(&list, format!("{} nanoserver\n", digest(&base_tar))).unwrap();
        ["--base-packages", &packages, "--base-digests", &list].map(str::to_owned).to_vec()
    });
    let done = |arguments: &[&str]| {
        let said = d.silo(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    };
    done(&["base", "fetch", "nanoserver", &packages]);
    let mut digests = Vec::new();
    for round in 0..silo_tests::rounds(1) {
        let archive = dir.path().join(format!("{round}.tar"));
        done(&["base", "build", "nanoserver", "--packages", &packages, "-o", &archive.display().to_string()]);
        let output = Command::new("sha256sum").arg(&archive).output().unwrap();
        digests.push(String::from_utf8_lossy(&output.stdout)[..64].to_owned());
        if round == 0 {
            d.ok(&["load", "-q", "-i", &archive.display().to_string()]);
        }
        std::fs::remove_file(&archive).unwrap();
    }
    let by_command = d.ok(&["inspect", "-f", "{{.Id}}", NANOSERVER]);
    d.ok(&["rmi", NANOSERVER]);
    let made = image("windows/amd64", &[(base_tar, Packed::Gzip)]);
    let (manifest, config) = (made.manifest, made.blobs[0].clone());
    let server = Server::start(move |_, request| match request.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        "/v2/x/manifests/1" => Reply::new(200, manifest.clone()).with("content-type", MANIFEST),
        path if path.ends_with(&digest(&config)) => Reply::new(200, config.clone()),
        _ => Reply::new(404, "{}"),
    });
    let name = format!("{}/x:1", server.host());
    // Minutes of building: longer than other commands may take.
    let output = Command::new("docker").args(["pull", &name]).env("DOCKER_HOST", d.host()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("Building the local base"), "{said}{}", d.log());
    assert!(said.contains("setting up the registry"), "{said}");
    assert_eq!(d.ok(&["inspect", "-f", "{{.Id}}", NANOSERVER]), by_command);
    println!("{digests:?}");
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let said = d.docker(&["run", "--rm", &name, "cmd", "/c", "ver"]);
    assert!(said.out.contains("10.0.20348"), "{said:?}");
}

#[test]
fn servercore_runs_32_bit_programs() {
    let Some(d) = Daemon::servercore() else { return };
    let check = |user: &str, line: &str, wanted: &str| {
        let shell = "C:\\Windows\\SysWOW64\\cmd.exe";
        let said = d.docker(&["run", "--rm", "-u", user, SERVERCORE, shell, "/c", line]);
        assert!(said.code == 0 && said.out.contains(wanted), "{line} should say {wanted:?}: {said:?}");
        assert!(!said.out.lines().any(|line| line.starts_with("WINE")), "{said:?}");
    };
    let processor = "echo %PROCESSOR_ARCHITECTURE% %PROCESSOR_ARCHITEW6432%& set";
    check("ContainerAdministrator", processor, "x86 AMD64");
    check("ContainerUser", processor, "x86 AMD64");
    check("ContainerUser", "C:\\Windows\\SysWOW64\\whoami.exe", "\\ContainerUser");
    // The owner's name (its column is narrow): the 32-bit library knows this machine's SID.
    check("ContainerUser", "cd %USERPROFILE%& echo x>own& dir /q own", "\\ContainerU");
}
