//! Layers that came from no registry: the archive comes back byte for byte, damage is found, what was not on disk goes.

use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use silo_image::layer as silo_layer;
use silo_image::{HistoryEntry, ImageStore, LayerFiles, NextState, Reference};
use tar::{Builder, EntryType, Header};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that do not compress.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o640);
    header.set_uid(1000);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

fn put(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, content: &[u8]) {
    tar.append_data(&mut header(kind, content.len()), name, content).unwrap();
}

fn link(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
    tar.append_link(&mut header(kind, 0), name, target).unwrap();
}

/// What archives in the wild have, and some that none should have.
fn odd() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let (file, dir) = (EntryType::Regular, EntryType::Directory);
    put(&mut tar, dir, "a/", b"");
    put(&mut tar, file, "a/twice", &noise(70_000, 1));
    put(&mut tar, file, "a/twice", &noise(5, 2));
    put(&mut tar, file, "a/twice", &noise(513, 3));
    link(&mut tar, EntryType::Link, "a/hard", "a/twice");
    put(&mut tar, file, "a/twice", &noise(512, 4));
    link(&mut tar, EntryType::Symlink, "through", "a");
    put(&mut tar, file, "through/it", &noise(1000, 5));
    put(&mut tar, dir, "tree/deep", b"");
    put(&mut tar, file, "tree/deep/x", &noise(3000, 7));
    link(&mut tar, EntryType::Link, "outlives", "tree/deep/x");
    // A file where a directory was, then a directory again, with the same names.
    put(&mut tar, file, "tree", &noise(10, 8));
    put(&mut tar, dir, "tree", b"");
    put(&mut tar, dir, "tree/deep", b"");
    put(&mut tar, file, "tree/deep/x", &noise(4000, 9));
    link(&mut tar, EntryType::Symlink, "through", "tree");
    put(&mut tar, file, "through/y", &noise(20, 10));
    put(&mut tar, file, &format!("{}end", "long/".repeat(40)), &noise(600, 11));
    put(&mut tar, file, "a/.wh.twice", b"");
    put(&mut tar, file, "a/.wh.below", b"");
    put(&mut tar, file, "tree/.wh..wh..opq", b"");
    put(&mut tar, file, "empty", b"");
    let pax = [
        ("SCHILY.xattr.user.name", &b"value\0\n"[..]),
        ("GNU.sparse.major", b"1"),
        ("mtime", b"1700000000.123456789"),
    ];
    tar.append_pax_extensions(pax).unwrap();
    put(&mut tar, file, "pax", &noise(700, 12));
    // Padding that is not zero, and bytes behind the end marks.
    let mut bytes = tar.into_inner().unwrap();
    let padding = bytes.len() - 1024 - 10;
    bytes[padding] = 7;
    bytes.extend_from_slice(&noise(100_001, 13));
    bytes
}

fn windows(content: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    put(&mut tar, EntryType::Directory, "Files", b"");
    for (name, bytes) in content {
        put(&mut tar, EntryType::Regular, name, bytes);
    }
    tar.into_inner().unwrap()
}

/// A docker-archive of one image; its layers, `packed` as they are in the archive, come first.
fn archive(os: &str, layers: &[Vec<u8>], packed: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut names = Vec::new();
    for (i, layer) in packed.iter().enumerate() {
        names.push(format!("{i}/layer.tar"));
        put(&mut tar, EntryType::Regular, &names[i], layer);
    }
    let diffs: Vec<String> = layers.iter().map(|l| format!("sha256:{}", hex(l))).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": os,
        "rootfs": {"type": "layers", "diff_ids": diffs}});
    put(&mut tar, EntryType::Regular, "config.json", config.to_string().as_bytes());
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["odd:1"], "Layers": names}]);
    put(&mut tar, EntryType::Regular, "manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap()
}

fn one_odd() -> Vec<u8> {
    archive("linux", &[odd()], &[odd()])
}

fn load(store: &ImageStore, archive: Vec<u8>) {
    store.load(Box::new(Cursor::new(archive)), None, &|_| Ok(None), &mut |_| {}).unwrap();
}

