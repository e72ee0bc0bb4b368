//! Windows images, by the stock client: what a program sees, what becomes of it.

use silo_tests::{Daemon, NANOSERVER};

fn run(d: &Daemon, options: &[&str], command: &[&str]) -> silo_tests::Said {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(options);
    arguments.push(NANOSERVER);
    arguments.extend(command);
    d.docker(&arguments)
}

#[test]
fn the_system_is_there_at_the_first_instruction() {
    let d = Daemon::windows();
    let check = |command: &[&str], wanted: &str| {
        let said = run(&d, &["--hostname", "box"], command);
        let out = said.out.replace('\r', "");
        assert!(said.code == 0 && out.contains(wanted), "{command:?} should say {wanted:?}: {said:?}");
        assert_eq!(said.err, "", "{command:?}");
    };
    check(&["cmd", "/c", "ver"], "Microsoft Windows 10.0.20348");
    check(&["cmd", "/c", "dir c:\\"], "Program Files (x86)");
    check(&["hostname"], "BOX");
    check(&["whoami"], "ContainerAdministrator");
    check(
        &["cmd", "/c", "echo %COMPUTERNAME% %USERNAME% %USERPROFILE%"],
        "BOX ContainerAdministrator C:\\Users\\ContainerAdministrator",
    );
    check(
        &["cmd", "/c", "reg add HKLM\\Software\\X /v a /d 1 /f && reg query HKLM\\Software\\X"],
        "REG_SZ    1",
    );
    check(
        &["reg", "query", "HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion", "/v", "InstallationType"],
        "Nano Server",
    );
    check(&["sc", "query", "CExecSvc"], "RUNNING");
    check(&["sc", "query"], "DISPLAY_NAME: Container Execution Agent");
    check(&["sc", "qc", "CExecSvc"], "AUTO_START");
    check(&["systeminfo"], "10.0.20348 N/A Build 20348");
    check(&["net", "start"], "Container Execution Agent");
    check(&["tasklist"], "tasklist.exe");
    check(&["ipconfig"], "IPv4 Address. . .");
    check(&["cmd", "/c", "ping -n 1 127.0.0.1"], "Received = 1");
}

#[test]
fn environment_directory_and_command_line_follow_the_windows_rules() {
    let d = Daemon::windows();
    let out = |options: &[&str], command: &[&str]| {
        let said = run(&d, options, command);
        assert_eq!(said.code, 0, "{options:?} {command:?}: {said:?}");
        said.out.replace('\r', "")
    };
    assert_eq!(out(&["-e", "Foo=two words"], &["cmd", "/c", "echo %fOO%"]), "two words");
    assert_eq!(out(&["-w", "C:\\app\\x"], &["cmd", "/c", "cd"]), "C:\\app\\x");
    assert_eq!(
        out(&["-e", "PATH=C:\\nothing"], &["C:\\windows\\system32\\cmd.exe", "/c", "echo %Path%"]),
        "C:\\nothing"
    );
    // Nothing of the Linux side's, to the program and to its children; whoever wants such a name may have it.
    for line in ["set", "cmd /c set"] {
        let set = out(&["-e", "WINEFOO=1"], &["cmd", "/c", line]);
        let names: Vec<&str> = set.lines().filter_map(|line| line.split('=').next()).collect();
        let ours = ["WINE", "SILO_", "LD_", "HOME", "LC_"];
        let leaked: Vec<&&str> =
            names.iter().filter(|name| ours.iter().any(|our| name.starts_with(our))).collect();
        assert_eq!(leaked, [&"HOMEDRIVE", &"HOMEPATH", &"WINEFOO"], "{set}");
    }
    assert_eq!(out(&["--user", "ContainerUser"], &["cmd", "/c", "echo %USERNAME%"]), "ContainerUser");
    let said = run(&d, &["--user", "eve"], &["whoami"]);
    assert!(said.code == 125 && said.err.contains("unable to find user eve"), "{said:?}");
    // Shell form: the image's CMD is a line for cmd /S /C.
    d.ok(&["create", "--name", "aa", NANOSERVER]);
    d.ok(&["commit", "-c", "ENV FOO=bar", "-c", "CMD echo shell \"%FOO%\"", "aa", "shell:1"]);
    assert_eq!(d.ok(&["run", "--rm", "shell:1"]), "shell \"bar\"");
}

