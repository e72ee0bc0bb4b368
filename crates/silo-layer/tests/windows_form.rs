//! Windows layers: what comes out is what Windows' tools write, and what went in.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::windows::{Entry, archive};
use common::{Tar, names};
use silo_layer::{
    LayerError, Limits, OwnFiles, WindowsUpper, pack_windows_tree, pack_windows_upper, unpack_windows,
};
use tempfile::{TempDir, tempdir};

fn unpack_over(bytes: &[u8], lower: &[&TempDir]) -> Result<TempDir, LayerError> {
    let dir = tempdir().unwrap();
    let lower: Vec<PathBuf> = lower.iter().map(|l| l.path().to_owned()).collect();
    unpack_windows(&mut &bytes[..], dir.path(), &lower, &["Host"], &OwnFiles::default(), &Limits::default())
        .map(|_| dir)
}

fn unpacked(entries: &[Entry], lower: &[&TempDir]) -> TempDir {
    unpack_over(&archive(entries), lower).unwrap()
}

fn pack(tree: &TempDir, lower: &[&TempDir]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lower: Vec<PathBuf> = lower.iter().map(|l| l.path().to_owned()).collect();
    pack_windows_tree(tree.path(), &lower, &["Host"], &mut bytes).unwrap();
    bytes
}

fn base() -> TempDir {
    unpacked(
        &[
            Entry::dir("Files"),
            Entry::dir("Files/Program Files"),
            Entry::file("Files/Program Files/Old.txt", b"old"),
            Entry::dir("Files/Users"),
            Entry::dir("Files/Users/Public"),
            Entry::file("Files/Users/Public/a.txt", b"from the base"),
            Entry::stream("Files/Users/Public/a.txt:note", &[b'n'; 3000]),
            Entry::dir("UtilityVM"),
            Entry::dir("UtilityVM/Files"),
            Entry::file("UtilityVM/Files/boot.dat", b"boot"),
        ],
        &[],
    )
}

/// An archive with one of everything, in the order of Windows' tools.
fn everything() -> Vec<Entry> {
    let long = "n".repeat(90);
    vec![
        Entry::dir("Files"),
        Entry::dir("Files/PROGRAM FILES").with("MSWINDOWS.rawsd", "AQAEgA=="),
        Entry::stream("Files/PROGRAM FILES:on a directory", b"s").mode(0o040_000),
        Entry::gone("Files/PROGRAM FILES/.wh.OLD.TXT"),
        Entry::gone("Files/PROGRAM FILES/.wh.never there"),
        Entry::file("Files/PROGRAM FILES/Setup.EXE", b"MZ").with("MSWINDOWS.rawsd", "AQAEgBQA"),
        Entry::stream("Files/PROGRAM FILES/Setup.EXE:Zone.Identifier", b"[ZoneTransfer]"),
        Entry::stream("Files/PROGRAM FILES/Setup.EXE:big=1", &[b'b'; 70_000]),
        Entry::file("Files/PROGRAM FILES/hidden.ini", b"h").with("MSWINDOWS.fileattr", "39"),
        Entry::file("Files/PROGRAM FILES/no data", b"").mode(0),
        Entry::dir("Files/Users"),
        Entry::dir_link("Files/Users/All Users", r"\??\C:\programdata").with("MSWINDOWS.mountpoint", "1"),
        Entry::stream("Files/Users/All Users:s", b"of a link").mode(0o160_000),
        Entry::link("Files/Users/Default.lnk", r"..\USERS\public\A.TXT"),
        Entry::file("Files/Users/ea", b"1")
            .with("MSWINDOWS.xattr.$KERNEL.PURGE.X", "AAECAw==")
            .with("MSWINDOWS.xattr.LARGE", &"QUFB".repeat(1000))
            .with("MSWINDOWS.sd", "O:BAG:SY"),
        Entry::file("Files/Users/first", b"x"),
        Entry::hard("Files/Users/second", "Files/Users/first"),
        Entry::link("Files/Users/volume", r"\??\Volume{0a-1b}\x").with("MSWINDOWS.mountpoint", "1"),
        Entry::dir(&format!("Files/{long}")),
        Entry::gone(&format!("Files/{long}/.wh.g")),
        Entry::file(&format!("Files/{long}/f{long}"), b"long"),
        Entry::dir("Files/programdata").with("MSWINDOWS.fileattr", "8210"),
        Entry::file("Files/ä Ж.txt", b"unicode").with("mtime", "1700000000.1234567"),
        Entry { mtime: 0, ..Entry::file("Files/ö 1601.txt", b"").with("mtime", "-11644473600") },
        Entry::dir("Hives"),
        Entry::file("Hives/Software_Delta", &[7; 8192]),
        Entry::file("Hives/System_Delta", b"regf"),
        Entry::dir("UtilityVM"),
        Entry::dir("UtilityVM/Files"),
        Entry::gone("UtilityVM/Files/.wh.boot.dat"),
        Entry::file("UtilityVM/Files/EFI", b"vm"),
    ]
}

