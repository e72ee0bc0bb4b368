//! What a program may expect of a shared folder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::mounted::Mounted;

/// Longer than the guest may believe what it knows.
const A_WHILE: Duration = Duration::from_millis(1200);

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

#[test]
fn files_are_written_appended_to_and_read() {
    let Some(m) = Mounted::new() else { return };
    let big: Vec<u8> = (0..3_000_001u32).map(|i| (i * 7 % 251) as u8).collect();
    fs::write(m.guest.join("big"), &big).unwrap();
    assert!(fs::read(m.host.join("big")).unwrap() == big);
    assert!(fs::read(m.guest.join("big")).unwrap() == big);
    fs::write(m.guest.join("log"), "one\n").unwrap();
    let mut log = OpenOptions::new().append(true).open(m.guest.join("log")).unwrap();
    log.write_all(b"two\n").unwrap();
    // Another writer of the host: an append is at the end all the same.
    OpenOptions::new().append(true).open(m.host.join("log")).unwrap().write_all(b"host\n").unwrap();
    log.write_all(b"three\n").unwrap();
    assert_eq!(read(m.host.join("log")), "one\ntwo\nhost\nthree\n");
    let file = OpenOptions::new().write(true).open(m.guest.join("big")).unwrap();
    file.set_len(10).unwrap();
    file.write_at(b"xy", 20).unwrap();
    file.sync_all().unwrap();
    assert_eq!(m.host.join("big").metadata().unwrap().len(), 22);
    File::create(m.guest.join("big")).unwrap();
    assert_eq!(m.host.join("big").metadata().unwrap().len(), 0);
}

#[test]
fn names_are_made_linked_renamed_and_removed() {
    let Some(m) = Mounted::new() else { return };
    let at = |n: &str| m.guest.join(n);
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "b").unwrap();
    fs::rename(at("a"), at("b")).unwrap();
    assert_eq!((read(at("b")), m.host.join("a").exists()), ("a".into(), false));
    fs::write(at("c"), "c").unwrap();
    let swap = |flags| rustix::fs::renameat_with(CWD, at("b"), CWD, at("c"), flags);
    assert_eq!(swap(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    swap(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((read(at("b")), read(at("c"))), ("c".into(), "a".into()));
    assert_eq!(swap(RenameFlags::WHITEOUT), Err(Errno::INVAL));
    fs::hard_link(at("b"), at("d")).unwrap();
    let (b, d) = (at("b").metadata().unwrap(), at("d").metadata().unwrap());
    assert_eq!((b.nlink(), b.ino()), (2, d.ino()));
    std::os::unix::fs::symlink("b", at("link")).unwrap();
    assert_eq!((fs::read_link(at("link")).unwrap().to_str(), read(at("link"))), (Some("b"), "c".into()));
    fs::create_dir_all(at("deep/er")).unwrap();
    assert_eq!(errno(fs::remove_dir(at("deep"))), Some(Errno::NOTEMPTY));
    fs::remove_dir_all(at("deep")).unwrap();
    let mut open = OpenOptions::new().read(true).write(true).open(at("c")).unwrap();
    fs::remove_file(at("c")).unwrap();
    open.write_all(b"still here").unwrap();
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), open.metadata().unwrap().nlink()), ("still here", 0));
    assert_eq!(errno(File::create_new(at("b"))), Some(Errno::EXIST));
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(
        rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, 0x103),
        Err(Errno::PERM)
    );
}

