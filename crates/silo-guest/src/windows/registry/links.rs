//! A layer's delta hives over a registry in which Wine has links where Windows has keys: what they say of a link is said
//! of its target, in whichever hive that is.

use silo_hive::{Hive, HiveError, Key, Linked, merge, say_at, take_linked};

use super::hives::{Hives, PLACES};

/// Links that one path may lead through, as in Wine (`server/registry.c`).
const HOPS: usize = 16;

/// Why what a delta hive says of a link cannot be said of its target.
#[derive(Debug, thiserror::Error)]
#[error("the key {path} is a link in the layers below: {problem}")]
pub struct LinkError {
    /// As users know it.
    path: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("it leads through more than {HOPS} links")]
    Loop,
    #[error("it has no target")]
    NoTarget,
    #[error("{0} is in no hive")]
    Elsewhere(String),
    #[error("{0}")]
    Hive(HiveError),
}

/// Lays a layer's delta hives (in the order of [`PLACES`]) over the hives of the layers below it.
pub(super) fn lay(hives: &mut Hives, mut deltas: [Option<Hive>; PLACES.len()]) -> Result<(), LinkError> {
    if deltas.iter().all(Option::is_none) {
        return Ok(());
    }
    hives.show_control_set(true);
    for (n, place) in PLACES.iter().enumerate() {
        // A plain hive stands for all below it, the links among that.
        let Some(delta) = deltas[n].as_mut().filter(|delta| delta.layered) else { continue };
        for linked in take_linked(&hives.0[n].root, &mut delta.root) {
            say(hives, &mut deltas, linked, &place.shown(), 0)?;
        }
    }
    for (hive, delta) in hives.0.iter_mut().zip(deltas) {
        if let Some(delta) = delta {
            *hive = merge(std::mem::take(hive), delta);
        }
    }
    hives.show_control_set(false);
    Ok(())
}

/// Says what is said of a link of its target. `from`: the key below which the link's path is; `hops`: links on the way there.
fn say(
    hives: &Hives,
    deltas: &mut [Option<Hive>; PLACES.len()],
    linked: Linked,
    from: &str,
    mut hops: usize,
) -> Result<(), LinkError> {
    let shown = linked.path.iter().fold(from.to_owned(), |path, name| format!("{path}\\{name}"));
    let failed = |problem| LinkError { path: shown.clone(), problem };
    let target = linked.target.ok_or_else(|| failed(Problem::NoTarget))?;
    let (n, path) = resolve(hives, target, &mut hops).map_err(failed)?;
    let lower = &hives.0[n].root;
    let mut key = linked.key;
    if let Some(below) = lower.at_path(&path) {
        for linked in take_linked(below, &mut key) {
            say(hives, deltas, linked, &shown, hops)?;
        }
    }
    let delta = deltas[n].get_or_insert_with(|| silo_hive::diff(&hives.0[n], &hives.0[n]));
    say_at(lower, delta, &path, key).map_err(|error| failed(Problem::Hive(error)))
}

/// The hive of a key and its path there, led through by no link.
fn resolve(hives: &Hives, mut target: String, hops: &mut usize) -> Result<(usize, String), Problem> {
    loop {
        *hops += 1;
        if *hops > HOPS {
            return Err(Problem::Loop);
        }
        let Some((n, path)) = place(&target) else { return Err(Problem::Elsewhere(target)) };
        match link_on(&hives.0[n].root, path) {
            None => return Ok((n, path.to_owned())),
            Some((link, rest)) => {
                target = link.link_target().map(|link| format!("{link}\\{rest}")).ok_or(Problem::NoTarget)?;
            }
        }
    }
}

/// The hive of a full path, by its number in [`PLACES`], and the path there.
fn place(target: &str) -> Option<(usize, &str)> {
    PLACES.iter().enumerate().find_map(|(n, place)| {
        let root = match place.key {
            "" => r"\Registry\User\.Default".to_owned(),
            key => format!(r"\Registry\Machine\{key}"),
        };
        let (head, path) = target.split_at_checked(root.len())?;
        let ends = path.is_empty() || path.starts_with('\\');
        (head.eq_ignore_ascii_case(&root) && ends).then(|| (n, path.trim_matches('\\')))
    })
}