#[test]
fn what_windows_tools_wrote_comes_back_byte_for_byte() {
    let (base, bytes) = (base(), archive(&everything()));
    let tree = unpack_over(&bytes, &[&base]).unwrap();
    let back = pack(&tree, &[&base]);
    for (found, expected) in listed(&back).iter().zip(listed(&bytes)) {
        assert_eq!(*found, expected);
    }
    let differs = back.chunks(512).zip(bytes.chunks(512)).find(|(found, expected)| found != expected);
    let shown = differs.map(|(f, e)| {
        (String::from_utf8_lossy(f).replace('\0', ""), String::from_utf8_lossy(e).replace('\0', ""))
    });
    assert_eq!((shown, back.len()), (None, bytes.len()));
    // Also when nothing below is known, as far as the names go.
    let mut alone = everything();
    alone.retain(|e| !e.name.contains(".wh."));
    let bytes = archive(&alone);
    assert!(pack(&unpack_over(&bytes, &[]).unwrap(), &[]) == bytes);
}

#[test]
fn the_tree_shows_on_linux_what_linux_can_show() {
    let base = base();
    let tree = unpacked(&everything(), &[&base]);
    let at = |p: &str| tree.path().join("Files").join(p);
    // In the spelling of the base, and in no other.
    assert!(!at("PROGRAM FILES").exists());
    let gone = at("Program Files/Old.txt").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mode = |p: &str| at(p).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode("Program Files/Setup.EXE"), 0o755);
    assert_eq!(mode("Program Files/hidden.ini"), 0o444);
    assert_eq!(xattr::get(at("Program Files/hidden.ini"), "user.DOSATTRIB").unwrap().unwrap(), b"0x6");
    assert_eq!(mode("Users/first"), 0o644);
    assert_eq!(at("Users/first").metadata().unwrap().nlink(), 2);
    let target = |p: &str| std::fs::read_link(at(p)).unwrap();
    assert_eq!(target("Users/All Users"), Path::new("../programdata"));
    assert_eq!(target("Users/Default.lnk"), Path::new("Public/a.txt"));
    assert_eq!(target("Users/volume"), Path::new(r"\??\Volume{0a-1b}\x"));
    assert_eq!(at("ä Ж.txt").metadata().unwrap().mtime_nsec(), 123_456_700);
    assert_eq!(std::fs::read(tree.path().join("Hives/System_Delta")).unwrap(), b"regf");
    assert!(tree.path().join("UtilityVM/Files/EFI").is_file());
    let uid = at("Users").metadata().unwrap();
    assert_eq!((uid.uid(), uid.gid()), (0, 0));
}