#[test]
fn owners_modes_times_and_attributes_are_the_hosts() {
    let Some(m) = Mounted::new() else { return };
    let (guest, host) = (m.guest.join("f"), m.host.join("f"));
    fs::write(&guest, "x").unwrap();
    fs::set_permissions(&guest, Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(host.metadata().unwrap().mode() & 0o7777, 0o4751);
    std::os::unix::fs::chown(&guest, Some(12), Some(34)).unwrap();
    let now = host.metadata().unwrap();
    assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (12, 34, 0o751));
    let time = std::time::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    File::open(&guest).unwrap().set_times(times).unwrap();
    assert_eq!(host.metadata().unwrap().modified().unwrap(), time);
    assert_eq!(guest.metadata().unwrap().accessed().unwrap(), time);

    let set = |name: &str| rustix::fs::setxattr(&guest, name, b"value", XattrFlags::empty());
    set("user.silo").unwrap();
    assert_eq!(set("trusted.silo"), Err(Errno::OPNOTSUPP));
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&host, "user.silo", &mut value), Ok(5));
    assert_eq!(rustix::fs::getxattr(&guest, "user.silo", &mut value), Ok(5));
    rustix::fs::setxattr(&host, "trusted.host", b"h", XattrFlags::empty()).unwrap();
    let mut list = [0; 64];
    let len = rustix::fs::listxattr(&guest, &mut list[..]).unwrap();
    assert_eq!(&list[..len], b"user.silo\0");
    rustix::fs::removexattr(&guest, "user.silo").unwrap();
    assert_eq!(rustix::fs::getxattr(&host, "user.silo", &mut value), Err(Errno::NODATA));
    let (of_guest, of_host) = (rustix::fs::statvfs(&guest).unwrap(), rustix::fs::statvfs(&host).unwrap());
    assert_eq!((of_guest.f_blocks, of_guest.f_frsize), (of_host.f_blocks, of_host.f_frsize));
}

#[test]
fn what_a_user_makes_is_theirs_and_writing_takes_set_id_bits_off() {
    let Some(m) = Mounted::new() else { return };
    fs::set_permissions(&m.guest, Permissions::from_mode(0o777)).unwrap();
    fs::write(m.guest.join("suid"), "x").unwrap();
    fs::set_permissions(m.guest.join("suid"), Permissions::from_mode(0o6777)).unwrap();
    let guest = m.guest.clone();
    std::thread::spawn(move || {
        silo_sys::mount::unshare(libc::CLONE_FS).unwrap();
        rustix::process::umask(Mode::from_raw_mode(0o027));
        silo_sys::process::set_ids(4321, 8765, &[]).unwrap();
        fs::write(guest.join("file"), "x").unwrap();
        fs::create_dir(guest.join("dir")).unwrap();
        std::os::unix::fs::symlink("x", guest.join("link")).unwrap();
        OpenOptions::new().write(true).open(guest.join("suid")).unwrap().write_all(b"y").unwrap();
        assert_eq!(errno(std::os::unix::fs::chown(guest.join("file"), Some(0), None)), Some(Errno::PERM));
    })
    .join()
    .unwrap();
    for (name, mode) in [("file", 0o640), ("dir", 0o750), ("link", 0o777)] {
        let is = m.host.join(name).symlink_metadata().unwrap();
        assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (4321, 8765, mode), "{name}");
    }
    assert_eq!(m.host.join("suid").metadata().unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn a_shared_mapping_is_written_to_the_host() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.guest.join("map"), vec![b'.'; 10_000]).unwrap();
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
                  m[5000:5005]=b'hello'\nm.flush()\nm[9000:9002]=b'hi'\nm.close()\nf.close()\n";
    let ran = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(m.guest.join("map"))
        .status()
        .unwrap();
    assert!(ran.success());
    let on_host = fs::read(m.host.join("map")).unwrap();
    assert_eq!((&on_host[5000..5005], &on_host[9000..9002]), (&b"hello"[..], &b"hi"[..]));
}

#[test]
fn ten_thousand_files_are_made_listed_and_read() {
    let Some(m) = Mounted::new() else { return };
    for i in 0..10_000 {
        fs::write(m.guest.join(format!("file-{i}")), i.to_string()).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&m.guest).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(fs::read_dir(&m.host).unwrap().count(), names.len());
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10_000);
    for i in 0..10_000 {
        assert_eq!(read(m.guest.join(format!("file-{i}"))), i.to_string());
    }
    fs::remove_file(m.guest.join("file-77")).unwrap();
    assert_eq!(fs::read_dir(&m.guest).unwrap().count(), 9_999);
}

#[test]
fn a_read_only_share_of_the_same_folder_stays_read_only() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.guest.join("f"), "x").unwrap();
    let only = m.at.join("1");
    assert_eq!(read(only.join("f")), "x");
    let rofs = Some(Errno::ROFS);
    assert_eq!(errno(OpenOptions::new().write(true).open(only.join("f"))), rofs);
    assert_eq!(errno(File::create(only.join("g"))), rofs);
    assert_eq!(errno(fs::create_dir(only.join("d"))), rofs);
    assert_eq!(errno(fs::remove_file(only.join("f"))), rofs);
    assert_eq!(errno(fs::set_permissions(only.join("f"), Permissions::from_mode(0o600))), rofs);
    assert_eq!(errno(std::os::unix::fs::chown(only.join("f"), Some(1), None)), rofs);
    assert_eq!(errno(fs::rename(only.join("f"), only.join("g"))), rofs);
    let set = rustix::fs::setxattr(only.join("f"), "user.x", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
    let linked = fs::hard_link(only.join("f"), m.guest.join("hard"));
    assert_eq!(errno(linked), Some(Errno::XDEV));
    assert_eq!(read(m.host.join("f")), "x");
}

