//! Volumes by the stock client: the local driver and its options, what fills them, who shares them, and what is left.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use silo_tests::{Daemon, NANOSERVER};

const IMAGE: &str = "localhost/busybox";
/// Runs until it is stopped.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";
const WINDOWS_IDLE: &str = "ping -n 1000 127.0.0.1 >nul";

/// Where a volume is on the host.
fn place(d: &Daemon, name: &str) -> PathBuf {
    d.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", name]).into()
}

/// The file systems that are mounted at a place.
fn mounted(at: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = mounts.lines().filter(|line| line.split(' ').nth(4) == at.to_str());
    here.filter_map(|line| line.split(" - ").nth(1)?.split(' ').next().map(str::to_owned)).collect()
}

/// Runs a line of the shell in a container that goes.
fn run(d: &Daemon, options: &[&str], line: &str) -> String {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(options);
    arguments.extend([IMAGE, "sh", "-c", line]);
    d.ok(&arguments)
}

/// The same, of Windows.
fn run_windows(d: &Daemon, options: &[&str], line: &str) -> String {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(options);
    arguments.extend([NANOSERVER, "cmd", "/c", line]);
    d.ok(&arguments).replace('\r', "")
}

/// Builds an image of these lines over another.
fn build(d: &Daemon, name: &str, dockerfile: &str) {
    let mut command = d.command(&["build", "-q", "-t", name, "-"]);
    let mut client =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
    assert!(client.wait().unwrap().success(), "{}", d.log());
}

#[test]
fn the_local_driver_speaks_as_dockerds() {
    let d = Daemon::start();
    let refused = |options: &[&str], words: &str| {
        let mut arguments = vec!["volume", "create"];
        arguments.extend(options);
        d.fails(&arguments, words);
    };
    refused(
        &["a"],
        "create a: volume name is too short, names should be at least two alphanumeric characters",
    );
    refused(
        &["a b"],
        "create a b: \"a b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
    );
    refused(&["-o", "color=red", "vv"], "create vv: invalid option: \"color\"");
    refused(&["-o", "type=tmpfs", "vv"], "create vv: missing required option: \"device\"");
    refused(&["-o", "o=bind", "-o", "device=/x", "vv"], "create vv: missing required option: \"type\"");
    refused(&["-o", "size=10m", "vv"], "create vv: quota size requested but no quota support");
    refused(
        &["-d", "glue", "vv"],
        "create vv: error looking up volume plugin glue: plugin \"glue\" not found",
    );
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "");

    d.ok(&["volume", "create", "--label", "for=test", "--label", "empty", "plain"]);
    d.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]);
    let anonymous = d.ok(&["volume", "create"]);
    let shown = |format: &str, name: &str| d.ok(&["volume", "inspect", "-f", format, name]);
    assert_eq!(shown("{{.Driver}} {{.Scope}} {{json .Options}}", "plain"), "local local null");
    assert_eq!(shown("{{json .Labels}}", "plain"), r#"{"empty":"","for":"test"}"#);
    assert_eq!(shown("{{json .Options}}", "memory"), r#"{"device":"tmpfs","o":"size=1m","type":"tmpfs"}"#);
    assert_eq!(shown("{{json .Labels}}", &anonymous), r#"{"com.docker.volume.anonymous":""}"#);
    let created = shown("{{.CreatedAt}}", "plain");
    assert!(created.len() == "2026-11-30T00:00:00Z".len() && created.ends_with('Z'), "{created}");
    // The name is taken: it stays what it was.
    assert_eq!(d.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "plain"]), "plain");
    assert_eq!(shown("{{json .Options}}", "plain"), "null");
    refused(&["-d", "glue", "plain"], "error looking up volume plugin glue: plugin \"glue\" not found");
    let (status, said) = d.request("PUT /v1.50/volumes/plain?version=1");
    assert!(status == 503 && said.contains("only valid for cluster volumes"), "{status} {said}");

    d.ok(&["create", "--name", "user", "-v", "plain:/data", IMAGE, "true"]);
    let listed = |filter: &str| {
        let list = d.ok(&["volume", "ls", "-q", "-f", filter]);
        let names: Vec<&str> = list.lines().map(|n| if n == anonymous { "(none)" } else { n }).collect();
        names.join(" ")
    };
    for (filter, wanted) in [
        ("name=mem", "memory"),
        ("name=^(plain|mem.*y)$", "memory plain"),
        ("label=for", "plain"),
        ("label=for=test", "plain"),
        ("label=for=else", ""),
        ("label=com.docker.volume.anonymous", "(none)"),
        ("dangling=false", "plain"),
        ("driver=glue", ""),
    ] {
        assert_eq!(listed(filter), wanted, "{filter}");
    }
    assert_eq!(listed("dangling=1").split(' ').count(), 2);
    d.fails(&["volume", "ls", "-f", "dangling=perhaps"], "invalid filter 'dangling=[perhaps]'");
    d.fails(&["volume", "ls", "-f", "size=1"], "invalid filter 'size'");

    let id = d.ok(&["inspect", "-f", "{{.Id}}", "user"]);
    let in_use = format!("remove plain: volume is in use - [{id}]");
    d.fails(&["volume", "rm", "plain"], &in_use);
    d.fails(&["volume", "rm", "-f", "plain"], &in_use);
    d.fails(&["volume", "rm", "none"], "get none: no such volume");
    d.ok(&["volume", "rm", "-f", "none"]);
    std::fs::write(place(&d, &anonymous).join("f"), vec![1; 200_000]).unwrap();
    let usage =
        d.ok(&["system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}};{{end}}"]);
    assert!(usage.contains(&format!("{anonymous} 0 2")) && usage.contains("plain 1 0B"), "{usage}");
    assert!(!usage.contains("memory"), "{usage}");
    assert!(d.ok(&["volume", "prune", "-f", "--filter", "label=none"]).contains("reclaimed space: 0B"));
    let pruned = d.ok(&["volume", "prune", "-f"]);
    assert!(pruned.contains(&anonymous) && pruned.contains("reclaimed space: 20"), "{pruned}");
    d.ok(&["rm", "user"]);
    d.ok(&["volume", "create", "--label", "keep", "kept"]);
    d.ok(&["volume", "prune", "-f", "-a", "--filter", "label!=keep"]);
    // What is mounted from elsewhere is not pruned.
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "kept\nmemory");
    assert_eq!(d.ok(&["volume", "rm", "memory", "kept"]), "memory\nkept");
    assert_eq!(std::fs::read_dir(d.path("root/volumes")).unwrap().count(), 0);
}

