//! A guest that keeps to no protocol.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use silo_sandbox::hyperv::share::serve;

const OK: i32 = 0;

/// A guest without a kernel.
struct Raw {
    socket: UnixStream,
    server: Option<std::thread::JoinHandle<io::Result<()>>>,
    unique: u64,
}

impl Raw {
    fn new(root: &Path) -> Raw {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let root = root.to_path_buf();
        let server = std::thread::spawn(move || serve(OwnedFd::from(theirs), &root));
        Raw { socket: ours, server: Some(server), unique: 0 }
    }

    fn met(root: &Path) -> Raw {
        let mut raw = Raw::new(root);
        assert_eq!(raw.init().0, OK);
        raw
    }

    fn init(&mut self) -> (i32, Vec<u8>) {
        self.ask(26, 0, &words(&[7, 38, 1 << 17, u32::MAX, 0, 0]))
    }

    fn tell(&mut self, opcode: u32, node: u64, body: &[u8]) -> io::Result<()> {
        self.unique += 2;
        let mut message = words(&[40 + body.len() as u32, opcode]);
        message.extend(self.unique.to_ne_bytes());
        message.extend(node.to_ne_bytes());
        message.extend(words(&[0, 0, 1, 0]));
        message.extend(body);
        self.socket.write_all(&message)
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        self.tell(opcode, node, body).unwrap();
        let mut head = [0; 16];
        self.socket.read_exact(&mut head).unwrap();
        let len = u32::from_ne_bytes(head[..4].try_into().unwrap()) as usize;
        assert_eq!(head[8..], self.unique.to_ne_bytes());
        let mut rest = vec![0; len - 16];
        self.socket.read_exact(&mut rest).unwrap();
        (i32::from_ne_bytes(head[4..8].try_into().unwrap()), rest)
    }

    fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        match self.ask(1, parent, &text(name)) {
            (OK, entry) => Ok(u64::from_ne_bytes(entry[..8].try_into().unwrap())),
            (e, _) => Err(-e),
        }
    }

    /// What the server said at its end.
    fn end(mut self) -> io::Result<()> {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = (&self.socket).take(1 << 26).read_to_end(&mut rest);
        self.server.take().unwrap().join().expect("the server does not panic")
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), b"\0"].concat()
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("0")).unwrap();
    std::fs::write(dir.path().join("0/f"), "contents").unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("0/etc")).unwrap();
    dir
}

#[test]
fn names_lead_nowhere_else() {
    if !root() {
        return;
    }
    let dir = tree();
    let mut raw = Raw::met(dir.path());
    for name in ["..", ".", "", "0/f", "/", "/etc/passwd", "../x"] {
        assert_eq!(raw.look_up(1, name), Err(libc::EINVAL), "{name}");
    }
    let zero = raw.look_up(1, "0").unwrap();
    let etc = raw.look_up(zero, "etc").unwrap();
    assert_eq!(raw.look_up(etc, "passwd"), Err(libc::ENOTDIR));
    // The link itself can be neither opened nor listed.
    assert_eq!(raw.ask(14, etc, &words(&[0, 0])).0, -libc::ELOOP);
    assert_eq!(raw.ask(27, etc, &words(&[0, 0])).0, -libc::ENOTDIR);
    // CREATE of a name that is a link.
    let create = [words(&[libc::O_RDWR as u32, 0o644, 0, 0]), text("etc")].concat();
    assert_eq!(raw.ask(35, zero, &create).0, -libc::ELOOP);
    raw.end().unwrap();
}

#[test]
fn special_files_of_the_host_are_not_opened() {
    if !root() {
        return;
    }
    let dir = tree();
    let at = |n: &str| dir.path().join("0").join(n);
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let made = mknodat(CWD, at("zero"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5));
    let mut raw = Raw::met(dir.path());
    let zero = raw.look_up(1, "0").unwrap();
    for name in ["pipe", "zero"].into_iter().take(if made.is_ok() { 2 } else { 1 }) {
        let node = raw.look_up(zero, name).unwrap();
        assert_eq!(raw.ask(14, node, &words(&[0, 0])).0, -libc::ENXIO, "{name}");
        let create = [words(&[libc::O_RDWR as u32, 0o644, 0, 0]), text(name)].concat();
        assert_eq!(raw.ask(35, zero, &create).0, -libc::ENXIO, "{name}");
    }
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let mknod = [words(&[kind | 0o666, 0x103, 0, 0]), text("made")].concat();
        assert_eq!(raw.ask(8, zero, &mknod).0, -libc::EPERM);
    }
    raw.end().unwrap();
}

