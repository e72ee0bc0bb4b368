//! What a container made of its registry.

use std::io;
use std::path::{Path, PathBuf};

use silo_hive::{Hive, Key};

use super::hives::{Hives, PLACES, of_user};
use super::projection::{DEFAULT_USER, SYSTEM, USER};
use super::{RegistryError, chain, hive_error, machine, read_file, text};
use crate::windows::users::Account;

/// A larger registry file is refused.
const LARGEST: u64 = 256 << 20;

/// A registry.
#[derive(Debug, Clone)]
pub(in crate::windows) struct Registry {
    /// The system's hives.
    pub(in crate::windows) hives: Hives,
    /// The user's.
    pub(in crate::windows) user: Hive,
}

/// What a container's registry was when it was made, and what it is.
#[derive(Debug)]
pub(in crate::windows) struct Captured {
    /// By the chain.
    pub(in crate::windows) old: Registry,
    /// Now.
    pub(in crate::windows) new: Registry,
}

/// A changed hive.
#[derive(Debug)]
pub(in crate::windows) struct Changed {
    /// Its name in `Hives` of a layer, and what changed; none for the user's, which is kept whole.
    pub(in crate::windows) delta: Option<&'static str>,
    /// Its file on `C:`, with slashes.
    pub(in crate::windows) file: String,
    /// What changed, or the whole hive.
    pub(in crate::windows) hive: Hive,
}

/// Reads a container's registry. `layers`: the chain, uppermost first; `prefix`: the upper directory of the overlay in which
/// Wine keeps its files, which must be written; `None`: the layers' own.
pub(in crate::windows) fn capture(
    layers: &[PathBuf],
    prefix: Option<&Path>,
    account: Account,
) -> Result<Captured, RegistryError> {
    let old = Registry { hives: chain::hives(layers)?, user: chain::user(layers, &account.profile())? };
    let mut new = old.clone();
    let Some(prefix) = prefix else { return Ok(Captured { old, new }) };
    let (system, default_user) = (read(prefix, SYSTEM)?, read(prefix, DEFAULT_USER)?);
    if system.is_some() || default_user.is_some() {
        let was = old.hives.machine();
        let mut is = system.unwrap_or_else(|| was.clone());
        machine::forget(&was, &mut is);
        reconcile(&was, &mut is);
        let mut default_user = default_user.unwrap_or_else(|| old.hives.default_user().clone());
        reconcile(old.hives.default_user(), &mut default_user);
        new.hives = Hives::of_trees(is, default_user);
        for (old, new) in old.hives.0.iter().zip(&mut new.hives.0) {
            let is_empty = |hive: &Hive| hive.root.values().is_empty() && hive.root.subkeys().is_empty();
            if is_empty(old) && is_empty(new) {
                // Not in Wine's files at all.
                *new = old.clone();
            }
            new.root.name = old.root.name.clone();
        }
    }
    if let Some(mut user) = read(prefix, USER)? {
        machine::forget_users(&old.user.root, &mut user);
        reconcile(&old.user.root, &mut user);
        user.name = old.user.root.name.clone();
        new.user.root = user;
    }
    Ok(Captured { old, new })
}

impl Captured {
    /// The hives that differ. The path of the user's is below `profile`.
    pub(in crate::windows) fn changed(&self, profile: &str) -> Vec<Changed> {
        let mut changed = Vec::new();
        for ((place, old), new) in PLACES.iter().zip(&self.old.hives.0).zip(&self.new.hives.0) {
            if old != new {
                changed.push(Changed {
                    delta: Some(place.delta),
                    file: place.path(),
                    hive: silo_hive::diff(old, new),
                });
            }
        }
        if self.old.user != self.new.user {
            changed.push(Changed { delta: None, file: of_user(profile), hive: self.new.user.clone() });
        }
        changed
    }
}

impl Changed {
    /// The hive's file.
    pub(in crate::windows) fn bytes(&self) -> Result<Vec<u8>, RegistryError> {
        self.hive.to_bytes().map_err(hive_error(Path::new(&self.file)))
    }
}