#[test]
fn a_mount_is_made_for_the_first_user_and_goes_with_the_last() {
    let mut d = Daemon::start();
    let device = d.path("device");
    std::fs::create_dir(&device).unwrap();
    std::fs::write(device.join("f"), "of the host").unwrap();
    let option = format!("device={}", device.display());
    d.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &option, "bound"]);
    d.ok(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,uid=1000",
        "memory",
    ]);
    let (bound, memory) = (place(&d, "bound"), place(&d, "memory"));
    let volumes = ["-v", "bound:/bound", "-v", "memory:/memory:nocopy"];
    let start = |d: &Daemon, name: &str, more: &[&str]| {
        let mut arguments = vec!["run", "-d", "--name", name];
        arguments.extend(volumes.iter().chain(more));
        arguments.extend([IMAGE, "sh", "-c", IDLE]);
        d.ok(&arguments);
    };
    start(&d, "one", &[]);
    assert_eq!((mounted(&memory), mounted(&bound).len()), (vec!["tmpfs".to_owned()], 1));
    assert_eq!(d.ok(&["exec", "one", "cat", "/bound/f"]), "of the host");
    d.ok(&["exec", "one", "sh", "-c", "echo 1 > /memory/f; echo 2 > /bound/g"]);
    assert_eq!(std::fs::read_to_string(device.join("g")).unwrap(), "2\n");
    let memory_of = "stat -c %u /memory; stat -f -c %b /memory; cat /memory/f";
    start(&d, "two", &[]);
    assert_eq!(d.ok(&["exec", "two", "sh", "-c", memory_of]), "1000\n256\n1");
    d.fails(
        &["exec", "two", "sh", "-c", "dd if=/dev/zero of=/memory/g bs=1k count=2000"],
        "No space left on device",
    );
    d.ok(&["stop", "one"]);
    // A daemon that is killed has made no mount less, nor is one left when the last user goes.
    d.stop(true);
    d.again();
    assert_eq!((mounted(&memory).len(), mounted(&bound).len()), (1, 1));
    d.ok(&["start", "one"]);
    assert_eq!(d.ok(&["exec", "one", "cat", "/memory/f"]), "1");
    d.ok(&["stop", "two"]);
    assert_eq!(mounted(&memory).len(), 1);
    d.ok(&["stop", "one"]);
    assert_eq!((mounted(&memory).len(), mounted(&bound).len()), (0, 0));
    // Of nobody's: the files of a container that rests are looked at.
    let copied = d.path("copied");
    d.ok(&["cp", "one:/bound/g", &copied.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), "2\n");
    // A machine that was booted for them ends after the answer.
    let end = Instant::now() + Duration::from_secs(30);
    while !mounted(&bound).is_empty() {
        assert!(Instant::now() < end, "{}", d.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Both end while nobody looks: swept at the next start.
    d.ok(&["start", "one"]);
    let pid = d.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]);
    d.stop(true);
    assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    // Its end is the shim's to see, and the daemon's to hear.
    d.again();
    d.await_state("one", "{{.State.Status}}", "exited");
    assert_eq!((mounted(&memory).len(), mounted(&bound).len()), (0, 0));
    d.ok(&["rm", "one", "two"]);
    d.ok(&["volume", "rm", "bound", "memory"]);
    assert_eq!(std::fs::read_to_string(device.join("f")).unwrap(), "of the host");

    d.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/none/here", "absent"]);
    let words = format!(
        "error while mounting volume '{0}': failed to mount local volume: mount /none/here:{0}, flags: 0x1000: no such file or directory",
        place(&d, "absent").display()
    );
    d.fails(&["run", "--rm", "-v", "absent:/x", IMAGE, "true"], &words);
    d.ok(&["volume", "create", "-o", "type=nfs", "-o", "o=addr=127.0.0.1,rw", "-o", "device=:/x", "far"]);
    d.fails(&["create", "-v", "far:/tmp", IMAGE, "true"], "failed to mount local volume: mount :/x:");
    // What has nothing to be filled with is not mounted before it must be.
    d.ok(&["create", "--name", "later", "-v", "far:/x", IMAGE, "true"]);
    d.fails(&["start", "later"], "failed to mount local volume: mount :/x:");
    d.ok(&["rm", "later"]);
    assert_eq!(d.ok(&["ps", "-aq"]), "");
}

