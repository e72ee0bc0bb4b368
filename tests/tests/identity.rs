//! Which machine a Windows container is: whose SID it shows, where, and how long.

use std::process::Command;

use silo_tests::{Daemon, NANOSERVER, isolation};

/// A daemon, and the probe as an option of `docker run`.
fn prepared() -> (Daemon, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    silo_tests::probe("identity.c", dir.path());
    let bin = format!("{}:C:\\bin:ro", dir.path().display());
    (Daemon::windows(), dir, bin)
}

const PROBE: &str = r"C:\bin\probe.exe";

/// The machine's SID that all places of a probe's output agree on.
fn agreed(said: &str) -> String {
    let said = said.replace('\r', "");
    let lines: Vec<(&str, &str)> = said.lines().filter_map(|line| line.split_once('=')).collect();
    let of = |place: &str| lines.iter().find(|(name, _)| *name == place).map(|(_, sid)| *sid);
    let machine = of("sam").unwrap_or_else(|| panic!("{said}")).to_owned();
    let numbers = machine.strip_prefix("S-1-5-21-").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(numbers.split('-').filter(|number| number.parse::<u32>().is_ok()).count(), 3, "{said}");
    assert_ne!(numbers, "0-0-0");
    let mut wanted = vec![
        ("lsa", ""),
        ("modals", ""),
        ("computer", ""),
        ("Administrator", "-500"),
        ("guest", "-501"),
        ("DefaultAccount", "-503"),
        ("WDAGUtilityAccount", "-504"),
        ("None", "-513"),
        ("qualified", "-500"),
        ("sddl", "-500"),
        ("own-user", "-1000"),
        ("own-group", "-513"),
        ("own-dacl", "-513"),
        ("hive", "-1000"),
        ("services.exe-user", "-1000"),
    ];
    for (name, _) in &lines {
        // Every process, whatever there is.
        match name.rsplit_once('-') {
            Some((_, "user")) => wanted.push((name, "-1000")),
            Some((_, "group" | "dacl")) => wanted.push((name, "-513")),
            _ => {}
        }
    }
    for (place, account) in wanted {
        assert_eq!(of(place), Some(&*format!("{machine}{account}")), "{place}:\n{said}");
    }
    assert_eq!(lines.iter().filter(|(name, _)| *name == "hive").count(), 1, "{said}");
    // No such domain (ERROR_NONE_MAPPED).
    assert_eq!(of("elsewhere"), Some("error 1332"), "{said}");
    machine
}

#[test]
fn every_place_shows_one_machine_to_every_account() {
    let (d, _dir, bin) = prepared();
    d.ok(&["run", "-d", "-i", "--name", "aa", "-v", &bin, NANOSERVER, "cmd"]);
    let machine = agreed(&d.ok(&["exec", "aa", PROBE]));
    assert_eq!(agreed(&d.ok(&["exec", "-u", "ContainerUser", "aa", PROBE])), machine);
    let said = d.ok(&["exec", "aa", "whoami", "/user"]);
    assert!(said.trim_end().ends_with(&format!("ContainerAdministrator {machine}-1000")), "{said}");
    // It did not come by the environment.
    let variables = d.ok(&["exec", "aa", "cmd", "/c", "set"]);
    assert!(!variables.contains("SILO") && !variables.contains(&machine), "{variables}");
    // The first program of a container, at its first instruction.
    agreed(&d.ok(&["run", "--rm", "-u", "ContainerUser", "-v", &bin, NANOSERVER, PROBE]));
}

#[test]
fn a_machine_is_the_engines_or_the_containers_own() {
    let (mut d, _dir, bin) = prepared();
    let own = isolation() == "hyperv";
    let start = |d: &Daemon, name: &str, image: &str| {
        d.ok(&["run", "-d", "-i", "--name", name, "-v", &bin, image, "cmd"]);
        agreed(&d.ok(&["exec", name, PROBE]))
    };
    let one = start(&d, "one", NANOSERVER);
    let other = start(&d, "other", NANOSERVER);
    assert_eq!(one != other, own, "{one} {other}");
    // What a program writes there is as lasting as on Windows: until the next start.
    let key = r"HKLM\SAM\SAM\Domains\Account";
    d.ok(&["exec", "other", "reg", "add", key, "/v", "V", "/t", "REG_BINARY", "/d", "00", "/f"]);
    for name in ["one", "other"] {
        d.ok(&["stop", "-t", "5", name]);
    }
    d.stop(false);
    d.again();
    for (name, was) in [("one", &one), ("other", &other)] {
        d.ok(&["start", name]);
        assert_eq!(&agreed(&d.ok(&["exec", name, PROBE])), was, "{name} after a stop");
    }
    d.ok(&["restart", "-t", "5", "one"]);
    assert_eq!(agreed(&d.ok(&["exec", "one", PROBE])), one);

    // It is no part of an image, whether or not it was given a registry of its own.
    d.ok(&["exec", "one", "reg", "add", r"HKLM\SAM\SAM\Mine", "/v", "v", "/d", "x", "/f"]);
    d.ok(&["commit", "one", "committed"]);
    let third = start(&d, "third", "committed");
    assert_eq!((third != one, third != other), (own, own), "{third} {one} {other}");
    assert!(d.ok(&["exec", "third", "reg", "query", r"HKLM\SAM\SAM\Mine"]).contains('x'));
    // Nor is a container that did nothing another one by it.
    assert_eq!(d.ok(&["diff", "third"]), "");
    d.ok(&["rm", "-f", "one", "other"]);
    let again = start(&d, "one", NANOSERVER);
    assert_eq!(again != one, own, "{again} {one}");
}

/// What a guest that was started beforehand needs, when it becomes a container.
#[test]
fn a_running_guest_becomes_another_machine() {
    if !silo_tests::only_under("process", "from outside a program is started in a host's process only") {
        return;
    }
    let (d, _dir, bin) = prepared();
    d.ok(&["run", "-d", "-i", "--name", "aa", "-v", &bin, NANOSERVER, "cmd"]);
    let was = agreed(&d.ok(&["exec", "aa", PROBE]));
    let pid = d.ok(&["inspect", "-f", "{{.State.Pid}}", "aa"]);
    let init = |arguments: &[&str]| {
        let namespaces = ["-t", &pid, "-m", "-p", "-U", "-i", "-u", "-n", "-r", "-w", "/silo-init"];
        Command::new("nsenter").args(namespaces).args(arguments).output().unwrap()
    };
    for (i, sid) in ["S-1-5-21-4294967295-0-7", "S-1-5-21-1-2-3", &was].into_iter().enumerate() {
        let said = init(&["identity", sid]);
        assert!(said.status.success(), "{said:?}");
        assert_eq!(agreed(&d.ok(&["exec", "aa", PROBE])), sid, "change {i}");
    }
    let said = init(&["identity", "S-1-5-21-1-2"]);
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("S-1-5-21-1-2"),
        "{said:?}"
    );
    // The user's registry is still the user's.
    d.ok(&["exec", "aa", "reg", "add", r"HKCU\Software\Mine", "/v", "v", "/d", "x", "/f"]);
    assert!(d.ok(&["exec", "aa", "reg", "query", &format!(r"HKU\{was}-1000\Software\Mine")]).contains('x'));
    d.ok(&["restart", "-t", "5", "aa"]);
    assert_eq!(agreed(&d.ok(&["exec", "aa", PROBE])), was);
    assert!(d.ok(&["exec", "aa", "reg", "query", r"HKCU\Software\Mine"]).contains('x'));
}