/// What the probe's `rights` says when run as `user`.
fn rights(say: impl Fn(&str) -> silo_tests::Said, user: &str) -> Vec<(String, String)> {
    let said = say(user);
    assert!(said.code == 0 && said.err.is_empty(), "{user}: {said:?}");
    let out = said.out.replace('\r', "");
    out.lines().filter_map(|line| line.rsplit_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn a_container_user_is_no_administrator() {
    const DENIED: &str = "5";
    const DONE: &str = "0";
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("windows.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let program = ["C:\\bin\\probe.exe", "rights"];
    d.ok(&["run", "-d", "-i", "--name", "aa", "-v", &bin, NANOSERVER, "cmd"]);
    let in_run = |user: &str| run(&d, &["-u", user, "-v", &bin], &program);
    let in_exec = |user: &str| d.docker(&[&["exec", "-u", user, "aa"][..], &program].concat());
    let check = |found: Vec<(String, String)>, wanted: &[(&str, &str)]| {
        for (what, wanted) in wanted {
            let value = found.iter().find(|(name, _)| name == what).map(|(_, value)| value.as_str());
            assert_eq!(value, Some(*wanted), "{what}: {found:?}");
        }
    };
    let of_user = [
        ("administrator 0", "0"),
        ("integrity", "2000"),
        ("few-privileges", "1"),
        ("machine-open", DENIED),
        ("machine-read", DONE),
        ("machine-create", DENIED),
        ("machine-set", DENIED),
        ("user-set", DONE),
        ("C:\\Windows\\System32\\mine", DENIED),
        ("C:\\Program Files\\mine", DENIED),
        ("C:\\Users\\ContainerAdministrator\\mine", DENIED),
        ("\\\\?\\unix\\prefix\\mine", DENIED),
        ("%USERPROFILE%\\mine", DONE),
        ("%TEMP%\\mine", DONE),
        ("C:\\mine", DONE),
        ("move-there", DENIED),
        ("make-folder", DENIED),
        ("replace", DENIED),
        ("delete", DENIED),
        ("end-services", DENIED),
    ];
    check(rights(in_run, "ContainerUser"), &of_user);
    check(rights(in_exec, "ContainerUser"), &of_user);
    let of_administrator = [
        ("administrator 1", "1"),
        ("integrity", "3000"),
        ("few-privileges", "0"),
        ("machine-open", DONE),
        ("machine-create", DONE),
        ("machine-set", DONE),
        ("user-set", DONE),
        ("C:\\Windows\\System32\\mine", DONE),
        ("make-folder", DONE),
        ("delete", DONE),
        ("end-services", DONE),
    ];
    check(rights(in_run, "ContainerAdministrator"), &of_administrator);
    check(rights(in_exec, "ContainerAdministrator"), &of_administrator);
    // Who it is and what it sees are otherwise as for everybody.
    let line = "whoami& echo %USERPROFILE%& ver& sc query CExecSvc";
    let said = d.ok(&["exec", "-u", "ContainerUser", "aa", "cmd", "/c", line]);
    for wanted in ["\\ContainerUser", "C:\\Users\\ContainerUser", "10.0.20348", "RUNNING"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn exit_codes_have_32_bits() {
    let d = Daemon::windows();
    assert_eq!(run(&d, &[], &["cmd", "/c", "exit 3"]).code, 3);
    let said = run(&d, &[], &["nosuch"]);
    assert!(said.code == 127 && said.err.contains("cannot find the file"), "{said:?}");
    d.docker(&["run", "--name", "aa", NANOSERVER, "cmd", "/c", "exit -1073741819"]);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.ExitCode}}", "aa"]), "3221225477");
    d.ok(&["run", "-d", "-i", "--name", "bb", NANOSERVER, "cmd"]);
    assert_eq!(d.docker(&["exec", "bb", "cmd", "/c", "exit 5"]).code, 5);
}

#[test]
fn folders_are_bound_with_the_rights_of_their_owner() {
    use std::os::unix::fs::MetadataExt;
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "from host").unwrap();
    for path in [dir.path().to_owned(), dir.path().join("a.txt")] {
        std::os::unix::fs::chown(path, Some(1234), Some(1234)).unwrap();
    }
    let source = dir.path().display().to_string();
    let said = run(
        &d,
        &["-v", &format!("{source}:C:\\data")],
        &["cmd", "/c", "type c:\\data\\a.txt& echo new> c:\\data\\b.txt"],
    );
    assert_eq!((said.code, said.out.as_str()), (0, "from host"), "{said:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("b.txt")).unwrap(), "new\r\n");
    assert_eq!(std::fs::metadata(dir.path().join("b.txt")).unwrap().uid(), 1234);
    let mount = format!("type=bind,source={source},target=C:\\data,readonly");
    let said = run(&d, &["--mount", &mount], &["cmd", "/c", "echo x> c:\\data\\c.txt"]);
    assert!(said.err.contains("Access denied") && !dir.path().join("c.txt").exists(), "{said:?}");
    let said = run(&d, &["-v", &format!("{source}:D:")], &["cmd", "/c", "dir /b d:\\"]);
    assert!(said.out.contains("a.txt"), "{said:?}");
}

#[test]
fn the_registry_survives_a_stop_and_a_daemon_restart() {
    let mut d = Daemon::windows();
    let line = "reg query HKLM\\Software\\Y || reg add HKLM\\Software\\Y /v b /d 2 /f";
    d.ok(&["create", "--name", "aa", NANOSERVER, "cmd", "/c", line]);
    assert!(d.docker(&["start", "-a", "aa"]).out.contains("completed"));
    d.stop(true);
    d.again();
    assert!(d.docker(&["start", "-a", "aa"]).out.contains("REG_SZ    2"));
}

#[test]
fn execs_stop_diff_and_commit() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "aa", "-e", "A=1", NANOSERVER, "cmd"]);
    let out = d.ok(&["exec", "-e", "B=2", "-w", "C:\\Windows", "aa", "cmd", "/c", "echo %A% %B%& cd"]);
    assert_eq!(out.replace('\r', ""), "1 2\nC:\\Windows");
    // An exec is one more program of the same system: no second boot.
    // Who asks for a service waits until the services are there; they come after the first program.
    d.ok(&["exec", "aa", "sc", "query", "CExecSvc"]);
    let tasks = d.ok(&["exec", "aa", "tasklist"]);
    let count = tasks.lines().filter(|l| l.starts_with("CExecSvc.exe")).count();
    assert_eq!(count, 1, "{tasks}");
    d.ok(&["exec", "aa", "cmd", "/c", "mkdir c:\\dir & echo x> c:\\dir\\f.txt"]);
    d.ok(&["stop", "aa"]);
    let diff = d.ok(&["diff", "aa"]);
    assert!(diff.contains(r"A C:\dir") && diff.contains(r"A C:\dir\f.txt"), "{diff}");
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("f").display().to_string();
    d.ok(&["cp", "aa:C:/dir/f.txt", &to]);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "x\r\n");
}

