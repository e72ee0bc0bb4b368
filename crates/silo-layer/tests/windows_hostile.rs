//! Windows layers that mean harm, and layers of random entries: nothing outside, no two spellings, one way back.

mod common;

use std::collections::HashSet;
use std::path::Path;

use common::windows::{Entry, archive};
use common::{Tar, names};
use proptest::prelude::*;
use silo_layer::{LayerError, Limits, OwnFiles, fuzz_windows, unpack_windows};
use tar::EntryType;
use tempfile::tempdir;

fn refused(tar: Vec<u8>, name: &str, why: &str) {
    let outer = tempdir().unwrap();
    let (base, to) = (outer.path().join("base"), outer.path().join("to"));
    for dir in [&base, &to] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::create_dir_all(base.join("Files/dir")).unwrap();
    std::fs::write(base.join("Files/file"), "").unwrap();
    std::fs::write(outer.path().join("secret"), "").unwrap();
    std::os::unix::fs::symlink("..", base.join("Files/up")).unwrap();
    match unpack_windows(
        &mut &tar[..],
        &to,
        std::slice::from_ref(&base),
        &["Host"],
        &OwnFiles::default(),
        &Limits::default(),
    ) {
        Err(LayerError::Hostile { entry, why: found }) => {
            assert_eq!(entry, name);
            assert!(found.contains(why), "{name}: {found}");
        }
        other => panic!("{name}: {other:?}"),
    }
    let mut left: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["base", "secret", "to"]);
    assert_eq!(std::fs::read_dir(base.join("Files")).unwrap().count(), 3);
}

#[test]
fn each_is_refused_by_name() {
    let e = |entries: &[Entry]| archive(entries);
    let file = |name: &str| Entry::file(name, b"");
    let t = Tar::default;
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("../up", "leads out", e(&[file("../up")])),
        ("Files/../../up", "leads out", e(&[file("Files/../../up")])),
        ("/Files/x", "absolute", e(&[file("/Files/x")])),
        (r"Files/..\..\up", "no '\\\\'", e(&[file(r"Files/..\..\up")])),
        ("Files/a?b", "no '?'", e(&[file("Files/a?b")])),
        ("Files/a\u{1}/x", "no '\\u{1}'", e(&[file("Files/a\u{1}/x")])),
        ("Files/a\0b", "zero byte", t().pax("path", b"Files/a\0b").file("x", "").end()),
        ("Files/\u{fffd}", "not UTF-8", t().pax("path", b"Files/\xff").file("x", "").end()),
        ("etc/passwd", "no \"etc\"", e(&[file("etc/passwd")])),
        ("Aside/x", "no \"Aside\"", e(&[file("Aside/x")])),
        ("Files", "must be a directory", e(&[file("Files")])),
        ("Files", "must be a directory", e(&[Entry::link("Files", "x")])),
        ("Files/A", "as \"a\"", e(&[file("Files/a"), file("Files/A")])),
        ("Files/É", "as \"é\"", e(&[Entry::dir("Files/é"), Entry::dir("Files/É")])),
        ("Files/a", "this name already", e(&[Entry::dir("Files/a"), file("Files/a")])),
        ("Files/A/b", "not a directory", e(&[file("Files/a"), file("Files/A/b")])),
        ("Files/FILE/x", "not a directory in the layers", e(&[file("Files/FILE/x")])),
        ("Files/up/x", "not a directory in the layers", e(&[file("Files/up/x")])),
        ("Files/l/x", "not a directory", e(&[Entry::link("Files/l", r"dir"), file("Files/l/x")])),
        ("Files/d/l", "leads out", e(&[Entry::link("Files/d/l", r"..\..\..\etc\passwd")])),
        ("Files/l", "leads out", e(&[Entry::link("Files/l", r"C:\..\x")])),
        ("Files/l", "no '?'", e(&[Entry::link("Files/l", "a?b")])),
        ("Files/l", "to nothing", e(&[Entry::link("Files/l", "")])),
        ("UtilityVM/l", "outside Files", e(&[Entry::link("UtilityVM/l", "x")])),
        ("Hives/l", "files only", e(&[Entry::link("Hives/l", "x")])),
        ("Hives/d/x", "files only", e(&[file("Hives/d/x")])),
        ("Files/h", "leads out", e(&[Entry::hard("Files/h", "../secret")])),
        ("Files/h", "absolute", e(&[Entry::hard("Files/h", "/etc/passwd")])),
        ("Files/h", "not in the layers", e(&[Entry::hard("Files/h", "Files/none")])),
        ("Files/h", "not in the layers", e(&[Entry::hard("Files/h", "Files/up/secret")])),
        ("Files/h", "a directory", e(&[Entry::dir("Files/d"), Entry::hard("Files/h", "Files/D")])),
        ("Files/h", "not in the layers", e(&[Entry::hard("Files/h", "Files/dir")])),
        ("Files/h", "itself", e(&[Entry::hard("Files/h", "Files/H")])),
        (
            "Files/h",
            "no drive or another",
            e(&[file("UtilityVM/Files/x"), Entry::hard("Files/h", "UtilityVM/Files/x")]),
        ),
        ("Hives/h", "on no drive", e(&[file("Hives/x"), Entry::hard("Hives/h", "Hives/x")])),
        ("Files/f:s", "of no file", e(&[file("Files/f:s")])),
        ("Files/g:s", "follow its file", e(&[file("Files/f"), file("Files/g:s")])),
        ("Files/f:", "without a name", e(&[file("Files/f"), file("Files/f:")])),
        ("Files/f::$DATA", "without a name", e(&[file("Files/f"), file("Files/f::$DATA")])),
        ("Files/f:a:b", "no ':'", e(&[file("Files/f"), file("Files/f:a:b")])),
        (
            "Files/f:S",
            "this stream already",
            e(&[file("Files/f"), file("Files/f:s:$data"), file("Files/f:S")]),
        ),
        ("Files/f:s", "must be a file", e(&[file("Files/f"), Entry::dir("Files/f:s")])),
        ("Hives/.wh.x", "outside Files", e(&[Entry::gone("Hives/.wh.x")])),
        (".wh.Files", "no \".wh.Files\"", e(&[Entry::gone(".wh.Files")])),
        ("Files/.wh.", "no name", e(&[Entry::gone("Files/.wh.")])),
        ("Files/.wh..", "no name", e(&[Entry::gone("Files/.wh..")])),
        ("Files/.wh.a?", "no '?'", e(&[Entry::gone("Files/.wh.a?")])),
        ("Files/dev", "no such type", t().add(EntryType::Char, "Files/dev", "", b"").end()),
        ("Files/f", "fileattr is malformed", e(&[file("Files/f").with("MSWINDOWS.fileattr", "-1")])),
        ("Files/f", "rawsd is malformed", e(&[file("Files/f").with("MSWINDOWS.rawsd", "a")])),
        ("Files/f", "creationtime is malformed", e(&[file("Files/f").with("LIBARCHIVE.creationtime", "x")])),
        (
            "Files/f",
            "larger than NTFS",
            e(&[file("Files/f").with("MSWINDOWS.xattr.X", &"AAAA".repeat(100_000))]),
        ),
        ("Host/h", "out of Host", e(&[file("Files/x"), Entry::hard("Host/h", "Files/x")])),
        ("Host/l/x", "leads", e(&[Entry::link("Host/l", "/../../secret"), file("Host/l/x")])),
    ];
    for (name, why, tar) in cases {
        refused(tar, name, why);
    }
}

