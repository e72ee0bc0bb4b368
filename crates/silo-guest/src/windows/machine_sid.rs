//! The security identifier of the machine that a container is: the engine's or its own, made once and kept in a file.
//!
//! Windows keeps it at the end of the value `V` of `HKLM\SAM\SAM\Domains\Account`; the machine's accounts have it with a
//! number of their own at its end (Administrator 500, the container's user 1000). It reaches Wine's server as
//! [`VARIABLE`] of init (`base/wine/machine-sid.patch`, `inside/windows/init/src/identity.rs`).

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rustix::rand::{GetRandomFlags, getrandom};
use silo_sys::atomic_file;

use super::oci::io as failed;
use crate::contract::{GuestError, Identity};

/// Of init's environment.
pub(super) const VARIABLE: &str = "SILO_MACHINE_SID";
/// Name of the file.
const FILE: &str = "machine-sid";

/// `S-1-5-21` (an authority's own accounts; MS-DTYP 2.4.2.4) and three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MachineSid([u32; 3]);

/// It is not `S-1-5-21-` and three numbers below 2³².
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoMachineSid;

impl MachineSid {
    fn random() -> io::Result<MachineSid> {
        let mut numbers = [[0; 4]; 3];
        for bytes in &mut numbers {
            // Requests this small are answered whole (getrandom(2)).
            getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        }
        Ok(MachineSid(numbers.map(u32::from_ne_bytes)))
    }
}

impl fmt::Display for MachineSid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, two, three] = self.0;
        write!(f, "S-1-5-21-{one}-{two}-{three}")
    }
}

impl FromStr for MachineSid {
    type Err = NoMachineSid;

    fn from_str(text: &str) -> Result<MachineSid, NoMachineSid> {
        let numbers = text.strip_prefix("S-1-5-21-").ok_or(NoMachineSid)?;
        let mut parts = numbers.split('-').map(|part| part.parse().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(one)), Some(Some(two)), Some(Some(three)), None) => Ok(MachineSid([one, two, three])),
            _ => Err(NoMachineSid),
        }
    }
}

/// A container's. `cache`: the engine's root; `dir`: the container's own directory, with which its own SID goes.
pub(super) fn of(identity: Identity, cache: &Path, dir: &Path) -> Result<MachineSid, GuestError> {
    match identity {
        Identity::Hosts => kept(&cache.join("guest/windows")),
        Identity::Own => kept(&dir.join("guest")),
    }
}

/// That of a directory, made at the first call.
fn kept(directory: &Path) -> Result<MachineSid, GuestError> {
    /// Two containers that are the first ones get the same.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = directory.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim_end().parse().map_err(|NoMachineSid| {
            GuestError::Broken(format!(
                "{} holds no machine SID such as S-1-5-21-1-2-3: remove it, and a new one is made",
                path.display()
            ))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let doing = || format!("making a machine SID in {}", path.display());
            let made = MachineSid::random().map_err(failed(doing()))?;
            fs::create_dir_all(directory)
                .and_then(|()| atomic_file::write(&path, format!("{made}\n").as_bytes()))
                .map_err(failed(doing()))?;
            Ok(made)
        }
        Err(e) => Err(failed(format!("reading {}", path.display()))(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_are_the_same() {
        let text = "S-1-5-21-0-4294967295-1000";
        assert_eq!(text.parse::<MachineSid>(), Ok(MachineSid([0, u32::MAX, 1000])));
        assert_eq!(MachineSid([0, u32::MAX, 1000]).to_string(), text);
        let no = ["", "S-1-5-21-1-2", "S-1-5-21-1-2-3-500", "S-1-5-21-1-2-4294967296", "S-1-5-32-1-2-3"];
        for text in no.into_iter().chain(["S-1-5-21-1-2-", "S-1-5-21-1--3", "S-1-5-21-1-2-3\n"]) {
            assert_eq!(text.parse::<MachineSid>(), Err(NoMachineSid), "{text:?}");
        }
    }

    #[test]
    fn the_engines_is_everywhere_and_a_containers_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let of = |identity, container| of(identity, root.path(), &root.path().join(container)).unwrap();
        let engines = of(Identity::Hosts, "a");
        let (one, other) = (of(Identity::Own, "a"), of(Identity::Own, "b"));
        assert!(engines != one && engines != other && one != other, "{engines} {one} {other}");
        // As after a restart of either.
        assert_eq!((of(Identity::Hosts, "b"), of(Identity::Own, "a")), (engines, one));
        fs::remove_dir_all(root.path().join("a")).unwrap();
        assert_ne!(of(Identity::Own, "a"), one);
        assert_eq!(of(Identity::Hosts, "a"), engines);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("guest")).unwrap();
        let path = dir.path().join("guest").join(FILE);
        fs::write(&path, "S-1-5-21-1\n").unwrap();
        let error = of(Identity::Own, dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "S-1-5-21-1\n");
    }

    #[test]
    fn two_first_containers_get_one() {
        let root = tempfile::tempdir().unwrap();
        let of = || of(Identity::Hosts, root.path(), root.path()).unwrap();
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(of)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(made.iter().all(|sid| *sid == made[0]), "{made:?}");
    }
}