#[test]
fn limits_are_true_inside() {
    let d = Daemon::windows();
    let said = run(&d, &["--cpus", "1"], &["cmd", "/c", "echo %NUMBER_OF_PROCESSORS%"]);
    assert_eq!(said.out, "1");
}

#[test]
fn a_program_meets_windows_where_it_looks_for_it() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("windows.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let probe = |options: &[&str], word: &str| {
        run(&d, &[options, &["-v", &bin]].concat(), &["C:\\bin\\probe.exe", word])
    };
    // Limits.
    let memory = probe(&["--memory", "512m"], "memory").out;
    assert!(["511", "512"].contains(&memory.as_str()), "{memory} MiB");
    let line = ["run", "-d", "-i", "--name", "mm", "--memory", "512m", "-v", &bin, NANOSERVER, "cmd"];
    d.ok(&line);
    d.ok(&["update", "--memory", "256m", "--memory-swap", "512m", "mm"]);
    let memory = d.ok(&["exec", "mm", "C:\\bin\\probe.exe", "memory"]);
    assert!(["255", "256"].contains(&memory.as_str()), "{memory} MiB after the update");
    // A crash: the code of an access violation, and no debugger's report.
    let said = probe(&[], "crash");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("before", ""), "{said:?}");
    let line = ["run", "--name", "cc", "-v", &bin, NANOSERVER, "C:\\bin\\probe.exe", "crash"];
    d.docker(&line);
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.ExitCode}}", "cc"]), "3221225477");
    // A file lock with a status block, as zig takes it.
    assert_eq!(probe(&[], "lock").out, "0 0000000000000000");
}

