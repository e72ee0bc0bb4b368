//! The hives of a system and their places: in a base, in a layer, in the registry.

use silo_hive::{Hive, Key, Name, Value, kind};

/// A hive's places.
#[derive(Debug)]
pub(in crate::windows) struct Place {
    /// In `Hives` of a layer.
    pub(in crate::windows) delta: &'static str,
    /// In `Windows\System32\config` of a base.
    file: &'static str,
    /// Below `HKEY_LOCAL_MACHINE`; empty for `HKEY_USERS\.DEFAULT`.
    pub(super) key: &'static str,
}

impl Place {
    /// Its file on the `C:` of a base, with slashes.
    pub(in crate::windows) fn path(&self) -> String {
        format!("Windows/System32/config/{}", self.file)
    }

    /// As users know it.
    pub(in crate::windows) fn shown(&self) -> String {
        match self.key {
            "" => "HKU\\.DEFAULT".to_owned(),
            key => format!("HKLM\\{}", key.to_uppercase()),
        }
    }
}

/// All there are.
pub(in crate::windows) const PLACES: [Place; 5] = [
    Place { delta: "DefaultUser_Delta", file: "DEFAULT", key: "" },
    Place { delta: "Sam_Delta", file: "SAM", key: "SAM" },
    Place { delta: "Security_Delta", file: "SECURITY", key: "Security" },
    Place { delta: "Software_Delta", file: "SOFTWARE", key: "Software" },
    Place { delta: "System_Delta", file: "SYSTEM", key: SYSTEM },
];

/// The file of a user's hive, whole, below `profile` on `C:`.
pub(in crate::windows) fn of_user(profile: &str) -> String {
    format!("{profile}/NTUSER.DAT")
}

/// Not in any hive: a link that Windows makes at each boot to the control set in use.
const CONTROL_SET: &str = "CurrentControlSet";
/// A link's target.
const LINK_VALUE: &str = "SymbolicLinkValue";
/// The hive of the control sets.
const SYSTEM: &str = "System";

/// A system's hives, in the order of [`PLACES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::windows) struct Hives(pub(in crate::windows) [Hive; 5]);

impl Hives {
    /// Out of the trees of `HKEY_LOCAL_MACHINE` and `HKEY_USERS\.DEFAULT`. What else the first holds is in no hive.
    pub(in crate::windows) fn of_trees(mut machine: Key, default_user: Key) -> Self {
        let mut default_user = Some(default_user);
        Self(PLACES.each_ref().map(|place| {
            let taken = match place.key {
                "" => default_user.take(),
                key => machine.remove_subkey(key),
            };
            let mut hive = Hive::default();
            if let Some(mut root) = taken {
                root.name = hive.root.name;
                root.remove_subkey(CONTROL_SET);
                hive.root = root;
            }
            hive
        }))
    }

    /// The tree of `HKEY_LOCAL_MACHINE`, ready for a boot.
    pub(in crate::windows) fn machine(&self) -> Key {
        let mut machine = Key::new("Machine");
        for (place, hive) in PLACES.iter().zip(&self.0).filter(|(place, _)| !place.key.is_empty()) {
            let mut key = hive.root.clone();
            let system = place.key == SYSTEM;
            // An empty hive is as good as none; Wine makes its keys when they are asked for.
            if key.values().is_empty() && key.subkeys().is_empty() && !system {
                continue;
            }
            key.name = Name::from(place.key);
            if system {
                put(&mut key, control_set(&hive.root));
            }
            put(&mut machine, key);
        }
        machine
    }

    /// Shows the link to the control set in use, which is in no hive, or hides it again.
    pub(super) fn show_control_set(&mut self, shown: bool) {
        for (_, hive) in PLACES.iter().zip(&mut self.0).filter(|(place, _)| place.key == SYSTEM) {
            match shown {
                true => {
                    let link = control_set(&hive.root);
                    put(&mut hive.root, link);
                }
                false => drop(hive.root.remove_subkey(CONTROL_SET)),
            }
        }
    }

    /// The tree of `HKEY_USERS\.DEFAULT`.
    pub(in crate::windows) fn default_user(&self) -> &Key {
        &self.0[0].root
    }
}

/// These names are constants, or come from a hive: they can stand in one.
fn put(key: &mut Key, below: Key) {
    let _ = key.insert_subkey(below);
}

/// The link to the control set that `Select` names.
fn control_set(system: &Key) -> Key {
    let current = system.at_path("Select").and_then(|key| key.value("Current"));
    let number = match current.map(|value| (value.kind, <[u8; 4]>::try_from(&value.data[..]))) {
        Some((kind::DWORD, Ok(bytes))) => u32::from_le_bytes(bytes).clamp(1, 999),
        _ => 1,
    };
    let target = format!("\\Registry\\Machine\\System\\ControlSet{number:03}");
    let mut key = Key::new(CONTROL_SET);
    key.is_link = true;
    let data: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // A short name: it can stand in a hive.
    let _ = key.insert_value(Value::new(LINK_VALUE, kind::LINK, data));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_and_hives_are_the_same() {
        let mut machine = Key::new("Machine");
        for name in ["System", "Software", "Hardware"] {
            let mut key = Key::new(name);
            key.insert_subkey(Key::new("Sub")).unwrap();
            machine.insert_subkey(key).unwrap();
        }
        let mut user = Key::new("x");
        user.insert_value(Value::dword("v", 1)).unwrap();
        let hives = Hives::of_trees(machine, user);
        let shown = hives.machine();
        assert!(shown.at_path("Software\\Sub").is_some() && shown.at_path("Hardware").is_none());
        let link = shown.at_path("System\\CurrentControlSet").unwrap();
        assert!(link.is_link && link.value(LINK_VALUE).unwrap().data.len() == 2 * 38);
        assert_eq!(Hives::of_trees(shown, hives.default_user().clone()), hives);
    }
}
