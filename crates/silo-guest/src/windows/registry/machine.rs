//! What each start writes into the registry by itself: of this machine and this boot, no change of the container's.

use silo_hive::Key;

/// Values below `HKEY_LOCAL_MACHINE`; without a name, the key with all below it.
const OWN: &[(&str, &[&str])] = &[
    (r"System\ControlSet001\Control\ComputerName", &[]),
    (r"System\ControlSet001\Services\Tcpip\Parameters", &["Hostname", "NV Hostname", "Domain", "NV Domain"]),
    (
        r"System\ControlSet001\Control\Session Manager\Environment",
        &[
            "NUMBER_OF_PROCESSORS",
            "PROCESSOR_ARCHITECTURE",
            "PROCESSOR_IDENTIFIER",
            "PROCESSOR_LEVEL",
            "PROCESSOR_REVISION",
        ],
    ),
    // The machine's SID.
    (r"SAM\SAM\Domains\Account", &["V"]),
];

/// The same of a user's.
const USERS_OWN: &[(&str, &[&str])] = &[("Volatile Environment", &[])];

/// Makes of `new` below `HKEY_LOCAL_MACHINE` what it would be if no start had written to it.
pub(super) fn forget(old: &Key, new: &mut Key) {
    forget_all(OWN, old, new);
}

/// As [`forget`], of a user's registry.
pub(super) fn forget_users(old: &Key, new: &mut Key) {
    forget_all(USERS_OWN, old, new);
}

fn forget_all(own: &[(&str, &[&str])], old: &Key, new: &mut Key) {
    for (path, values) in own {
        let was = old.at_path(path);
        if values.is_empty() {
            let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
            if let Some(parent) = at_path_mut(new, parent) {
                parent.remove_subkey(name);
                // It was there, so its name can be.
                let _ = was.map(|was| parent.insert_subkey(was.clone()));
            }
        } else if let Some(key) = at_path_mut(new, path) {
            for name in *values {
                key.remove_value(name);
                let value = was.and_then(|was| was.value(name));
                let _ = value.map(|value| key.insert_value(value.clone()));
            }
            remove_empty(old, new, path);
        }
    }
}

/// Removes the keys of a path that hold nothing, from its end, as far as they are new.
fn remove_empty(old: &Key, new: &mut Key, path: &str) {
    let mut path = path;
    while old.at_path(path).is_none()
        && new.at_path(path).is_some_and(|key| key.values().is_empty() && key.subkeys().is_empty())
    {
        let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
        at_path_mut(new, parent).map(|parent| parent.remove_subkey(name));
        path = parent;
    }
}

fn at_path_mut<'a>(key: &'a mut Key, path: &str) -> Option<&'a mut Key> {
    path.split('\\').filter(|name| !name.is_empty()).try_fold(key, |key, name| key.subkey_mut(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use silo_hive::{Value, kind};

    fn machine(path: &str, values: &[&str]) -> Key {
        let mut root = Key::new("Machine");
        let key = path.split('\\').try_fold(&mut root, |key, name| key.subkey_or_new(name.into())).unwrap();
        for name in values {
            key.insert_value(Value::new(*name, kind::BINARY, vec![1])).unwrap();
        }
        root
    }

    #[test]
    fn the_machines_sid_is_no_change() {
        let account = r"SAM\SAM\Domains\Account";
        let nothing = Key::new("Machine");
        let mut new = machine(account, &["V"]);
        forget(&nothing, &mut new);
        assert_eq!(new, nothing);
        // What a program made beside it is one.
        let mut new = machine(account, &["F", "V"]);
        forget(&nothing, &mut new);
        assert_eq!(new, machine(account, &["F"]));
        // An image's own stays as it was there.
        let old = machine(account, &["V"]);
        let mut new = machine(account, &[]);
        forget(&old, &mut new);
        assert_eq!(new, old);
    }
}