#[test]
fn handles_and_nodes_the_guest_does_not_have_are_refused() {
    if !root() {
        return;
    }
    let dir = tree();
    let mut raw = Raw::new(dir.path());
    assert_eq!(raw.look_up(1, "0"), Err(libc::EPROTO), "before the introduction");
    assert_eq!(raw.init().0, OK);
    assert_eq!(raw.init().0, -libc::EPROTO, "twice");
    assert_eq!(raw.look_up(99, "0"), Err(libc::ESTALE));
    let read = [99u64.to_ne_bytes().to_vec(), vec![0; 32]].concat();
    assert_eq!(raw.ask(15, 1, &read).0, -libc::EBADF);
    let zero = raw.look_up(1, "0").unwrap();
    // chown to -1: no id, and what a library here would panic at.
    let setattr = words(&[&[2, 0][..], &[0; 17], &[u32::MAX, 0, 0]].concat());
    assert_eq!((setattr.len(), raw.ask(4, zero, &setattr).0), (88, -libc::EINVAL));
    raw.tell(2, zero, &u64::MAX.to_ne_bytes()).unwrap();
    raw.tell(2, 1, &u64::MAX.to_ne_bytes()).unwrap();
    // A forget has no reply: the next request may overtake it.
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while raw.look_up(zero, "f") != Err(libc::ESTALE) {
        assert!(std::time::Instant::now() < until);
    }
    assert!(raw.look_up(1, "0").is_ok(), "the root is not forgotten");
    raw.end().unwrap();
}

#[test]
fn open_files_are_counted() {
    if !root() {
        return;
    }
    let dir = tree();
    let mut raw = Raw::met(dir.path());
    let zero = raw.look_up(1, "0").unwrap();
    let f = raw.look_up(zero, "f").unwrap();
    let opened = (0..70_000).find(|_| raw.ask(14, f, &words(&[0, 0])).0 != OK);
    assert!(opened.is_some_and(|n| n <= 65_536), "{opened:?}");
    raw.end().unwrap();
}

#[test]
fn a_broken_frame_ends_the_server_with_an_error() {
    if !root() {
        return;
    }
    let dir = tree();
    for garbage in [vec![0; 64], vec![0xff; 64], words(&[39; 16]), words(&[(1 << 20) + 4097; 16])] {
        let mut raw = Raw::met(dir.path());
        raw.socket.write_all(&garbage).unwrap();
        assert_eq!(raw.end().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    let mut raw = Raw::met(dir.path());
    raw.socket.write_all(&words(&[100, 1, 0, 0])).unwrap();
    assert_eq!(raw.end().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    // A guest that asks much and reads nothing, then breaks the frame.
    let mut raw = Raw::met(dir.path());
    raw.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while raw.tell(17, 1, &[]).is_ok() {}
    let _ = raw.socket.shutdown(std::net::Shutdown::Both);
    let _ = raw.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every request gets one reply of its own whatever is in it, and nothing appears beside the root.
    #[test]
    fn well_framed_nonsense_is_answered(
        requests in prop::collection::vec(
            (0u32..60, 0u64..6, prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                prop::collection::vec(prop_oneof![Just(0u32), Just(1), Just(2), Just(4096), Just(u32::MAX), any::<u32>()], 0..30)
                    .prop_map(|v| words(&v)),
                (prop::collection::vec(prop_oneof![Just(0u32), Just(0o100644), any::<u32>()], 0..6), "[a-f./]{0,6}", "[a-f./]{0,6}")
                    .prop_map(|(v, a, b)| [words(&v), text(&a), text(&b)].concat()),
            ]),
            1..60,
        )
    ) {
        if !root() {
            return Ok(());
        }
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("root");
        std::fs::create_dir_all(inner.join("0")).unwrap();
        std::fs::write(inner.join("0/f"), "contents").unwrap();
        let mut raw = Raw::met(&inner);
        let zero = raw.look_up(1, "0").unwrap();
        let _ = raw.look_up(zero, "f");
        for (opcode, node, body) in requests {
            // No reply belongs to those; a file of many terabytes is not what is tested.
            if matches!(opcode, 2 | 42) {
                raw.tell(opcode, node, &body).unwrap();
            } else if opcode != 43 {
                raw.ask(opcode, node, &body);
            }
        }
        prop_assert!(raw.end().is_ok());
        prop_assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    /// Bytes without any order end it, by an error or for want of more.
    #[test]
    fn unframed_nonsense_ends_it(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        if !root() {
            return Ok(());
        }
        let dir = tree();
        let mut raw = Raw::met(dir.path());
        let _ = raw.socket.write_all(&bytes);
        prop_assert_eq!(raw.end().is_ok(), bytes.is_empty());
    }
}