#[test]
fn what_the_host_changes_is_seen_within_a_second() {
    let Some(m) = Mounted::new() else { return };
    fs::write(m.host.join("f"), "before").unwrap();
    assert_eq!(read(m.guest.join("f")), "before");
    assert!(!m.guest.join("new").exists());
    fs::write(m.host.join("f"), "after!").unwrap();
    fs::write(m.host.join("new"), "").unwrap();
    // Same size: contents are checked at once, at open.
    assert_eq!(read(m.guest.join("f")), "after!");
    fs::write(m.host.join("f"), "longer than before").unwrap();
    let open = File::open(m.guest.join("f")).unwrap();
    std::thread::sleep(A_WHILE);
    assert_eq!(read(m.guest.join("f")), "longer than before");
    assert!(m.guest.join("new").exists());
    fs::write(m.host.join("f"), "while open").unwrap();
    std::thread::sleep(A_WHILE);
    let mut text = [0; 32];
    assert_eq!(open.read_at(&mut text, 0).unwrap(), 10);
    assert_eq!(&text[..10], b"while open");
    fs::remove_file(m.host.join("f")).unwrap();
    std::thread::sleep(A_WHILE);
    assert!(!m.guest.join("f").exists());
}

#[test]
fn links_lead_where_they_lead_in_the_guest_and_mounts_below_are_seen() {
    let Some(m) = Mounted::new() else { return };
    std::os::unix::fs::symlink("/etc", m.host.join("etc")).unwrap();
    std::os::unix::fs::symlink("../../../../../..", m.host.join("up")).unwrap();
    // The guest's kernel resolves them, here the host's own; the server only ever tells their text.
    assert_eq!(fs::read_link(m.guest.join("etc")).unwrap(), Path::new("/etc"));
    assert_eq!(m.guest.join("..").metadata().unwrap().ino(), m.at.metadata().unwrap().ino());

    let below = m.root.join("0/mounts");
    for n in ["a", "b"] {
        fs::create_dir_all(below.join(n)).unwrap();
        rustix::mount::mount(n, below.join(n), c"tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        fs::write(below.join(n).join("f"), n).unwrap();
    }
    let inode = |n: &str| m.guest.join("mounts").join(n).join("f").metadata().unwrap().ino();
    let seen: Vec<_> = ["a", "b"].map(|n| read(m.guest.join("mounts").join(n).join("f"))).into();
    let (a, b) = (inode("a"), inode("b"));
    for n in ["a", "b"] {
        rustix::mount::unmount(below.join(n), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    assert_eq!(seen, ["a", "b"]);
    assert_ne!(a, b, "equal numbers of two devices must differ");
}

#[test]
fn holes_ranges_and_copies() {
    let Some(m) = Mounted::new() else { return };
    let file = File::create_new(m.guest.join("f")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(m.host.join("f").metadata().unwrap().len(), 1 << 20);
    file.write_at(&[1; 4096], 1 << 19).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 1 << 19).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert_eq!(data, 1 << 19);
    fs::copy(m.guest.join("f"), m.guest.join("g")).unwrap();
    assert!(fs::read(m.host.join("f")).unwrap() == fs::read(m.host.join("g")).unwrap());
}

#[test]
fn many_at_once() {
    let Some(m) = Mounted::new() else { return };
    let begun = Instant::now();
    std::thread::scope(|s| {
        for t in 0..8 {
            let dir = m.guest.join(t.to_string());
            s.spawn(move || {
                fs::create_dir(&dir).unwrap();
                for i in 0..50u8 {
                    let path = dir.join(i.to_string());
                    let content = vec![i; 100_000 + usize::from(i)];
                    fs::write(&path, &content).unwrap();
                    assert!(fs::read(&path).unwrap() == content);
                    fs::rename(&path, dir.join("last")).unwrap();
                }
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
}