/// The first link on a path, and what is below it.
fn link_on<'a, 'b>(root: &'a Key, path: &'b str) -> Option<(&'a Key, &'b str)> {
    let (mut key, mut rest) = (root, path);
    while !rest.is_empty() {
        let (name, below) = rest.split_once('\\').unwrap_or((rest, ""));
        rest = below.trim_start_matches('\\');
        if !name.is_empty() {
            key = key.subkey(name)?;
        }
        if key.is_link {
            return Some((key, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use silo_hive::{Semantics, Value, kind};

    use super::*;

    const SOFTWARE: usize = 3;
    const SYSTEM: usize = 4;

    /// The key at a path, made with all on the way.
    fn at<'a>(root: &'a mut Key, path: &str) -> &'a mut Key {
        path.split('\\').fold(root, |key, name| key.subkey_or_new(name.into()).unwrap())
    }

    fn link(root: &mut Key, path: &str, to: &str) {
        let key = at(root, path);
        key.is_link = true;
        let data: Vec<u8> = to.encode_utf16().flat_map(u16::to_le_bytes).collect();
        key.insert_value(Value::new("SymbolicLinkValue", kind::LINK, data)).unwrap();
    }

    /// Links as Wine has them, one into another hive, two in a circle and two that lead nowhere.
    fn lower() -> Hives {
        let mut hives = Hives::default();
        let software = &mut hives.0[SOFTWARE].root;
        at(software, r"Classes\CLSID\one");
        link(software, r"Wow6432Node\Classes", r"\Registry\Machine\SOFTWARE\Classes\Wow6432Node");
        link(software, r"Classes\Wow6432Node\CLSID", r"\REGISTRY\Machine\Software\Classes\CLSID");
        link(software, r"Cross", r"\Registry\Machine\System\CurrentControlSet\Services");
        link(software, r"Round\A", r"\Registry\Machine\Software\Round\B");
        link(software, r"Round\B", r"\Registry\Machine\Software\Round\A\More");
        link(software, "Volatile", r"\Registry\Machine\Hardware");
        at(software, "Void").is_link = true;
        let system = &mut hives.0[SYSTEM].root;
        at(system, "Select").insert_value(Value::dword("Current", 2)).unwrap();
        at(system, r"ControlSet002\Services\Old");
        hives
    }

    /// `lower` with a delta hive over it that sets a value at each of `paths`.
    fn laid(n: usize, paths: &[&str]) -> Result<Hives, LinkError> {
        let mut delta = Hive { layered: true, ..Hive::default() };
        for path in paths {
            at(&mut delta.root, path).insert_value(Value::dword("v", 1)).unwrap();
        }
        let (mut hives, mut deltas) = (lower(), [const { None }; PLACES.len()]);
        deltas[n] = Some(delta);
        lay(&mut hives, deltas).map(|()| hives)
    }

    #[test]
    fn what_is_said_of_a_link_is_said_of_its_target() {
        for (n, path, hive, target) in [
            (SOFTWARE, r"Wow6432Node\Classes", SOFTWARE, r"Classes\Wow6432Node"),
            (SOFTWARE, r"Wow6432Node\Classes\x\y", SOFTWARE, r"Classes\Wow6432Node\x\y"),
            (SOFTWARE, r"wow6432node\classes\clsid\two", SOFTWARE, r"Classes\CLSID\two"),
            (SOFTWARE, r"Cross\New", SYSTEM, r"ControlSet002\Services\New"),
            (SOFTWARE, r"Cross", SYSTEM, r"ControlSet002\Services"),
            (SYSTEM, r"CurrentControlSet\Services\New", SYSTEM, r"ControlSet002\Services\New"),
        ] {
            let hives = laid(n, &[path, "Other"]).unwrap();
            let key = hives.0[hive].root.at_path(target).unwrap_or_else(|| panic!("{path}: {hives:?}"));
            assert!(key.value("v").is_some(), "{path}");
            assert!(key.name.to_string() == target.rsplit('\\').next().unwrap(), "{path}: {}", key.name);
            assert!(hives.0[n].root.at_path("Other").is_some(), "{path}");
            let software = &hives.0[SOFTWARE].root;
            assert!(software.at_path(r"Classes\CLSID\one").is_some(), "{path}");
            for link in [r"Wow6432Node\Classes", r"Classes\Wow6432Node\CLSID", "Cross"] {
                let link = software.at_path(link).unwrap();
                assert!(link.is_link && link.subkeys().is_empty() && link.values().len() == 1, "{path}");
            }
            let system = &hives.0[SYSTEM].root;
            assert!(system.subkey("CurrentControlSet").is_none(), "{path}");
            assert!(system.at_path(r"ControlSet002\Services\Old").is_some(), "{path}");
        }
    }

    #[test]
    fn a_link_taken_away_is_gone_and_its_target_is_not() {
        let mut delta = Hive { layered: true, ..Hive::default() };
        at(&mut delta.root, r"Wow6432Node\Classes").layering.semantics = Semantics::Tombstone;
        let (mut hives, mut deltas) = (lower(), [const { None }; PLACES.len()]);
        deltas[SOFTWARE] = Some(delta);
        lay(&mut hives, deltas).unwrap();
        let software = &hives.0[SOFTWARE].root;
        assert!(software.at_path(r"Wow6432Node\Classes").is_none());
        assert!(software.at_path(r"Classes\Wow6432Node\CLSID").is_some());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_an_error_that_names_it() {
        for (path, wanted) in [
            (
                r"Round\A\x",
                r"the key HKLM\SOFTWARE\Round\A is a link in the layers below: it leads through more",
            ),
            (r"Volatile\x", r"\Registry\Machine\Hardware is in no hive"),
            (r"Void", r"HKLM\SOFTWARE\Void is a link in the layers below: it has no target"),
        ] {
            let said = laid(SOFTWARE, &[path]).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        }
    }
}