/// Name, type, mode and records of each entry.
fn listed(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let mut lines = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!(
            (header.username_bytes().unwrap(), header.groupname_bytes().unwrap()),
            (&b""[..], &b""[..])
        );
        let mut line = format!(
            "{} {} {:o} {}",
            String::from_utf8_lossy(&entry.path_bytes()),
            header.entry_type().as_byte() as char,
            header.mode().unwrap(),
            header.mtime().unwrap()
        );
        if let Some(link) = entry.link_name_bytes() {
            line += &format!(" -> {}", String::from_utf8_lossy(&link));
        }
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            let value = record.value().unwrap();
            line += &format!(" {}={}", record.key().unwrap(), &value[..value.len().min(24)]);
        }
        lines.push(line);
    }
    lines
}

fn settle(path: &Path) {
    let time = rustix::fs::Timespec { tv_sec: 1_600_000_000, tv_nsec: 123_456_789 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

#[test]
fn a_containers_changes_are_written_as_windows_would() {
    let base = base();
    let upper = tempdir().unwrap();
    let at = |p: &str| upper.path().join(p);
    std::fs::create_dir_all(at("app")).unwrap();
    std::fs::write(at("app/b.exe"), "MZ").unwrap();
    std::fs::hard_link(at("app/b.exe"), at("app/c.exe")).unwrap();
    std::fs::write(at("app/A.txt"), "").unwrap();
    std::fs::set_permissions(at("app/A.txt"), PermissionsExt::from_mode(0o444)).unwrap();
    xattr::set(at("app/A.txt"), "user.DOSATTRIB", b"0x2").unwrap();
    symlink("../Users", at("app/link")).unwrap();
    std::fs::write(at("mounted"), "").unwrap();
    std::fs::create_dir(at("$recycle.bin")).unwrap();
    // All of the directory below is hidden, but for what is there again.
    std::fs::create_dir(at("Users")).unwrap();
    xattr::set(at("Users"), "trusted.overlay.opaque", b"y").unwrap();
    std::fs::create_dir(at("Program Files")).unwrap();
    let whiteout = |p: &str| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, at(p), kind, rustix::fs::Mode::empty(), 0).unwrap();
    };
    whiteout("Program Files/Old.txt");
    whiteout("Program Files/OTHER");
    std::fs::write(at("Program Files/Other"), "renamed to another spelling").unwrap();
    for path in ["app/A.txt", "app/b.exe", "app/link", "app", "Users", "Program Files/Other", "Program Files"]
    {
        settle(&at(path));
    }
    let upper = WindowsUpper {
        files: upper.path(),
        lower: &[base.path().to_owned()],
        hives: &[("System_Delta", b"s"), ("Software_Delta", b"so")],
        whole: &[("Users/Ann/NTUSER.DAT", b"h"), ("Program Files/other", b"another")],
        time: (1_600_000_000, 0),
        own: &["/mounted"],
    };
    let mut bytes = Vec::new();
    pack_windows_upper(&upper, &mut bytes).unwrap();
    let t = "LIBARCHIVE.creationtime=1600000000.1234567";
    let times = "atime=1600000000.1234567 ctime=1600000000.1234567";
    let mtime = "mtime=1600000000.1234567";
    let whole = "LIBARCHIVE.creationtime=1600000000";
    let same = "atime=1600000000 ctime=1600000000";
    let dir_sd = "MSWINDOWS.rawsd=AQAEgBQAAAAkAAAAAAAAADAA";
    let file_sd = dir_sd;
    let s = 1_600_000_000;
    let expected = [
        format!("Files 5 40000 {s} {whole} MSWINDOWS.fileattr=16 {same}"),
        format!("Files/Program Files 5 40000 {s} {t} MSWINDOWS.fileattr=16 {dir_sd} {times} {mtime}"),
        "Files/Program Files/.wh.Old.txt 0 0 0".to_owned(),
        format!("Files/Program Files/other 0 100000 {s} {whole} MSWINDOWS.fileattr=32 {file_sd} {same}"),
        format!("Files/Users 5 40000 {s} {t} MSWINDOWS.fileattr=16 {dir_sd} {times} {mtime}"),
        "Files/Users/.wh.Public 0 0 0".to_owned(),
        format!("Files/Users/Ann 5 40000 {s} {whole} MSWINDOWS.fileattr=16 {dir_sd} {same}"),
        format!("Files/Users/Ann/NTUSER.DAT 0 100000 {s} {whole} MSWINDOWS.fileattr=32 {file_sd} {same}"),
        format!("Files/app 5 40000 {s} {t} MSWINDOWS.fileattr=16 {dir_sd} {times} {mtime}"),
        format!("Files/app/A.txt 0 100000 {s} {t} MSWINDOWS.fileattr=35 {file_sd} {times} {mtime}"),
        format!("Files/app/b.exe 0 100000 {s} {t} MSWINDOWS.fileattr=32 {file_sd} {times} {mtime}"),
        format!("Files/app/c.exe 1 644 {s} -> Files/app/b.exe {t} MSWINDOWS.fileattr=32 {times} {mtime}"),
        format!(
            "Files/app/link 2 160000 {s} -> ..\\Users {t} MSWINDOWS.fileattr=1040 {file_sd} {times} {mtime}"
        ),
        format!("Hives 5 40000 {s} {whole} MSWINDOWS.fileattr=16 {same}"),
        format!("Hives/Software_Delta 0 100000 {s} {whole} MSWINDOWS.fileattr=32 {same}"),
        format!("Hives/System_Delta 0 100000 {s} {whole} MSWINDOWS.fileattr=32 {same}"),
    ];
    let found = listed(&bytes);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    // The layer made from it is the same layer again.
    let tree = unpack_over(&bytes, &[&base]).unwrap();
    assert!(pack(&tree, &[&base]) == bytes);
}