#[test]
fn a_base_deletes_nothing() {
    let dir = tempdir().unwrap();
    let tar = archive(&[Entry::dir("Files"), Entry::gone("Files/.wh.x")]);
    let error = unpack_windows(&mut &tar[..], dir.path(), &[], &[], &OwnFiles::default(), &Limits::default())
        .unwrap_err();
    assert!(error.to_string().contains("Files/.wh.x") && error.to_string().contains("base layer"), "{error}");
}

#[test]
fn a_million_links_and_bombs_are_refused() {
    let mut entries = vec![Entry::dir("Files"), Entry::file("Files/f", b"")];
    entries.extend((0..2000).map(|i| Entry::hard(&format!("Files/l{i}"), "Files/f")));
    refused(archive(&entries), "Files/l1023", "1024 names");

    let mut streams = vec![Entry::file("Files/f", b"")];
    streams.extend((0..5000).map(|i| Entry::stream(&format!("Files/f:{i}"), b"")));
    refused(archive(&streams), "Files/f:2531", "more streams");

    let check = |tar: Vec<u8>, limits: Limits, entry: &str| {
        let dir = tempdir().unwrap();
        let error =
            unpack_windows(&mut &tar[..], dir.path(), &[], &[], &OwnFiles::default(), &limits).unwrap_err();
        assert!(matches!(&error, LayerError::Limit { entry: e, .. } if e == entry), "{error}");
    };
    let one = [Entry::file("Files/f", b""), Entry::stream("Files/f:s", &[0; 5000])];
    check(archive(&one), Limits { bytes: 4999, entries: 9 }, "Files/f:s");
    check(archive(&one), Limits { bytes: 9999, entries: 1 }, "Files/f:s");

    let dir = tempdir().unwrap();
    let giant = Tar::default().pax("MSWINDOWS.rawsd", &vec![b'A'; 2 << 20]).file("Files/f", "").end();
    let error =
        unpack_windows(&mut &giant[..], dir.path(), &[], &[], &OwnFiles::default(), &Limits::default())
            .unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn attributes_that_a_container_forged_are_errors() {
    let forge = |name: &str, value: &[u8]| {
        let dir = tempdir().unwrap();
        std::fs::create_dir(dir.path().join("Files")).unwrap();
        std::fs::write(dir.path().join("Files/f"), "").unwrap();
        xattr::set(dir.path().join("Files/f"), name, value).unwrap();
        silo_layer::pack_windows_tree(dir.path(), &[], &[], &mut std::io::sink())
    };
    for (name, value) in [
        ("user.silo.win.records", &b"=rubbish"[..]),
        ("user.silo.win.records", b"#../../../etc/passwd"),
        ("user.silo.win.records", b"#0000000000000000000000000000000000000000000000000000000000000000"),
        ("user.silo.win.streams", b"=20 stream=nothing\n"),
        ("user.silo.win.streams", b"=18 stream=a:b/=x\n"),
        ("user.silo.win.type", b"=9"),
    ] {
        let error = forge(name, value).unwrap_err().to_string();
        assert!(error.contains("Files/f"), "{name}: {error}");
    }
    // A name of another file is a name that was, before the file was renamed.
    forge("user.silo.win.name", b"=other").unwrap();
}

/// No directory of the tree has a name in two spellings.
fn one_spelling(dir: &Path) {
    let mut seen = HashSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(seen.insert(name.to_uppercase()), "{}", entry.path().display());
        if entry.file_type().unwrap().is_dir() {
            one_spelling(&entry.path());
        }
    }
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[aAbBé]{1,2}",
        1 => Just("É".to_owned()),
        1 => "[aB.? ]{1,3}",
        1 => Just("..".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    let root =
        prop_oneof![6 => Just("Files"), 1 => Just("UtilityVM/Files"), 1 => Just("Hives"), 1 => Just("Host")];
    (root, prop::collection::vec(part(), 1..4))
        .prop_map(|(root, parts)| format!("{root}/{}", parts.join("/")))
}

fn entry() -> impl Strategy<Value = Vec<Entry>> {
    let content = prop::collection::vec(any::<u8>(), 0..2000);
    let attributes = prop::sample::select(vec!["0", "1", "32", "39", "16", "2048", "1040", "4294967295"]);
    let target = prop_oneof![
        name().prop_map(|n| format!(r"C:\{}", n.replace('/', r"\"))),
        part(),
        Just(r"..\a".to_owned()),
        Just(r"\??\Volume{1}\".to_owned()),
    ];
    prop_oneof![
        4 => name().prop_map(|n| vec![Entry::dir(&n)]),
        4 => (name(), content.clone(), attributes).prop_map(|(n, c, a)| {
            vec![Entry::file(&n, &c).with("MSWINDOWS.fileattr", a)]
        }),
        2 => (name(), "[a-z=/:]{1,3}", content).prop_map(|(n, s, c)| {
            vec![Entry::file(&n, b"f"), Entry::stream(&format!("{n}:{s}"), &c)]
        }),
        2 => (name(), target).prop_map(|(n, t)| vec![Entry::dir_link(&n, &t)]),
        1 => (name(), name()).prop_map(|(n, t)| vec![Entry::hard(&n, &t)]),
        2 => (name(), part()).prop_map(|(n, p)| vec![Entry::gone(&format!("{n}/.wh.{p}"))]),
        1 => name().prop_map(|n| vec![Entry::gone(&format!("{n}/.wh..wh..opq"))]),
    ]
}

/// A base with names to meet.
fn below(scratch: &Path) -> std::path::PathBuf {
    let base = scratch.join("base");
    for dir in ["Files/a/A", "Files/B", "UtilityVM/Files/a"] {
        std::fs::create_dir_all(base.join(dir)).unwrap();
    }
    for file in ["Files/a/b", "Files/AB", "Files/B/é"] {
        std::fs::write(base.join(file), file).unwrap();
    }
    base
}

/// Applies what is good of the entries, each tried after those before it, and checks the laws.
fn check(entries: Vec<Vec<Entry>>) {
    let mut good: Vec<Entry> = Vec::new();
    for some in entries {
        let scratch = tempdir().unwrap();
        let base = below(scratch.path());
        let tried = [good.clone(), some].concat();
        if let Ok(packed) = fuzz_windows(&archive(&tried), Some(&base), scratch.path()) {
            let windows = ["Files", "UtilityVM", "Hives"].map(|root| scratch.path().join("one").join(root));
            windows.iter().filter(|dir| dir.is_dir()).for_each(|dir| one_spelling(dir));
            let mut all = names(&packed);
            all.sort();
            all.dedup();
            assert_eq!(all.len(), names(&packed).len());
            good = tried;
        }
        let mut left: Vec<_> =
            std::fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["base", "one", "two"]);
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_is_packed() {
    check(vec![vec![Entry::gone("Files/B/.wh.É")], vec![Entry::dir("Files/B/É")]]);
    check(vec![vec![Entry::dir("Files/AB"), Entry::file("Files/AB/c", b"c")]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_come_back(entries in prop::collection::vec(entry(), 1..12)) {
        check(entries);
    }

    #[test]
    fn damaged_layers_do_no_harm(
        entries in prop::collection::vec(entry(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = archive(&entries.concat());
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        mend(&mut bytes);
        let scratch = tempdir().unwrap();
        let base = below(scratch.path());
        let _ = fuzz_windows(&bytes, Some(&base), scratch.path());
        prop_assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 3);
    }
}

/// Makes checksums right again, so that the damage is looked at.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|x| u32::from(*x)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}
