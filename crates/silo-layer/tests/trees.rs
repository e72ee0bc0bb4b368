//! Changes, copying in and out of containers, copy-up and usage.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::{Tar, names, unpack_to};
use silo_layer::{
    ChangeKind, ExtractOptions, LayerError, changes, copy_up, extract, pack_tree, pack_uppers, shown_at,
    usage,
};
use tempfile::tempdir;

fn layer(tar: Tar) -> tempfile::TempDir {
    let dir = tempdir().unwrap();
    unpack_to(&tar.end(), dir.path()).unwrap();
    dir
}

#[test]
fn changes_as_docker_has_them() {
    let t = Tar::default;
    let base = layer(
        t().file("bin/sh", "").file("etc/a", "a").file("etc/b", "b").file("opt/x/y", "").file("same", ""),
    );
    let middle = layer(t().file("etc/.wh.b", ""));
    let upper = layer(
        t().file(".wh.never", "")
            .file("etc/.wh.b", "")
            .file("etc/a", "longer")
            .file("new/in/f", "")
            .file("opt/.wh.x", "")
            .file("same", "")
            .dir("bin")
            .file("bin/.wh..wh..opq", "")
            .file("bin/z", "")
            .dir("proc")
            .file("etc/hosts", ""),
    );
    let found =
        changes(upper.path(), &[middle.path().into(), base.path().into()], &["/proc", "/etc/hosts"]).unwrap();
    let found: Vec<_> = found.iter().map(|c| (c.path.as_str(), c.kind)).collect();
    use ChangeKind::{Added, Deleted, Modified};
    let expected = [
        ("/bin", Modified),
        ("/bin/sh", Deleted),
        ("/bin/z", Added),
        ("/etc", Modified),
        ("/etc/a", Modified),
        ("/new", Added),
        ("/new/in", Added),
        ("/new/in/f", Added),
        ("/opt", Modified),
        ("/opt/x", Deleted),
    ];
    assert_eq!(found, expected);
}

#[test]
fn extract_stays_inside() {
    let outer = tempdir().unwrap();
    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("work")).unwrap();
    std::fs::create_dir(outer.path().join("victim")).unwrap();
    symlink("../../victim", root.join("work/rel")).unwrap();
    symlink(outer.path().join("victim"), root.join("work/abs")).unwrap();
    symlink("/work", root.join("way")).unwrap();
    let fd = File::open(&root).unwrap();
    let put = |path: &str, tar: Tar, options: &ExtractOptions| {
        extract(fd.as_fd(), Path::new(path), &mut &tar.end()[..], options, None)
    };
    let plain = ExtractOptions::default();
    assert!(put("/work", Tar::default().file("abs/x", ""), &plain).is_err());
    assert!(put("/work", Tar::default().file("rel/x", ""), &plain).is_err());
    assert!(put("/work/abs", Tar::default().file("x", ""), &plain).is_err());
    assert!(put("/work", Tar::default().file("../x", ""), &plain).is_err());
    assert!(put("/work", Tar::default().link("x", "../../victim"), &plain).is_err());
    assert_eq!(std::fs::read_dir(outer.path().join("victim")).unwrap().count(), 0);

    let options = ExtractOptions { owner: Some((5, 6)), id_offset: 1000, ..plain.clone() };
    put("way", Tar::default().file("d/f", "1").link("g", "d/f"), &options).unwrap();
    let made = root.join("work/d/f").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.nlink()), (1005, 1006, 2));
    assert_eq!(root.join("work/d").metadata().unwrap().uid(), 1000);

    let strict = ExtractOptions { no_overwrite_dir_non_dir: true, ..plain.clone() };
    let refused = put("/work", Tar::default().file("d", ""), &strict).unwrap_err();
    assert_eq!(refused.to_string(), "cannot overwrite directory with non-directory \"d\"");
    assert!(matches!(put("/work", Tar::default().dir("g"), &strict), Err(LayerError::Overwrite { .. })));
    put("/work", Tar::default().file("g", "new"), &strict).unwrap();
    put("/work", Tar::default().file("d", "now a file"), &plain).unwrap();
    assert!(root.join("work/d").is_file());
}