#[test]
fn an_image_fills_what_is_empty() {
    let d = Daemon::start();
    build(
        &d,
        "filled",
        "FROM localhost/busybox\nRUN mkdir -p /data/sub && echo 1 > /data/f && ln /data/f /data/sub/g && chown 1000:1000 /data \
         && chmod 1711 /data && chown 7 /data/f\nVOLUME /own\n",
    );
    let owned = |at: &Path| {
        let meta = std::fs::metadata(at).unwrap();
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
    };
    d.ok(&["create", "--name", "holder", "-v", "v1:/data", "filled", "true"]);
    let v1 = place(&d, "v1");
    assert_eq!((owned(&v1), owned(&v1.join("f")).0), ((1000, 1000, 0o1711), 7));
    assert_eq!(std::fs::metadata(v1.join("sub/g")).unwrap().nlink(), 2);
    // A holder of volumes need never run.
    assert_eq!(run(&d, &["--volumes-from", "holder"], "cat /data/f; test -d /own && echo own"), "1\nown");
    std::fs::remove_file(v1.join("f")).unwrap();
    assert_eq!(d.ok(&["run", "--rm", "-v", "v1:/data", "filled", "ls", "/data"]), "sub");
    d.ok(&["create", "-v", "v2:/data:nocopy", "filled", "true"]);
    d.ok(&["create", "--mount", "type=volume,src=v3,dst=/data,volume-nocopy", "filled", "true"]);
    for empty in ["v2", "v3"] {
        assert_eq!(std::fs::read_dir(place(&d, empty)).unwrap().count(), 0);
        assert_eq!(owned(&place(&d, empty)), (0, 0, 0o755));
    }
    d.fails(
        &["create", "-v", "v4:/data/f", "filled", "true"],
        "cannot mount volume over existing file, file exists /data/f",
    );
    let all = d.ok(&["volume", "ls", "-q"]).lines().count();
    // One of the image's, one without a name, and one by `--mount`: with their container, if asked.
    let more = ["-v", "/x", "--mount", "type=volume,dst=/y", "-v", "v2:/z", "filled", "true"];
    let with = |first: &[&str]| d.ok(&[first, &more].concat());
    with(&["run", "--rm"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), all);
    with(&["create", "--name", "kept"]);
    d.ok(&["create", "--name", "heir", "--volumes-from", "kept", IMAGE, "true"]);
    d.ok(&["rm", "-v", "kept"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), all + 3);
    d.ok(&["rm", "-v", "heir"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), all);
    with(&["create", "--name", "left"]);
    d.ok(&["rm", "left"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]).lines().count(), all + 3);
}