#[test]
fn what_was_flushed_survives_a_kill_and_a_stop_comes_as_an_event() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("windows.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    let start = |name: &str, word: &str, ready: &str| {
        d.ok(&["run", "-d", "--name", name, "-v", &bin, NANOSERVER, "C:\\bin\\probe.exe", word]);
        d.await_line(&["logs", "-f", name], ready);
    };
    start("flush", "flush", "flushed");
    d.ok(&["kill", "flush"]);
    let said = d.silo(&["registry", "diff", "flush"]);
    assert!(said.out.contains("kept"), "the flushed value is not in the container's registry: {said:?}");
    // A close event, and the program's own code.
    start("events", "events", "ready");
    d.ok(&["stop", "-t", "30", "events"]);
    let log = d.ok(&["logs", "events"]);
    assert!(log.contains("event 2"), "{log}");
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.ExitCode}}", "events"]), "7");
}

/// `cargo xtask soak boots` makes more rounds of it.
#[test]
fn programs_that_come_at_once_meet_one_system() {
    let d = Daemon::windows();
    for round in 0..silo_tests::rounds(5) {
        let name = format!("at-once-{round}");
        d.ok(&["run", "-d", "-i", "--name", &name, NANOSERVER, "cmd"]);
        // The boot program has ended by then or not, the first program has started or not.
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| d.ok(&["exec", &name, "cmd", "/c", "ver"]));
            }
        });
        d.ok(&["exec", &name, "sc", "query", "CExecSvc"]);
        let tasks = d.ok(&["exec", &name, "tasklist"]);
        for program in ["services.exe", "CExecSvc.exe"] {
            assert_eq!(tasks.lines().filter(|l| l.starts_with(program)).count(), 1, "{tasks}");
        }
        d.ok(&["rm", "-f", &name]);
    }
}