#[test]
fn pack_tree_names_and_links() {
    let root = layer(Tar::default().file("a/b", "1").symlink("a/l", "/etc/passwd").symlink("s", "/a"));
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("a/sock")).unwrap();
    let fd = File::open(root.path()).unwrap();
    let pack = |path: &str, prefix: &str| {
        let mut out = Vec::new();
        pack_tree(fd.as_fd(), Path::new(path), prefix, 0, true, &mut out).map(|()| names(&out))
    };
    assert_eq!(pack("/a", "x").unwrap(), ["x/", "x/b", "x/l"]);
    assert_eq!(pack("/s/b", "").unwrap(), ["b"]);
    assert_eq!(pack("/s", "s").unwrap(), ["s"]);
    assert_eq!(pack("/s/.", "s").unwrap(), ["s/", "s/b", "s/l"]);
    assert_eq!(pack("/", "").unwrap(), ["a/", "a/b", "a/l", "s"]);
    assert!(pack("/a/l/x", "").is_err());
    assert!(pack("/../../../etc/hostname", "").is_err());
}

#[test]
fn upper_directories_travel_as_one_layer() {
    let t = Tar::default;
    let one =
        layer(t().file("a", "1").file(".wh.gone", "").dir("new").file("new/.wh..wh..opq", "").link("b", "a"));
    let other = layer(t().file("c", "3"));
    let uppers = [
        ("upper".to_owned(), one.path().to_owned()),
        ("never".to_owned(), one.path().join("not-there")),
        ("files/upper".to_owned(), other.path().to_owned()),
    ];
    let mut tar = Vec::new();
    pack_uppers(&uppers, &mut tar).unwrap();
    let to = tempdir().unwrap();
    unpack_to(&tar, to.path()).unwrap();
    let mut again = [Vec::new(), Vec::new()];
    for (tree, out) in [one.path().to_owned(), to.path().join("upper")].iter().zip(&mut again) {
        silo_layer::pack_upper(tree, 0, &[], out).unwrap();
    }
    assert_eq!(again[0], again[1]);
    assert_eq!(std::fs::read(to.path().join("files/upper/c")).unwrap(), b"3");
    assert!(!to.path().join("never").exists());
}

#[test]
fn copy_up_sees_the_merged_tree() {
    let t = Tar::default;
    let low = layer(
        t().dir("data/")
            .file("data/a", "low")
            .file("data/b", "low")
            .link("data/c", "data/b")
            .file("data/sub/x", "1"),
    );
    let high = layer(
        t().file("data/.wh.a", "")
            .file("data/new", "high")
            .dir("data/sub")
            .file("data/sub/.wh..wh..opq", "")
            .symlink("way", "/data"),
    );
    let to = tempdir().unwrap();
    let layers = [high.path().to_owned(), low.path().to_owned()];
    copy_up(&layers, "", Path::new("/way"), to.path()).unwrap();
    let mut out = Vec::new();
    silo_layer::pack_upper(to.path(), 0, &[], &mut out).unwrap();
    assert_eq!(names(&out), ["b", "c", "new", "sub/"]);
    assert_eq!(usage(to.path()).unwrap(), (3 + 4, 4));
    copy_up(&layers, "", Path::new("/data/a/none"), to.path()).unwrap();
    let shown = |at: &str, windows| {
        let found = shown_at(&layers, "", Path::new(at), windows).unwrap();
        found.map(|(path, kind)| (path.display().to_string(), kind == rustix::fs::FileType::Directory))
    };
    assert_eq!(shown("way/sub", false), Some(("data/sub".to_owned(), true)));
    assert_eq!(shown("data/NEW", true), Some(("data/new".to_owned(), false)));
    assert_eq!(
        (shown("data/NEW", false), shown("data/a", true), shown("data/b/x", true)),
        (None, None, None)
    );
}
