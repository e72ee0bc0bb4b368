//! Layers unpacked and packed again; archives that mean harm.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use common::{Tar, names, packed, unpack_to};
use silo_layer::{LayerError, Limits, unpack};
use tar::EntryType;
use tempfile::tempdir;

#[test]
fn round_trip_is_byte_for_byte() {
    let long = format!("etc/{}", "ä".repeat(100));
    let tar = Tar::default()
        .dir("dev/")
        .add(EntryType::Char, "dev/null", "", b"")
        .add(EntryType::Fifo, "dev/pipe", "", b"")
        .dir("etc/")
        .file("etc/.wh..wh..opq", "")
        .file("etc/.wh.gone", "")
        .pax("SCHILY.xattr.user.note", b"two\nlines\0")
        .file("etc/a", "hello")
        .link("etc/b", "etc/a")
        .symlink("etc/c", "/etc/a")
        .pax("path", long.as_bytes())
        .file("x", "long")
        .end();
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    let sum = unpack_to(&tar, one.path()).unwrap();
    assert_eq!((sum.bytes, sum.entries), (9, 10));
    let at = |p: &str| one.path().join(p);
    let gone = at("etc/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr::get(at("etc"), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    assert_eq!(xattr::get(at("etc/a"), "user.note").unwrap().unwrap(), b"two\nlines\0");
    assert_eq!(at("etc/a").metadata().unwrap().ino(), at("etc/b").metadata().unwrap().ino());
    assert_eq!(at("dev/null").metadata().unwrap().rdev(), rustix::fs::makedev(1, 3));
    assert!(at("dev/pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(at("etc").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(at("dev/null").metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(std::fs::read_to_string(at(&long)).unwrap(), "long");

    let first = packed(one.path());
    unpack_to(&first, two.path()).unwrap();
    assert_eq!(first, packed(two.path()));
    let mut expected: Vec<_> = names(&tar);
    expected.sort_by_key(|n| n.replace(".wh.gone", "gone").replace(".wh..wh..opq", ""));
    assert_eq!(names(&first), expected);
}

#[test]
fn owners_modes_and_offset() {
    let dir = tempdir().unwrap();
    let tar =
        Tar::default().pax("uid", b"3000000").file("big", "").pax("mtime", b"1.5").file("half", "").end();
    unpack_to(&tar, dir.path()).unwrap();
    assert_eq!(dir.path().join("big").metadata().unwrap().uid(), 3_000_000);
    let half = dir.path().join("half").metadata().unwrap();
    assert_eq!((half.mtime(), half.mtime_nsec()), (1, 500_000_000));
    let mut out = Vec::new();
    silo_layer::pack_upper(dir.path(), 100_000, &[], &mut out).unwrap();
    let mut archive = tar::Archive::new(&out[..]);
    let uids: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().header().uid().unwrap()).collect();
    assert_eq!(uids, [2_900_000, 0]);
}

#[test]
fn a_set_group_id_directory_does_not_give_its_group() {
    let dir = tempdir().unwrap();
    unpack_to(&Tar::default().pax("gid", b"50").dir("var").end(), dir.path()).unwrap();
    std::fs::set_permissions(dir.path().join("var"), std::os::unix::fs::PermissionsExt::from_mode(0o2775))
        .unwrap();
    unpack_to(&Tar::default().file("var/f", "").end(), dir.path()).unwrap();
    assert_eq!(dir.path().join("var/f").metadata().unwrap().gid(), 0);
}

#[test]
fn many_small_files() {
    let mut tar = Tar::default();
    for i in 0..40_000 {
        tar = tar.file(&format!("d{}/f{i}", i / 200), "some bytes of content");
    }
    let (dir, tar) = (tempdir().unwrap(), tar.end());
    let start = std::time::Instant::now();
    unpack_to(&tar, dir.path()).unwrap();
    let middle = std::time::Instant::now();
    packed(dir.path());
    eprintln!("unpacked in {:?}, packed in {:?}", middle - start, middle.elapsed());
}

#[test]
fn a_directory_made_anew_hides_the_old() {
    let dir = tempdir().unwrap();
    unpack_to(&Tar::default().file(".wh.d", "").dir("d/").dir("e/").file(".wh.e", "").end(), dir.path())
        .unwrap();
    for name in ["d", "e"] {
        assert_eq!(xattr::get(dir.path().join(name), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    }
}

#[test]
fn links_as_parents_are_resolved_inside() {
    let dir = tempdir().unwrap();
    let tar =
        Tar::default().dir("usr/lib/").symlink("lib", "/usr/lib").file("lib/x", "1").file("/abs", "2").end();
    unpack_to(&tar, dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("usr/lib/x")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(dir.path().join("abs")).unwrap(), "2");
}

#[test]
fn a_later_entry_replaces_an_earlier() {
    let dir = tempdir().unwrap();
    let tar =
        Tar::default().dir("a/").file("a/b", "").file("a", "file").symlink("l", "a").file("l", "own").end();
    unpack_to(&tar, dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "file");
    assert_eq!(std::fs::read_to_string(dir.path().join("l")).unwrap(), "own");
}

#[test]
fn hostile_archives_are_refused_by_name() {
    let outer = tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "s").unwrap();
    let outside = outer.path().join("secret").to_string_lossy().into_owned();
    let t = Tar::default;
    let cases: Vec<(&str, Tar)> = vec![
        ("../up", t().file("../up", "")),
        ("a/../../up", t().dir("a").file("a/../../up", "")),
        ("/../up", t().file("/../up", "")),
        ("hard", t().link("hard", "../secret")),
        ("hard", t().link("hard", &outside)),
        ("hard", t().symlink("l", "..").link("hard", "l/secret")),
        ("hard", t().dir("d").link("hard", "d")),
        ("l/x", t().symlink("l", outer.path().to_str().unwrap()).file("l/x", "")),
        ("f/x", t().file("f", "").file("f/x", "")),
        ("l/x", t().symlink("l", "l").file("l/x", "")),
        ("d/.wh...", t().file("d/.wh...", "")),
        ("d/.wh..", t().file("d/.wh..", "")),
        ("d/.wh.", t().file("d/.wh.", "")),
        ("./", t().file("./", "").symlink("./", "x")),
        ("odd", t().add(EntryType::new(b'Q'), "odd", "", b"")),
        ("a\0b", t().pax("path", b"a\0b").file("x", "")),
    ];
    for (i, (name, tar)) in cases.into_iter().enumerate() {
        let to = outer.path().join(format!("to{i}"));
        std::fs::create_dir(&to).unwrap();
        match unpack_to(&tar.end(), &to) {
            Err(LayerError::Hostile { entry, .. }) => assert_eq!(entry, name),
            other => panic!("{name}: {other:?}"),
        }
        std::fs::remove_dir_all(&to).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"]);
}

#[test]
fn overlayfs_is_not_spoken_to_directly() {
    let dir = tempdir().unwrap();
    unpack_to(
        &Tar::default().pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc").dir("d").end(),
        dir.path(),
    )
    .unwrap();
    assert_eq!(xattr::get(dir.path().join("d"), "trusted.overlay.redirect").unwrap(), None);
}

#[test]
fn limits_and_damage() {
    let tar = Tar::default().file("a", "12345").file("b", "12345").end();
    for limits in [Limits { bytes: 9, entries: 9 }, Limits { bytes: 99, entries: 1 }] {
        let dir = tempdir().unwrap();
        let error = unpack(&mut &tar[..], dir.path(), &limits).unwrap_err();
        assert!(matches!(&error, LayerError::Limit { entry, .. } if entry == "b"), "{error}");
    }
    let dir = tempdir().unwrap();
    assert!(matches!(
        unpack_to(&tar[..600], dir.path()),
        Err(LayerError::Io { .. } | LayerError::Archive { .. })
    ));
    assert!(matches!(unpack_to(&[b'x'; 512], dir.path()), Err(LayerError::Archive { .. })));
    let huge = Tar::default().pax("comment", &vec![b'x'; 2 << 20]).file("a", "").end();
    assert!(matches!(unpack_to(&huge, dir.path()), Err(LayerError::Archive { .. })));
}