#[test]
fn a_changed_file_keeps_what_windows_would_keep() {
    let tree = unpacked(
        &[
            Entry::dir("Files"),
            Entry::file("Files/f", b"1")
                .with("MSWINDOWS.rawsd", "AQAEgA==")
                .with("MSWINDOWS.fileattr", "8225"),
        ],
        &[],
    );
    let path = tree.path().join("Files/f");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    xattr::set(&path, "user.DOSATTRIB", b"0x4\0").unwrap();
    settle(&path);
    let expected = "Files/f 0 100000 1600000000 LIBARCHIVE.creationtime=1600000000.1234567 \
        MSWINDOWS.fileattr=8228 MSWINDOWS.rawsd=AQAEgA== atime=1600000000.1234567 ctime=1600000000.1234567 \
        mtime=1600000000.1234567";
    assert_eq!(listed(&pack(&tree, &[]))[1], expected);
}

#[test]
fn one_directory_never_has_two_spellings() {
    let base = base();
    let upper = unpacked(
        &[
            Entry::dir("Files"),
            Entry::dir("FILES/USERS/PUBLIC"),
            Entry::file("Files/users/public/B.TXT", b""),
            Entry::file("files/Users/pUBLIC/A.TXT", b"new"),
            Entry::dir("Files/New"),
            Entry::file("Files/NEW/x", b""),
            Entry::hard("Files/NEW/y", "FILES/new/X"),
        ],
        &[&base],
    );
    let list = |dir: &str| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(upper.path().join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(list("Files"), ["New", "Users"]);
    assert_eq!(list("Files/Users"), ["Public"]);
    assert_eq!(list("Files/Users/Public"), ["B.TXT", "a.txt"]);
    assert_eq!(list("Files/New"), ["x", "y"]);
    // A third layer sees the spelling of the second, and of the base through it.
    let third = unpacked(&[Entry::dir("Files/uSERS"), Entry::dir("Files/nEW")], &[&upper, &base]);
    assert!(third.path().join("Files/Users").is_dir() && third.path().join("Files/New").is_dir());
}

#[test]
fn a_hard_link_to_a_layer_below_is_a_copy() {
    let base = base();
    let link = |name: &str| Entry::hard(name, "Files/users/public/a.txt");
    let entries = [Entry::dir("Files"), link("Files/one"), link("Files/two")];
    let tree = unpacked(&entries, &[&base]);
    let one = tree.path().join("Files/one");
    assert_eq!(std::fs::read(&one).unwrap(), b"from the base");
    assert_eq!(one.metadata().unwrap().nlink(), 2);
    // With its streams, which the base keeps.
    let packed = pack(&tree, &[&base]);
    assert_eq!(names(&packed), ["Files", "Files/one", "Files/one:note", "Files/two"]);
    let dir = tempdir().unwrap();
    let limits = Limits { bytes: 12, entries: 10 };
    let lower = [base.path().to_owned()];
    let bytes = archive(&entries);
    let error =
        unpack_windows(&mut &bytes[..], dir.path(), &lower, &[], &OwnFiles::default(), &limits).unwrap_err();
    assert!(matches!(&error, LayerError::Limit { entry, .. } if entry == "Files/one"), "{error}");
}

#[test]
fn layers_made_on_linux_are_understood() {
    let base = base();
    // As buildkit writes them: permissions, slashes at the end, an opaque directory (OCI's readers must take it).
    let tar = Tar::default()
        .dir("Hives/")
        .dir("Files/")
        .dir("Files/Users/")
        .file("Files/Users/.wh..wh..opq", "")
        .file("./Files/Users/run.sh", "#!")
        .symlink("Files/Users/l", "run.sh")
        .dir("Host/")
        .symlink("Host/lib", "/usr/lib")
        .file("Host/.wh.x", "")
        .file("Host/Lib", "another name than lib")
        .link("Host/lib2", "Host/Lib")
        .end();
    let tree = unpack_over(&tar, &[&base]).unwrap();
    let at = |p: &str| tree.path().join(p);
    assert_eq!(xattr::get(at("Files/Users"), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    assert_eq!(at("Files/Users/run.sh").metadata().unwrap().mode() & 0o777, 0o644);
    assert!(at("Host/x").symlink_metadata().unwrap().file_type().is_char_device());
    assert_eq!(at("Host/lib2").metadata().unwrap().nlink(), 2);
    let found = names(&pack(&tree, &[&base]));
    let expected = [
        "Files",
        "Files/Users",
        "Files/Users/.wh.Public",
        "Files/Users/l",
        "Files/Users/run.sh",
        "Hives",
        "Host/",
        "Host/Lib",
        "Host/lib",
        "Host/lib2",
        "Host/.wh.x",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_bases_own_files_are_kept_aside() {
    let base = unpacked(
        &[
            Entry::dir("Files"),
            Entry::dir("Files/Windows"),
            Entry::dir("Files/Windows/System32"),
            Entry::file("Files/Windows/System32/ntdll.dll", b"the base's"),
        ],
        &[],
    );
    let own = OwnFiles::read("windows/system32/ntdll.dll\n");
    let bytes = archive(&[
        Entry::dir("Files"),
        Entry::dir("Files/Windows"),
        Entry::dir("Files/Windows/SYSTEM32"),
        Entry::file("Files/Windows/SYSTEM32/NTDLL.dll", b"the layer's"),
        Entry::stream("Files/Windows/SYSTEM32/NTDLL.dll:note", b"of it"),
        Entry::hard("Files/Windows/SYSTEM32/other.dll", "Files/Windows/SYSTEM32/NTDLL.dll"),
        Entry::dir("Hives"),
    ]);
    let dir = tempdir().unwrap();
    let lower = [base.path().to_owned()];
    unpack_windows(&mut &bytes[..], dir.path(), &lower, &["Host"], &own, &Limits::default()).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
    assert_eq!(read("Files/Windows/System32/ntdll.dll"), None);
    assert_eq!(read("Hidden/Windows/System32/ntdll.dll").as_deref(), Some("the layer's"));
    // A name that is shown has what the layer has.
    assert_eq!(read("Files/Windows/System32/other.dll").as_deref(), Some("the layer's"));
    // Without a list nothing is hidden.
    let all = unpack_over(&bytes, &[&base]).unwrap();
    assert!(all.path().join("Files/Windows/System32/ntdll.dll").is_file());
}