fn save(store: &ImageStore) -> Result<Vec<u8>, String> {
    let mut saved = Vec::new();
    store.save(&["odd:1".to_owned()], &mut saved).map_err(|e| e.to_string())?;
    Ok(saved)
}

fn member(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{name} is not in the archive")
}

fn comes_back(os: &str, layers: &[Vec<u8>], packed: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    load(&store, archive(os, layers, packed));
    let saved = save(&store).unwrap();
    for layer in layers {
        assert!(member(&saved, &format!("blobs/sha256/{}", hex(layer))) == *layer, "{os}: another layer");
    }
    assert_eq!(store.check().faults, [""; 0]);
    // Into the store that has all of it, and after a new start.
    load(&store, saved.clone());
    drop(store);
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    assert!(save(&store).unwrap() == saved, "{os}: another archive after a new start");
    store.remove("odd:1", false, false, &|_| Vec::new()).unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("snapshots")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let other = tempfile::tempdir().unwrap();
    let store = ImageStore::open(other.path(), |_| {}).unwrap();
    load(&store, saved.clone());
    assert!(save(&store).unwrap() == saved, "{os}: another archive from another store");
}

#[test]
fn odd_archives_come_back_byte_for_byte() {
    let layers = [odd(), odd(), odd()[512..].to_vec()];
    comes_back("linux", &layers, &layers);
    let pack = |layer: &Vec<u8>| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(layer).unwrap();
        packed.finish().unwrap()
    };
    comes_back("linux", &layers, &layers.each_ref().map(pack));
    let lower = windows(&[("Files/a.txt", &noise(100_000, 4)), ("Files/dir/B", &noise(40, 5))]);
    let upper = windows(&[
        ("files/A.TXT", &noise(90_000, 1)),
        ("files/A.TXT:stream", &noise(5000, 2)),
        ("Files/Dir/b", &noise(50, 3)),
    ]);
    let layers = [lower, upper];
    comes_back("windows", &layers, &layers);
}

/// A file of the only layer.
fn unpacked(root: &Path, name: &str) -> PathBuf {
    let entries = std::fs::read_dir(root.join("snapshots")).unwrap().flatten();
    entries.map(|e| e.path().join(name)).find(|p| p.exists()).unwrap()
}

#[test]
fn damage_to_an_unpacked_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    load(&store, one_odd());
    let path = unpacked(dir.path(), "a/it");
    let whole = std::fs::read(&path).unwrap();
    let mut other = whole.clone();
    other[500] ^= 1;
    for damage in [&other[..], &whole[..999], b""] {
        std::fs::write(&path, damage).unwrap();
        assert_eq!(store.check().faults.len(), 1, "{:?}", store.check());
        assert!(save(&store).is_err());
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(store.check().faults, [""; 0]);
    std::fs::remove_file(&path).unwrap();
    assert!(store.check().faults[0].contains("a/it"), "{:?}", store.check());
}

/// Marks all that says that something is there, as if the machine had stopped at once.
fn mark(root: &Path) {
    for dir in [root.to_owned(), root.join("images"), root.join("snapshots")] {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(".json") {
                let marked = entry.path().with_file_name(format!("{name}.unsynced-another-boot"));
                std::fs::rename(entry.path(), marked).unwrap();
            }
        }
    }
}

/// Takes their content from files of `dir`.
fn empty(dir: &Path, ending: &str) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let plain = name.split(".unsynced-").next().unwrap();
        if plain.ends_with(ending) && !plain.contains(".extra.") {
            std::fs::write(entry.path(), b"").unwrap();
        }
    }
}

#[test]
fn after_a_power_cut_an_image_is_whole_or_gone() {
    type Damage = fn(&Path);
    let states: [(&str, Damage); 5] = [
        ("whole", |_| ()),
        ("a file without its content", |root| drop(std::fs::File::create(unpacked(root, "a/it")).unwrap())),
        ("a record without its content", |root| empty(&root.join("snapshots"), ".json")),
        ("an archive's record without its content", |root| empty(&root.join("snapshots"), ".split")),
        ("a config without its content", |root| empty(&root.join("images"), ".json")),
    ];
    for (what, damage) in states {
        let whole = what == "whole";
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path(), |_| {}).unwrap();
        load(&store, one_odd());
        // Another start of this boot takes the marks away.
        drop(store);
        drop(ImageStore::open(dir.path(), |_| {}).unwrap());
        mark(dir.path());
        damage(dir.path());
        let store = ImageStore::open(dir.path(), |_| {}).unwrap();
        assert_eq!(store.list().len(), usize::from(whole), "{what}");
        assert_eq!(store.check().faults, [""; 0], "{what}");
        assert_eq!(store.get("odd:1").is_ok(), whole, "{what}");
        let left = std::fs::read_dir(dir.path().join("snapshots")).unwrap().count();
        assert_eq!(left > 0, whole, "{what}: {left} files are left");
        load(&store, one_odd());
        assert!(save(&store).is_ok(), "{what}");
    }
}