#[test]
fn files_are_copied_as_windows_names_them() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "web", NANOSERVER, "cmd"]);
    let inside = |line: &str| d.ok(&["exec", "web", "cmd", "/c", line]).replace('\r', "");
    inside(r"mkdir C:\App\sub& echo one> C:\App\Log.txt& echo two> C:\App\sub\f.txt");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["out", "folder"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    std::fs::write(at("a.txt"), "new").unwrap();
    std::fs::write(at("folder/b.txt"), "deep").unwrap();
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    d.ok(&["cp", r"web:C:\app\LOG.txt", &at("out")]);
    assert_eq!(read("out/LOG.txt"), "one\r\n");
    d.ok(&["cp", r"web:c:\APP\sub", &at("out")]);
    assert_eq!(read("out/sub/f.txt"), "two\r\n");
    d.ok(&["cp", "web:C:/app/log.txt", &at("named.txt")]);
    assert_eq!(read("named.txt"), "one\r\n");
    assert_eq!(std::fs::read_dir(at("out")).unwrap().count(), 2);

    d.ok(&["cp", &at("a.txt"), r"web:C:\APP\new.txt"]);
    d.ok(&["cp", &at("a.txt"), r"web:C:\app\LOG.TXT"]);
    d.ok(&["cp", &at("a.txt"), r"web:C:\app\SUB"]);
    d.ok(&["cp", &at("folder"), r"web:C:\app\moved"]);
    d.fails(&["cp", &at("a.txt"), r"web:C:\none\x.txt"], r#"there is no directory "C:\\none""#);
    d.fails(&["cp", &at("a.txt"), r"web:C:\app\b?c"], "NTFS has no '?' in names");
    assert_eq!(inside(r"dir /b C:\App"), "Log.txt\nmoved\nnew.txt\nsub");
    let all = inside(r"type C:\App\Log.txt C:\App\new.txt C:\App\sub\a.txt C:\App\moved\b.txt");
    assert_eq!(all.split_whitespace().collect::<String>(), "newnewnewdeep");
    d.ok(&["stop", "web"]);
    d.ok(&["cp", &at("a.txt"), r"web:C:\APP\stopped.txt"]);
    d.ok(&["cp", r"web:c:\app\STOPPED.txt", &at("out")]);
    assert_eq!(read("out/STOPPED.txt"), "new");
    let diff = d.ok(&["diff", "web"]);
    assert!(diff.contains(r"A C:\App\stopped.txt") && !diff.contains("STOPPED"), "{diff}");
    d.ok(&["commit", "web", "web:1"]);
    assert_eq!(d.ok(&["run", "--rm", "web:1", "cmd", "/c", r"type C:\App\stopped.txt"]), "new");
}

#[test]
fn mounts_and_working_directories_are_one_place_in_any_spelling() {
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    let source = |name: &str| {
        std::fs::create_dir_all(dir.path().join(name).join("Sub")).unwrap();
        std::fs::write(dir.path().join(name).join(format!("{name}.txt")), name).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (outer, inner) = (source("outer"), source("inner"));
    // The client sends several -v in no order, --mount in that of the line.
    let mounted = |source: &str, target: &str| format!("type=bind,source={source},target={target}");
    let (child, parent) = (format!(r"{inner}:C:\DATA\sub"), format!(r"{outer}:C:\Data"));
    let said =
        run(&d, &["-v", &child, "-v", &parent], &["cmd", "/c", r"dir /b C:\data & dir /b C:\data\sub"]);
    assert_eq!(said.out.replace('\r', ""), "outer.txt\nSub\ninner.txt\nSub", "{said:?}");
    let (first, second) = (mounted(&outer, r"C:\Data"), mounted(&inner, r"c:\DATA"));
    let twice = run(&d, &["--mount", &first, "--mount", &second], &["cmd", "/c", "ver"]);
    assert!(twice.code == 125 && twice.err.contains(r"Duplicate mount point: c:\DATA"), "{twice:?}");

    let drive = format!("{outer}:D:");
    d.ok(&["run", "-d", "-i", "--name", "aa", "-v", &drive, "-w", r"D:\SUB", NANOSERVER, "cmd"]);
    assert_eq!(d.ok(&["exec", "aa", "cmd", "/c", "cd"]), r"D:\Sub");
    assert_eq!(d.ok(&["exec", "-w", r"d:\sub", "aa", "cmd", "/c", "cd"]), r"D:\Sub");
    assert_eq!(d.ok(&["exec", "-w", "D:", "aa", "cmd", "/c", "cd"]), r"D:\");
    d.fails(&["exec", "-w", r"E:\x", "aa", "cmd", "/c", "cd"], "nothing is mounted as drive e:");
    d.fails(&["run", "--rm", "-w", r"E:\x", NANOSERVER, "cmd", "/c", "cd"], "nothing is mounted as drive e:");
}

#[test]
fn what_windows_has_not_is_refused_by_name() {
    let d = Daemon::windows();
    let refused = |options: &[&str], words: &str| {
        let said = run(&d, options, &["cmd", "/c", "ver"]);
        assert!(said.code == 125 && said.err.contains(words), "{options:?} should say {words:?}: {said:?}");
    };
    refused(&["--ipc", "none"], "IpcMode");
    refused(&["--ipc", "shareable"], "IpcMode");
    refused(&["--cgroupns", "host"], "CgroupnsMode");
    refused(&["--security-opt", "systempaths=unconfined"], "MaskedPaths");
    assert_eq!(run(&d, &["--ipc", "private", "--cgroupns", "private"], &["cmd", "/c", "ver"]).code, 0);
}

#[test]
fn commit_changes_follow_the_windows_rules() {
    let d = Daemon::windows();
    d.ok(&["create", "--name", "aa", "-e", "Path=one", "-e", "B=2", NANOSERVER, "cmd"]);
    let changes = ["-c", r"WORKDIR \app", "-c", "WORKDIR sub/deep", "-c", "ENV PATH=two"];
    let mut commit = vec!["commit"];
    commit.extend(changes);
    commit.extend(["aa", "made:1"]);
    d.ok(&commit);
    assert_eq!(d.ok(&["inspect", "-f", "{{.Config.WorkingDir}}", "made:1"]), r"C:\app\sub\deep");
    // The client sends several -e in no order.
    let environment = d.ok(&["inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", "made:1"]);
    let mut environment: Vec<&str> = environment.split_whitespace().collect();
    environment.sort_unstable();
    assert_eq!(environment, ["B=2", "PATH=two"]);
}

#[test]
fn a_container_goes_on_while_the_daemon_is_away() {
    let mut d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "aa", NANOSERVER, "cmd"]);
    let pid = d.ok(&["inspect", "-f", "{{.State.Pid}}", "aa"]);
    d.stop(true);
    d.again();
    assert_eq!(d.ok(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "aa"]), format!("{pid} true"));
    assert_eq!(d.ok(&["exec", "aa", "cmd", "/c", "echo in"]), "in");
    silo_tests::say_to(&d, "aa", "echo h^i\r\n", "hi");
    d.ok(&["exec", "aa", "reg", "add", r"HKLM\Software\Away", "/v", "V", "/d", "1", "/f"]);
    d.ok(&["stop", "aa"]);
    assert!(d.ok(&["diff", "aa"]).contains("SOFTWARE"));
}

#[test]
fn standard_streams_are_binary_clean() {
    use std::io::Write;
    let d = Daemon::windows();
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("copy.c", dir.path());
    let bind = format!(r"{}:C:\probe:ro", dir.path().display());
    let mut child = d
        .command(&["run", "--rm", "-i", "-v", &bind, NANOSERVER, r"C:\probe\probe.exe"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..2_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let came = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let differs = came.stdout.iter().zip(&bytes).position(|(a, b)| a != b);
    assert_eq!((came.stdout.len(), differs, came.status.code()), (bytes.len(), None, Some(0)));
}

#[test]
fn a_script_is_found_by_its_name_alone() {
    let d = Daemon::windows();
    d.ok(&["run", "-d", "-i", "--name", "aa", NANOSERVER, "cmd"]);
    d.ok(&["exec", "aa", "cmd", "/c", r"echo @echo found %1> C:\Windows\tool.cmd"]);
    assert_eq!(d.ok(&["exec", "aa", "tool", "it"]), "found it");
    assert_eq!(d.ok(&["exec", "aa", "cmd", "/c", "tool it"]), "found it");
}
