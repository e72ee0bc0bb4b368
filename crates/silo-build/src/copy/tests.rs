//! Copies of small trees: what is where afterwards, with which owner, mode, time and links; and what is refused.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Gid, Uid};

use super::upper::timestamps;
use super::*;

/// A context, layers below, and a top for each copy.
struct Yard {
    dir: tempfile::TempDir,
    request: Request,
    tops: usize,
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn give(path: &Path, mode: u32, owner: (u32, u32), time: i64) {
    fs::chownat(
        fs::CWD,
        path,
        Some(Uid::from_raw(owner.0)),
        Some(Gid::from_raw(owner.1)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    if !path.is_symlink() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::utimensat(fs::CWD, path, &timestamps((time, 0)), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All below a directory, one a line: type and mode, owner, name, and content or target.
fn listing(root: &Path) -> Vec<String> {
    fn below(root: &Path, at: &Path, to: &mut Vec<String>) {
        let mut names: Vec<PathBuf> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        for path in names {
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let what = match () {
                () if meta.is_dir() => "/".to_owned(),
                () if meta.is_symlink() => format!(" -> {}", std::fs::read_link(&path).unwrap().display()),
                () if meta.is_file() => format!(" {}", std::fs::read_to_string(&path).unwrap()),
                () => " special".to_owned(),
            };
            to.push(format!("{:o} {}:{} {name}{what}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
            if meta.is_dir() {
                below(root, &path, to);
            }
        }
    }
    let mut all = Vec::new();
    below(root, root, &mut all);
    all
}

impl Yard {
    /// A context with `a.txt`, `b.md`, `.hidden`, `dir/{one,sub/two,link}`, a layer with `/etc`, `/app`, `/link` → `/app`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (context, layer) = (dir.path().join("context"), dir.path().join("layer"));
        for (path, text) in
            [("a.txt", "a"), ("b.md", "b"), (".hidden", "h"), ("dir/one", "1"), ("dir/sub/two", "2")]
        {
            put(&context.join(path), text);
            give(&context.join(path), 0o640, (0, 0), 1_000);
        }
        symlink("../a.txt", context.join("dir/link")).unwrap();
        give(&context.join("dir/link"), 0, (0, 0), 1_500);
        give(&context.join("dir/sub"), 0o750, (0, 0), 2_000);
        give(&context.join("dir"), 0o700, (0, 0), 3_000);
        put(&layer.join("etc/passwd"), "root:x:0:0\napp:x:7:8\n");
        put(&layer.join("etc/group"), "root:x:0:\napp:x:9:\n");
        put(&layer.join("app/old"), "old");
        put(&layer.join("app/sub/deep"), "deep");
        symlink("/app", layer.join("link")).unwrap();
        give(&layer.join("app"), 0o711, (3, 4), 5_000);
        give(&layer.join("etc"), 0o755, (0, 0), 6_000);
        let mut request = Request::new("COPY", Vec::new(), "/".into(), false, LINUX);
        request.lower.push(layer);
        Yard { dir, request, tops: 0 }
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    /// Of `sources` to `target`, with whatever `request` says besides; what is in the top afterwards.
    fn copy(&mut self, sources: &[&str], target: &str) -> std::result::Result<(PathBuf, Summary), String> {
        let tree = Arc::new(Tree::context(&self.context()));
        let item = |path: &&str| Item::Path { tree: tree.clone(), path: (*path).to_owned() };
        self.items(sources.iter().map(item).collect(), target)
    }

    fn items(&mut self, items: Vec<Item>, target: &str) -> std::result::Result<(PathBuf, Summary), String> {
        let mut request = self.request.clone();
        request.items = items;
        request.into = target.ends_with('/');
        request.target = Path::new(target).components().collect();
        self.tops += 1;
        let top = self.dir.path().join(format!("top{}", self.tops));
        let scratch = self.dir.path().join(format!("scratch{}", self.tops));
        std::fs::create_dir(&top).unwrap();
        std::fs::create_dir(&scratch).unwrap();
        let prepared = prepare(request, &Hashes::default()).map_err(|e| e.to_string())?;
        let summary = prepared.write(&top, &scratch).map_err(|e| e.to_string())?;
        Ok((top, summary))
    }

    #[track_caller]
    fn check(&mut self, sources: &[&str], target: &str, expected: &[&str]) {
        let (top, _) = self.copy(sources, target).unwrap();
        assert_eq!(listing(&top), expected, "{sources:?} {target}");
    }

    #[track_caller]
    fn refused(&mut self, sources: &[&str], target: &str, words: &str) {
        assert_eq!(self.copy(sources, target).unwrap_err(), words, "{sources:?} {target}");
    }

    fn digest(&self, sources: &[&str]) -> String {
        let tree = Arc::new(Tree::context(&self.context()));
        let mut request = self.request.clone();
        request.into = true;
        let item = |path: &&str| Item::Path { tree: tree.clone(), path: (*path).to_owned() };
        request.items = sources.iter().map(item).collect();
        prepare(request, &Hashes::default()).unwrap().digest().to_string()
    }
}

#[test]
fn where_sources_land() {
    let mut yard = Yard::new();
    // A file, to a name and into a directory; a directory that is there is copied up, with its owner.
    yard.check(&["a.txt"], "/new/name", &["755 0:0 new/", "640 0:0 new/name a"]);
    yard.check(&["a.txt"], "/new/", &["755 0:0 new/", "640 0:0 new/a.txt a"]);
    yard.check(&["a.txt"], "/app", &["711 3:4 app/", "640 0:0 app/a.txt a"]);
    yard.check(&["a.txt"], "/app/old", &["711 3:4 app/", "640 0:0 app/old a"]);
    // Through a link of the layer.
    yard.check(&["a.txt"], "/link/x/", &["711 3:4 app/", "755 0:0 app/x/", "640 0:0 app/x/a.txt a"]);
    // A directory's content, merged with what is there; hidden files match, links inside stay.
    yard.check(
        &["dir"],
        "/app",
        &[
            "711 3:4 app/",
            "777 0:0 app/link -> ../a.txt",
            "640 0:0 app/one 1",
            "750 0:0 app/sub/",
            "640 0:0 app/sub/two 2",
        ],
    );
    yard.check(
        &["*"],
        "/x/",
        &[
            "755 0:0 x/",
            "640 0:0 x/.hidden h",
            "640 0:0 x/a.txt a",
            "640 0:0 x/b.md b",
            "777 0:0 x/link -> ../a.txt",
            "640 0:0 x/one 1",
            "750 0:0 x/sub/",
            "640 0:0 x/sub/two 2",
        ],
    );
    // A source that is a link is what it leads to.
    yard.check(&["dir/link"], "/f", &["640 0:0 f a"]);
    yard.check(&["a.txt", "b.md"], "/", &["640 0:0 a.txt a", "640 0:0 b.md b"]);
}

#[test]
fn what_is_refused_in_dockerds_words() {
    let mut yard = Yard::new();
    let missing = "COPY failed: file not found in build context or excluded by .dockerignore: stat none: file does not exist";
    yard.refused(&["none"], "/x", missing);
    yard.refused(&["no*"], "/x", "COPY failed: no source files were specified");
    yard.refused(&["a["], "/x", "COPY failed: no source files were specified");
    yard.refused(&["../x"], "/x", "COPY failed: forbidden path outside the build context: ../x ()");
    let several = "When using COPY with more than one source file, the destination must be a directory and end with a /";
    yard.refused(&["a.txt", "b.md"], "/x", several);
    yard.refused(&["*"], "/x", several);
    yard.refused(&["dir"], "/app/old", "cannot copy to non-directory: /app/old");
    yard.refused(&["a.txt"], "/app/old/x", "cannot copy to non-directory: /app/old/x");
    put(&yard.context().join("clash/old/x"), "");
    put(&yard.context().join("clash2/sub"), "");
    yard.refused(&["clash"], "/app", "cannot copy to non-directory: /app/old");
    yard.refused(&["clash2"], "/app", "cannot replace to directory /app/sub with file");
    yard.request.chmod = Some("99".into());
    assert!(yard.copy(&["a.txt"], "/x").unwrap_err().starts_with("invalid chmod parameter: '99'"));
}

#[test]
fn owners_modes_and_times() {
    let mut yard = Yard::new();
    let (top, summary) = yard.copy(&["dir"], "/link/sub/in").unwrap();
    let time = |path: &str| top.join(path).symlink_metadata().unwrap().mtime();
    assert_eq!(
        (time("app/sub/in/one"), time("app/sub/in/sub"), time("app/sub/in/link")),
        (1_000, 2_000, 1_500)
    );
    // What is only passed through keeps its time, what is put into does not.
    assert_eq!(time("app"), 5_000);
    assert!(time("app/sub") > 6_000);
    assert_eq!(summary, Summary { files: 3, bytes: 2 });

    yard.request.chown = Some("app".into());
    yard.request.chmod = Some("u=rwX,go=rX".into());
    yard.check(
        &["dir"],
        "/app/n/",
        &[
            "711 3:4 app/",
            "755 7:9 app/n/",
            "777 7:9 app/n/link -> ../a.txt",
            "644 7:9 app/n/one 1",
            "755 7:9 app/n/sub/",
            "644 7:9 app/n/sub/two 2",
        ],
    );
    yard.request.chown = Some("none".into());
    assert!(yard.copy(&["a.txt"], "/x").unwrap_err().contains("no such user: none"));
}

#[test]
fn parents_and_exclusions() {
    let mut yard = Yard::new();
    yard.request.parents = true;
    yard.check(
        &["dir/sub/two", "a.txt"],
        "/p/",
        &[
            "755 0:0 p/",
            "640 0:0 p/a.txt a",
            "700 0:0 p/dir/",
            "750 0:0 p/dir/sub/",
            "640 0:0 p/dir/sub/two 2",
        ],
    );
    yard.check(&["./dir/./sub/*"], "/p/", &["755 0:0 p/", "750 0:0 p/sub/", "640 0:0 p/sub/two 2"]);
    yard.check(
        &["**/two"],
        "/p/",
        &["755 0:0 p/", "700 0:0 p/dir/", "750 0:0 p/dir/sub/", "640 0:0 p/dir/sub/two 2"],
    );
    yard.request.parents = false;
    yard.request.exclude = Some(Exclude(Arc::new(|path| {
        path == Path::new("sub") || path == Path::new("b.md") || path == Path::new("link")
    })));
    yard.check(
        &["*"],
        "/",
        &["640 0:0 .hidden h", "640 0:0 a.txt a", "640 0:0 one 1", "750 0:0 sub/", "640 0:0 sub/two 2"],
    );
}

#[test]
fn a_copy_of_a_chain_keeps_owners_and_leaves_out_what_is_gone() {
    let mut yard = Yard::new();
    let upper = yard.dir.path().join("upper");
    put(&upper.join("app/new"), "new");
    give(&upper.join("app/new"), 0o4755, (5, 6), 1);
    fs::mknodat(fs::CWD, upper.join("app/old"), fs::FileType::CharacterDevice, fs::Mode::empty(), 0).unwrap();
    std::fs::hard_link(upper.join("app/new"), upper.join("app/again")).unwrap();
    let tree = Arc::new(Tree::chain(&[upper, yard.layer()], LINUX));
    let from = |path: &str| vec![Item::Path { tree: tree.clone(), path: path.to_owned() }];
    let (top, _) = yard.items(from("/link/"), "/to").unwrap();
    assert_eq!(
        listing(&top),
        [
            "755 0:0 to/",
            "4755 5:6 to/again new",
            "4755 5:6 to/new new",
            "755 0:0 to/sub/",
            "644 0:0 to/sub/deep deep",
        ]
    );
    let inode = |name: &str| top.join(name).metadata().unwrap().ino();
    assert_eq!(inode("to/again"), inode("to/new"));
    assert_eq!(yard.items(from("/none"), "/x").unwrap_err(), "COPY failed: stat none: file does not exist");
    // Out of the chain leads nowhere.
    assert!(yard.items(from("../../app/new"), "/x").is_ok());
}

#[test]
fn the_digest_is_of_what_is_copied_but_its_times() {
    let yard = Yard::new();
    let before = yard.digest(&["dir"]);
    assert_ne!(before, yard.digest(&["dir/sub"]));
    let one = yard.context().join("dir/one");
    give(&one, 0o640, (0, 0), 9_999);
    assert_eq!(yard.digest(&["dir"]), before);
    give(&one, 0o600, (0, 0), 9_999);
    assert_ne!(yard.digest(&["dir"]), before);
    give(&one, 0o640, (0, 0), 9_999);
    put(&one, "x");
    assert_ne!(yard.digest(&["dir"]), before);
    put(&one, "1");
    assert_eq!(yard.digest(&["dir"]), before);
    std::fs::rename(&one, yard.context().join("dir/other")).unwrap();
    assert_ne!(yard.digest(&["dir"]), before);
    // The same directory under another name puts the same files.
    std::fs::rename(yard.context().join("dir/other"), &one).unwrap();
    std::fs::rename(yard.context().join("dir"), yard.context().join("renamed")).unwrap();
    assert_eq!(yard.digest(&["renamed"]), before);
}

#[test]
fn files_of_the_context_are_shared_but_never_two_of_one_layer() {
    let mut yard = Yard::new();
    let (top, _) = yard.copy(&["a.txt", "a.txt", "dir"], "/x/").unwrap();
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    assert_eq!(inode(top.join("x/one")), inode(yard.context().join("dir/one")));
    put(&yard.context().join("twice/a.txt"), "t");
    let (top, _) = yard.copy(&["a.txt", "twice"], "/x/").unwrap();
    assert_eq!(listing(&top), ["755 0:0 x/", "644 0:0 x/a.txt t"]);
    // Another mode: a file of its own.
    yard.request.chmod = Some("600".into());
    let (top, _) = yard.copy(&["a.txt"], "/y").unwrap();
    assert_eq!(listing(&top), ["600 0:0 y a"]);
    assert_eq!(yard.context().join("a.txt").metadata().unwrap().mode() & 0o7777, 0o640);
    // A hole stays one.
    let sparse = yard.context().join("sparse");
    std::fs::File::create(&sparse).unwrap().set_len(8 << 20).unwrap();
    let (top, _) = yard.copy(&["sparse"], "/y").unwrap();
    let meta = top.join("y").metadata().unwrap();
    assert_eq!((meta.len(), meta.blocks()), (8 << 20, 0));
}

#[test]
fn an_archive_is_unpacked_with_what_it_says() {
    let mut yard = Yard::new();
    yard.request.verb = "ADD";
    yard.request.unpack_local = true;
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |name: &str, mode: u32, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_size(text.len() as u64);
        header.set_mode(mode);
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(77);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    };
    entry("etc/", 0o750, "");
    entry("etc/new", 0o604, "n");
    // Nobody names `app`: it stays as it is. A file takes the place of a directory.
    entry("app/sub", 0o600, "s");
    let tar = tar.into_inner().unwrap();
    std::fs::write(yard.context().join("x.tar"), &tar).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    std::fs::write(yard.context().join("x.bin"), gz.finish().unwrap()).unwrap();
    let expected = ["711 3:4 app/", "600 11:12 app/sub s", "750 11:12 etc/", "604 11:12 etc/new n"];
    yard.check(&["x.tar"], "/", &expected);
    yard.check(&["x.bin"], "/", &expected);
    let (top, _) = yard.copy(&["x.bin"], "/").unwrap();
    let time = |path: &str| top.join(path).metadata().unwrap().mtime();
    assert_eq!((time("etc"), time("etc/new")), (77, 77));
    // What only looks compressed, and what is copied, stays a file.
    std::fs::write(yard.context().join("y.gz"), [0x1f, 0x8b, 8, 0, 1]).unwrap();
    let (top, _) = yard.copy(&["y.gz"], "/").unwrap();
    assert!(top.join("y.gz").is_file());
    yard.request.unpack_local = false;
    let (top, _) = yard.copy(&["x.tar"], "/").unwrap();
    assert!(top.join("x.tar").is_file());
}

#[test]
fn an_empty_directory_is_made_only_where_there_is_none() {
    let mut yard = Yard::new();
    std::fs::create_dir(yard.context().join("empty")).unwrap();
    yard.check(&["empty"], "/app/sub/", &[]);
    yard.check(&["empty"], "/app/w/", &["711 3:4 app/", "755 0:0 app/w/"]);
}

#[test]
fn bytes_and_fetched_files() {
    let mut yard = Yard::new();
    let bytes = |name: &str| Item::Bytes { name: name.into(), content: b"doc".to_vec() };
    let (top, _) = yard.items(vec![bytes("A"), bytes("B")], "/d/").unwrap();
    assert_eq!(listing(&top), ["755 0:0 d/", "644 0:0 d/A doc", "644 0:0 d/B doc"]);
    let file = yard.dir.path().join("download");
    put(&file, "f");
    let fetched = |name: Option<&str>| {
        let modified = Some(jiff::Timestamp::from_second(123).unwrap());
        let name = name.map(str::to_owned);
        Item::Fetched(Fetched { path: file.clone(), name, url: "http://x/".into(), modified })
    };
    let (top, _) = yard.items(vec![fetched(Some("n"))], "/d/").unwrap();
    assert_eq!(listing(&top), ["755 0:0 d/", "600 0:0 d/n f"]);
    assert_eq!(top.join("d/n").metadata().unwrap().mtime(), 123);
    yard.request.verb = "ADD";
    let nameless = yard.items(vec![fetched(None)], "/d/").unwrap_err();
    assert_eq!(nameless, "ADD failed: cannot determine filename from url: http://x/");
    let (top, _) = yard.items(vec![fetched(None)], "/d").unwrap();
    assert_eq!(listing(&top), ["600 0:0 d f"]);
}

#[test]
fn windows_names_are_found_in_any_spelling() {
    let mut yard = Yard::new();
    let base = yard.dir.path().join("base");
    put(&base.join("Files/Program Files/App/Old.txt"), "old");
    yard.request.form = WINDOWS;
    yard.request.lower = vec![base.clone()];
    put(&yard.context().join("dir/tool.EXE"), "x");
    yard.check(
        &["dir\\*"],
        "/c/program files/APP/",
        &[
            "755 0:0 Program Files/",
            "755 0:0 Program Files/App/",
            "644 0:0 Program Files/App/link a",
            "644 0:0 Program Files/App/one 1",
            "755 0:0 Program Files/App/tool.EXE x",
            "644 0:0 Program Files/App/two 2",
        ],
    );
    yard.check(
        &["a.txt"],
        "/c/Program files/app/OLD.TXT",
        &["755 0:0 Program Files/", "755 0:0 Program Files/App/", "644 0:0 Program Files/App/Old.txt a"],
    );
    // Out of a Windows stage, into a Linux one.
    yard.request.form = LINUX;
    yard.request.lower = vec![yard.layer()];
    let tree = Arc::new(Tree::chain(&[base], WINDOWS));
    for path in ["C:\\program files\\app\\old.TXT", "/Program Files/app/Old*", "c:/Program Files/App/old.txt"]
    {
        let items = vec![Item::Path { tree: tree.clone(), path: path.into() }];
        let (top, _) = yard.items(items, "/x").unwrap();
        assert_eq!(listing(&top), ["644 0:0 x old"], "{path}");
    }
    yard.request.form = WINDOWS;
    put(&yard.context().join("bad:name"), "");
    let refused = yard.copy(&["bad:name"], "/c/x/").unwrap_err();
    assert!(refused.contains("bad:name cannot be in a Windows image"), "{refused}");
}

#[test]
fn a_tree_copied_into_nothing_is_that_tree() {
    let mut yard = Yard::new();
    let layer = yard.layer();
    fs::mknodat(fs::CWD, layer.join("app/pipe"), fs::FileType::Fifo, fs::Mode::empty(), 0).unwrap();
    give(&layer.join("app/pipe"), 0o620, (1, 2), 3);
    give(&layer.join("link"), 0, (8, 9), 4);
    std::fs::hard_link(layer.join("app/old"), layer.join("app/zold")).unwrap();
    xattr::set(layer.join("app/sub"), "user.note", b"kept").unwrap();
    yard.request.lower = Vec::new();
    let tree = Arc::new(Tree::chain(std::slice::from_ref(&layer), LINUX));
    let (top, summary) = yard.items(vec![Item::Path { tree, path: "/".into() }], "/").unwrap();
    assert_eq!(listing(&top), listing(&layer));
    assert_eq!(summary.files, 7);
    for path in ["app", "app/sub", "app/pipe", "app/zold", "link", "etc/passwd"] {
        let time = |root: &Path| root.join(path).symlink_metadata().unwrap().mtime();
        assert_eq!(time(&top), time(&layer), "{path}");
    }
    assert_eq!(top.join("app/old").metadata().unwrap().nlink(), 2);
    assert_eq!(xattr::get(top.join("app/sub"), "user.note").unwrap().as_deref(), Some(&b"kept"[..]));
    // The context as a whole, by its own name.
    yard.check(
        &["dir/../dir/./sub/.."],
        "/",
        &["777 0:0 link -> ../a.txt", "640 0:0 one 1", "750 0:0 sub/", "640 0:0 sub/two 2"],
    );
    let (top, _) = yard.copy(&["."], "/all/").unwrap();
    assert_eq!(listing(&top.join("all")), listing(&yard.context()));
}