/// An image `odd:1` of one layer that a build has made of a directory.
fn built(root: &Path, store: &ImageStore) {
    let tree = root.join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::write(tree.join("a/it"), noise(70_000, 3)).unwrap();
    std::fs::write(tree.join("empty"), b"").unwrap();
    std::fs::hard_link(tree.join("a/it"), tree.join("a/b/same")).unwrap();
    std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
    std::fs::write(tree.join("long".repeat(50)), noise(513, 4)).unwrap();
    let state = store.empty_state("linux", "amd64", "").unwrap();
    let write = |to: &mut dyn Write| {
        silo_layer::pack_upper(&tree, 0, &[], to).map_err(|e| std::io::Error::other(e.to_string()))
    };
    let layer = store.build_layer("linux", &[], LayerFiles::Taken(&tree), write).unwrap().unwrap();
    let entry = HistoryEntry { created: state.config.created, ..Default::default() };
    let next = NextState { config: Default::default(), entry, layer: Some(layer.diff.clone()), author: None };
    let state = store.next_state(&state, next).unwrap();
    store.enter_state(&state, None, &[Reference::parse("odd:1").unwrap()]).unwrap();
    assert!(!tree.exists());
}

#[test]
fn a_layer_of_a_build_is_its_directory_and_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    built(dir.path(), &store);
    assert_eq!(store.check().faults, [""; 0]);
    let blobs = std::fs::read_dir(dir.path().join("content/sha256")).unwrap().count();
    assert_eq!(blobs, 0, "an archive is kept beside the files");
    let saved = save(&store).unwrap();
    // Another start of this boot, then a power cut: all was on disk.
    drop(store);
    drop(ImageStore::open(dir.path(), |_| {}).unwrap());
    mark(dir.path());
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    assert!(save(&store).unwrap() == saved, "another archive");
    drop(store);
    mark(dir.path());
    std::fs::write(unpacked(dir.path(), "a/it"), noise(70_000, 5)).unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    assert_eq!((store.list().len(), store.check().faults), (0, Vec::new()));
}

#[test]
fn a_build_that_changed_nothing_keeps_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let none =
        store.build_layer("linux", &[], LayerFiles::Taken(&tree), |to| to.write_all(&[0; 1024])).unwrap();
    assert!(none.is_none() && tree.is_dir());
    let failed =
        store.build_layer("linux", &[], LayerFiles::Taken(&tree), |_| Err(std::io::Error::other("no")));
    assert!(failed.unwrap_err().to_string().contains("no") && tree.is_dir());
    assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn names_of_an_image_that_cannot_be_read_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    load(&store, one_odd());
    drop(store);
    drop(ImageStore::open(dir.path(), |_| {}).unwrap());
    let mut records = std::fs::read_dir(dir.path().join("snapshots")).unwrap().flatten().map(|e| e.path());
    let record = records.find(|p| p.extension().is_some_and(|x| x == "json")).unwrap();
    let text = std::fs::read(&record).unwrap();
    // Unreadable, not absent.
    std::fs::write(&record, b"{").unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    assert!(store.get("odd:1").is_err());
    let other = archive("linux", &[windows(&[])], &[windows(&[])]);
    load(&store, other);
    store.remove("odd:1", false, false, &|_| Vec::new()).unwrap();
    drop(store);
    std::fs::write(&record, text).unwrap();
    let store = ImageStore::open(dir.path(), |_| {}).unwrap();
    assert!(store.get("odd:1").is_ok(), "its name is gone");
}
