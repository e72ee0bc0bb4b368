//! Users and groups of a Linux container: `--user` against the image's own `/etc/passwd` and `/etc/group`.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::contract::GuestError;

/// Longest passwd or group file that is read.
const LIMIT: u64 = 16 << 20;

/// Users and groups.
pub(super) const FILES: &[&str] = &[PASSWD, GROUP];
const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// Where the container's files can be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Files<'a> {
    /// Not mounted: its layers, uppermost first (the writable top among them).
    Layers(&'a [PathBuf]),
    /// Running: its root.
    Root(&'a Path),
}

/// Numbers to run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl Files<'_> {
    fn read(self, path: &str) -> String {
        match self {
            Files::Root(root) => read_below(root, path).unwrap_or_default(),
            Files::Layers(layers) => {
                for layer in layers {
                    let dir = layer.join(Path::new(path).parent().unwrap_or(Path::new("")));
                    if let Ok(stat) = rustix::fs::lstat(layer.join(path)) {
                        let whiteout = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
                        return if whiteout {
                            String::new()
                        } else {
                            read_below(layer, path).unwrap_or_default()
                        };
                    }
                    let mut value = [0u8; 1];
                    if matches!(rustix::fs::lgetxattr(&dir, "trusted.overlay.opaque", &mut value), Ok(1)) {
                        break;
                    }
                }
                String::new()
            }
        }
    }
}

fn read_below(root: &Path, path: &str) -> std::io::Result<String> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Non-blocking: a hostile image may have a pipe there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fd = silo_sys::beneath::open_in_root(&root, Path::new(path), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Rows of a colon-separated file with at least `n` fields.
fn rows(text: &str, n: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|l| l.trim_end().split(':').collect::<Vec<_>>()).filter(move |f| f.len() >= n)
}

/// Resolves `user[:group]` and further groups, in dockerd's words when a name is unknown.
pub(super) fn resolve(user: &str, additional: &[String], files: Files<'_>) -> Result<Ids, GuestError> {
    let (user, group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let passwd = files.read(PASSWD);
    let groups = files.read(GROUP);
    let mut ids = Ids::default();
    let user = if user.is_empty() { "0" } else { user };
    let entry = rows(&passwd, 4).find(|f| f[0] == user || f[2] == user);
    let name = match (&entry, user.parse::<u32>()) {
        (Some(fields), _) => {
            let number = |i: usize| {
                fields[i]
                    .parse::<u32>()
                    .map_err(|_| GuestError::Invalid(format!("/etc/passwd: {} is not a number", fields[i])))
            };
            ids.uid = number(2)?;
            ids.gid = number(3)?;
            fields[0]
        }
        (None, Ok(uid)) if uid <= i32::MAX as u32 => {
            ids.uid = uid;
            ""
        }
        (None, Ok(_)) => {
            return Err(GuestError::Invalid("uids and gids must be in range 0-2147483647".to_owned()));
        }
        (None, Err(_)) => {
            return Err(GuestError::NotFound(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let find_group = |wanted: &str| -> Result<u32, GuestError> {
        let row = rows(&groups, 3).find(|f| f[0] == wanted || f[2] == wanted);
        match row.map_or_else(|| wanted.parse::<u32>(), |f| f[2].parse::<u32>()) {
            Ok(gid) => Ok(gid),
            Err(_) => Err(GuestError::NotFound(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))),
        }
    };
    match group {
        Some(group) => ids.gid = find_group(group)?,
        None => {
            ids.groups = rows(&groups, 4)
                .filter(|f| !name.is_empty() && f[3].split(',').any(|m| m == name))
                .filter_map(|f| f[2].parse().ok())
                .collect();
        }
    }
    for group in additional {
        ids.groups.push(find_group(group)?);
    }
    if !ids.groups.contains(&ids.gid) {
        ids.groups.insert(0, ids.gid);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:bob,eve\n")
            .unwrap();
        let layers = [dir.path().to_owned()];
        for files in [Files::Layers(&layers), Files::Root(dir.path())] {
            match (resolve(user, &[], files), expected) {
                (Ok(ids), Ok((uid, gid, groups))) => {
                    assert_eq!((ids.uid, ids.gid, ids.groups.as_slice()), (uid, gid, groups), "{user}");
                }
                (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{e}"),
                (got, _) => panic!("{user}: {got:?}"),
            }
        }
    }

    #[test]
    fn names_numbers_and_groups() {
        check("", Ok((0, 0, &[0])));
        check("bob", Ok((1000, 100, &[100, 10])));
        check("1000", Ok((1000, 100, &[100, 10])));
        check("1001", Ok((1001, 0, &[0])));
        check("bob:wheel", Ok((1000, 10, &[10])));
        check("7:8", Ok((7, 8, &[8])));
        check("eve", Err("unable to find user eve: no matching entries in passwd file"));
        check("bob:nobody", Err("unable to find group nobody"));
        check("4294967295", Err("0-2147483647"));
    }
}
