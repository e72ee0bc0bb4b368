//! `--chown`: names by the target's own `/etc/passwd` and `/etc/group`, or numbers.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use silo_image::layer;

use super::request::CopyError;

/// Longest file of users or groups that is read, bytes.
const LONGEST: u64 = 16 << 20;

/// User and group of `user[:group]`. A user without a group: the group of the same name or number.
pub(super) fn parse(text: &str, roots: &[PathBuf]) -> Result<(u32, u32), CopyError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, text),
    };
    if user.is_empty() || group.is_empty() || group.contains(':') {
        return Err(CopyError::Refused(format!("invalid chown string provided: {text}")));
    }
    let uid = match user.parse() {
        Ok(id) => id,
        Err(_) => named(roots, "etc/passwd", user)?.ok_or_else(|| missing("user", user))?,
    };
    let gid = match group.parse() {
        Ok(id) => id,
        Err(_) => named(roots, "etc/group", group)?.ok_or_else(|| missing("group", group))?,
    };
    Ok((uid, gid))
}

fn missing(what: &str, name: &str) -> CopyError {
    CopyError::Refused(format!(
        "unable to convert uid/gid chown string to host mapping: can't find {}id for {what} {name}: no such {what}: {name}",
        &what[..1]
    ))
}

/// The number in the third field of the row that begins with `name`.
fn named(roots: &[PathBuf], path: &str, name: &str) -> Result<Option<u32>, CopyError> {
    let failed = |e| CopyError::io(format!("reading {path}"))(e);
    let seen = layer::resolve(roots, Path::new(path), false).map_err(failed)?.seen;
    let Some(seen) = seen.filter(|seen| seen.kind() == FileType::RegularFile) else { return Ok(None) };
    let mut text = Vec::new();
    std::fs::File::open(seen.path()).and_then(|f| f.take(LONGEST).read_to_end(&mut text)).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let mut rows = text.lines().map(|row| row.trim().split(':').collect::<Vec<_>>());
    let row = rows.find(|row| row.len() >= 3 && row[0] == name);
    Ok(row.and_then(|row| row[2].parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().to_owned()];
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:7::/:\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\napp:x:2000:\nstaff:x:50:\n").unwrap();
        let check = |text: &str, owner: (u32, u32)| assert_eq!(parse(text, &roots).unwrap(), owner, "{text}");
        check("app", (1000, 2000));
        check("app:staff", (1000, 50));
        check("5", (5, 5));
        check("5:staff", (5, 50));
        check("app:9", (1000, 9));
        let words = |text: &str| parse(text, &roots).unwrap_err().to_string();
        assert!(words("nobody").ends_with("can't find uid for user nobody: no such user: nobody"));
        assert!(words("app:none").ends_with("can't find gid for group none: no such group: none"));
        assert_eq!(words("a:b:c"), "invalid chown string provided: a:b:c");
        assert!(parse("app", &[]).is_err());
    }
}