#[test]
fn mounts_are_taken_in_all_their_spellings() {
    let d = Daemon::start();
    d.ok(&["volume", "create", "vol"]);
    let vol = place(&d, "vol");
    std::fs::create_dir_all(vol.join("sub/deep")).unwrap();
    std::fs::write(vol.join("sub/deep/f"), "1").unwrap();
    std::os::unix::fs::symlink("/etc", vol.join("out")).unwrap();
    std::os::unix::fs::symlink("sub/deep", vol.join("in")).unwrap();
    d.ok(&["create", "--name", "one", "-v", "vol:/data", "-v", "/anonymous", IMAGE, "true"]);
    d.ok(&["create", "--name", "two", "-v", "other:/data:ro,Z", "-v", "vol:/vol", IMAGE, "true"]);
    let shown = "{{range .Mounts}}{{.Destination}} {{.Mode}} {{.RW}} [{{.Propagation}}];{{end}}";
    let mounts = |name: &str| {
        let said = d.ok(&["inspect", "-f", shown, name]);
        let mut list: Vec<&str> = said.split_terminator(';').collect();
        list.sort_unstable();
        list.join(";")
    };
    assert_eq!(mounts("one"), "/anonymous  true [];/data z true []");
    assert_eq!(mounts("two"), "/data ro,Z false [];/vol z true []");
    // The later one's, for reading only as far as either says so, and what the container mounts itself before all.
    d.ok(&["create", "--name", "three", "--volumes-from", "one:ro", "--volumes-from", "two", IMAGE, "true"]);
    assert_eq!(mounts("three"), "/anonymous  false [];/data  false [];/vol  true []");
    let own = ["create", "--name", "four", "--volumes-from", "two", "-v", "vol:/data", IMAGE, "true"];
    d.ok(&own);
    assert_eq!(mounts("four"), "/data z true [];/vol  true []");
    d.fails(&["create", "--volumes-from", "one:rslave", IMAGE, "true"], "invalid mode: rslave");
    d.fails(
        &["create", "--pull", "never", "--volumes-from", "none", IMAGE, "true"],
        "No such container: none",
    );
    d.fails(&["create", "-v", "vol:/a", "-v", "other:/a/", IMAGE, "true"], "Duplicate mount point: /a");
    let refused = run(&d, &["-v", "vol:/data:ro,nocopy,z"], "cat /data/in/f; touch /data/x 2>&1 || true");
    assert!(refused.starts_with('1') && refused.contains("Read-only file system"), "{refused}");

    let at = |subpath: &str| format!("type=volume,src=vol,dst=/data,volume-subpath={subpath}");
    assert_eq!(run(&d, &["--mount", &at("sub/deep")], "ls /data"), "f");
    assert_eq!(
        run(&d, &["--mount", &format!("{},readonly", at("in"))], "ls /data; ! touch /data/x 2> /dev/null"),
        "f"
    );
    let missing =
        format!("cannot access path {0}/none: lstat {0}/none: no such file or directory", vol.display());
    d.fails(&["run", "--rm", "--mount", &at("none"), IMAGE, "true"], &missing);
    d.fails(
        &["run", "--rm", "--mount", &at("out"), IMAGE, "true"],
        "path concatenation escapes the base directory",
    );
    let line = "type=volume,src=made,dst=/m,volume-label=a=b,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    assert_eq!(run(&d, &["--mount", line], "grep -c ' /m ' /proc/mounts"), "1");
    let made = d.ok(&["volume", "inspect", "-f", "{{json .Labels}} {{json .Options}}", "made"]);
    assert_eq!(made, r#"{"a":"b"} {"device":"tmpfs","type":"tmpfs"}"#);
    assert!(mounted(&place(&d, "made")).is_empty());
}

#[test]
fn windows_containers_have_volumes_and_share_them() {
    let d = Daemon::windows();
    d.import_busybox();
    d.ok(&["volume", "create", "vol"]);
    let vol = place(&d, "vol");
    std::fs::create_dir_all(vol.join("Sub/deep")).unwrap();
    std::fs::write(vol.join("Sub/deep/f.txt"), "1").unwrap();
    // Both at once, by a folder's name and as a drive.
    d.ok(&["run", "-d", "--name", "linux", "-v", "vol:/data", IMAGE, "sh", "-c", IDLE]);
    let drive = ["-v", r"vol:C:\Data", "-v", "vol:D:"];
    d.ok(
        &[&["run", "-d", "--name", "windows"], &drive[..], &[NANOSERVER, "cmd", "/c", WINDOWS_IDLE]].concat()
    );
    let linux = |line: &str| d.ok(&["exec", "linux", "sh", "-c", line]).replace('\r', "");
    let windows = |line: &str| d.ok(&["exec", "windows", "cmd", "/c", line]).replace('\r', "");
    linux("echo from linux > /data/l; mkdir /data/dir");
    assert_eq!(
        windows(r"type c:\DATA\L & echo from windows>d:\dir\w& type C:\data\dir\W"),
        "from linux\nfrom windows"
    );
    assert_eq!(linux("cat /data/dir/w; echo more >> /data/dir/w; stat -c %u /data/dir/w"), "from windows\n0");
    assert_eq!(windows(r"type D:\dir\w & echo more>>c:\data\l& del c:\data\dir\w"), "from windows\nmore");
    assert_eq!(linux("cat /data/l; ls /data/dir"), "from linux\nmore");
    d.ok(&["rm", "-f", "linux", "windows"]);

    let two = ["create", "-v", r"vol:C:\data", "-v", r"vol:c:/DATA/", NANOSERVER, "cmd"];
    // The client sends both in any order.
    d.fails(&two, "Duplicate mount point: ");
    let subpath = r"type=volume,src=vol,dst=C:\inner,volume-subpath=SUB\deep";
    assert_eq!(
        run_windows(&d, &["--mount", subpath], r"type c:\inner\F.TXT & echo two>C:\INNER\g& dir /b c:\inner"),
        "1f.txt\ng"
    );
    assert!(vol.join("Sub/deep/g").exists());
    let read_only = format!("{subpath},readonly");
    assert_eq!(
        run_windows(
            &d,
            &["--mount", &read_only, "-v", "vol:E::ro"],
            r"(echo three>c:\inner\h || echo three>e:\h) 2>nul || (echo no& exit 0)"
        ),
        "no"
    );
    std::os::unix::fs::symlink("/etc", vol.join("out")).unwrap();
    for (subpath, words) in
        [("none", "cannot access path"), ("out", "path concatenation escapes the base directory")]
    {
        let mount = format!(r"type=volume,src=vol,dst=C:\x,volume-subpath={subpath}");
        d.fails(&["run", "--rm", "--mount", &mount, NANOSERVER, "cmd", "/c", "ver"], words);
    }

    build(
        &d,
        "windows-filled",
        "# escape=`\nFROM silo/nanoserver:ltsc2022\nRUN mkdir C:\\Filled & echo one>C:\\Filled\\f\nVOLUME c:\\filled\n",
    );
    let said = d.ok(&[
        "run",
        "--name",
        "filled",
        "windows-filled",
        "cmd",
        "/c",
        r"type C:\filled\F & echo two>c:\filled\g",
    ]);
    assert_eq!(said, "one");
    let own = d.ok(&["inspect", "-f", "{{range .Mounts}}{{.Name}}{{end}}", "filled"]);
    assert!(place(&d, &own).join("f").exists() && place(&d, &own).join("g").exists());
    let line = r"type c:\FILLED\g & (echo three>c:\filled\h) 2>nul || (echo no& exit 0)";
    let said = run_windows(&d, &["--volumes-from", "filled:ro"], line);
    assert!(said.starts_with("two\n") && said.ends_with("no"), "{said}");
    d.ok(&["rm", "-v", "filled"]);
    assert_eq!(d.ok(&["volume", "ls", "-q"]), "vol");
    // Memory, made and gone with its users; its owner is who the programs are.
    d.ok(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=uid=1000,gid=1000",
        "memory",
    ]);
    assert_eq!(run_windows(&d, &["-v", r"memory:C:\m"], r"echo one>c:\m\f& type C:\M\F"), "one");
    assert!(mounted(&place(&d, "memory")).is_empty());
}