fn read(prefix: &Path, name: &str) -> Result<Option<Key>, RegistryError> {
    let path = prefix.join(name);
    let bytes = match read_file(&path, LARGEST) {
        Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    text::read(&bytes).map(Some).map_err(|source| RegistryError::Text { path, source })
}

/// Gives the keys that Wine wrote what its files cannot hold: descriptors, and the times of keys that they only imply. A
/// key of which nothing changed is the old one.
fn reconcile(old: &Key, new: &mut Key) {
    let same_subkeys = old.subkeys().len() == new.subkeys().len()
        && old.subkeys().iter().zip(new.subkeys()).all(|(old, new)| old.name == new.name);
    let same =
        same_subkeys && old.values() == new.values() && old.class == new.class && old.is_link == new.is_link;
    new.written = if same { old.written } else { new.written.max(old.written) };
    new.security = old.security.clone();
    let mut olds = old.subkeys().iter().peekable();
    let security = new.security.clone();
    for key in new.subkeys_mut() {
        while olds.next_if(|old| old.name.order(&key.name).is_lt()).is_some() {}
        match olds.next_if(|old| old.name.order(&key.name).is_eq()) {
            Some(old) => reconcile(old, key),
            None => inherit(key, &security),
        }
    }
}

/// A new key has its parent's descriptor; one that is only implied the time of what is in it.
fn inherit(key: &mut Key, security: &bytes::Bytes) {
    key.security = security.clone();
    for subkey in key.subkeys_mut() {
        inherit(subkey, security);
    }
    if key.written == 0 {
        key.written = key.subkeys().iter().map(|key| key.written).max().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use silo_hive::Value;
    use std::fs;

    fn base() -> Hives {
        let mut machine = Key::new("Machine");
        let mut software = Key::new("Software");
        software.written = 5;
        for (name, time) in [("A", 7), ("B", 9)] {
            let mut key = Key::new(name);
            key.written = time;
            key.security = vec![1, 0, 4, 0x80, time as u8].into();
            key.insert_value(Value::dword("v", 1)).unwrap();
            let mut below = Key::new("Below");
            below.written = 3;
            key.insert_subkey(below).unwrap();
            software.insert_subkey(key).unwrap();
        }
        machine.insert_subkey(software).unwrap();
        Hives::of_trees(machine, Key::new("x"))
    }

    /// A base on disk, and what Wine would leave of its registry after `change`.
    fn after(change: impl FnOnce(&mut Key)) -> Captured {
        let dir = tempfile::tempdir().unwrap();
        let (layer, prefix) = (dir.path().join("layer"), dir.path().join("prefix"));
        fs::create_dir_all(layer.join("Files/Windows/System32/config")).unwrap();
        fs::create_dir_all(&prefix).unwrap();
        let hives = base();
        for (place, hive) in PLACES.iter().zip(&hives.0) {
            fs::write(layer.join("Files").join(place.path()), hive.to_bytes().unwrap()).unwrap();
        }
        let mut machine = hives.machine();
        change(&mut machine);
        fs::write(prefix.join(SYSTEM), text::write(&machine, "x")).unwrap();
        capture(&[layer], Some(&prefix), Account::Administrator).unwrap()
    }

    #[test]
    fn nothing_done_is_nothing_changed() {
        let captured = after(|machine| {
            // What is only implied in Wine's files has no time there.
            machine.subkey_mut("Software").unwrap().written = 0;
            machine.subkey_mut("Software").unwrap().subkey_mut("A").unwrap().written = 0;
        });
        assert!(captured.changed("Users/x").is_empty(), "{:?}", captured.changed("Users/x"));
    }

    #[test]
    fn a_change_is_a_delta_of_just_that() {
        let captured = after(|machine| {
            let software = machine.subkey_mut("Software").unwrap();
            software.remove_subkey("B");
            let a = software.subkey_mut("A").unwrap();
            a.written = 50;
            a.insert_value(Value::string("w", "x")).unwrap();
            a.insert_subkey(Key::new("New")).unwrap();
        });
        let changed = captured.changed("Users/x");
        assert_eq!(changed.len(), 1);
        assert_eq!(
            (changed[0].delta, changed[0].file.as_str()),
            (Some("Software_Delta"), "Windows/System32/config/SOFTWARE")
        );
        let text = silo_hive::to_reg(&changed[0].hive, "S").unwrap().replace("\r\n", "\n");
        let wanted = "\n[S]\n\n[S\\A]\n\"w\"=\"x\"\n\n[-S\\A\\New]\n\n[S\\A\\New]\n\n[-S\\B]\n";
        assert!(text.ends_with(wanted), "{text}");
        // A new key has its parent's descriptor, an old one keeps its own.
        let new = captured.new.hives.0[3].root.at_path("A").unwrap();
        assert_eq!(new.security[4], 7);
        assert_eq!(new.subkey("New").unwrap().security[4], 7);
        let merged =
            silo_hive::merge(captured.old.hives.0[3].clone(), changed.into_iter().next().unwrap().hive);
        assert_eq!(merged, captured.new.hives.0[3]);
    }

    #[test]
    fn a_file_that_a_program_spoilt_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SYSTEM), "WINE REGISTRY Version 2\n[x\n").unwrap();
        let captured =
            || capture(&[dir.path().join("none")], Some(dir.path()), Account::User).unwrap_err().to_string();
        assert!(captured().contains("system.reg: line 2"), "{}", captured());
        fs::remove_file(dir.path().join(SYSTEM)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(SYSTEM)).unwrap();
        assert!(captured().contains("system.reg"), "{}", captured());
    }
}
