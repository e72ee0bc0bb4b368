//! Whether a container can be had from a prepared one: two bundles, compared as data.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};

use crate::bundle::Bundle;
use crate::seccomp::Filter;

/// Annotation of what is settled before a process waits: two bundles of which it differs cannot stand for each other.
pub const SETTLED_ANNOTATION: &str = "dev.silo.settled";

/// What of a wanted container is not there in a prepared one that can be taken for it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Further {
    /// Mounts, in order.
    pub(crate) mounts: Vec<Mount>,
}

/// What is still to be made of a container of bundle `wanted` that is had from one that was started of `prepared`; the error
/// says what stands against it. Directories of `prepared.dir` that writable layers are in count as those of the same name in
/// `wanted.dir`: they have to be moved there.
pub(crate) fn compare(prepared: &Bundle, wanted: &Bundle) -> Result<Further, String> {
    let same = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("its {what} differs")) };
    let (was, is) = (&prepared.spec, &wanted.spec);
    let annotation = |spec: &Spec, name: &str| spec.annotations().as_ref().and_then(|a| a.get(name).cloned());
    if !prepared.waits() {
        return Err("its first process does not wait".into());
    }
    same("settled state", annotation(was, SETTLED_ANNOTATION) == annotation(is, SETTLED_ANNOTATION))?;
    same("status pipe", prepared.wants_status_pipe() == wanted.wants_status_pipe())?;
    same("version", was.version() == is.version())?;
    same("root", was.root() == is.root() && prepared.rootfs == wanted.rootfs)?;
    same("hooks", was.hooks() == is.hooks())?;
    same("other system", (was.solaris(), was.windows(), was.vm()) == (is.solaris(), is.windows(), is.vm()))?;
    let names = |spec: &Spec| (spec.hostname().clone(), spec.domainname().clone());
    same("name", prepared.namespace(Ns::Uts) == Some(None) || names(was) == names(is))?;
    // What `take` sets is left out: name, working directory, environment, terminal; limits and their cgroup.
    let linux = |bundle: &Bundle| {
        bundle.linux().map(|linux| {
            let mut linux = linux.clone();
            linux.set_cgroups_path(None).set_resources(None);
            linux
        })
    };
    let (was, is) = (linux(prepared).map_err(|e| e.to_string())?, linux(wanted).map_err(|e| e.to_string())?);
    same(
        "user namespace",
        (was.uid_mappings(), was.gid_mappings()) == (is.uid_mappings(), is.gid_mappings()),
    )?;
    same("namespaces", was.namespaces() == is.namespaces())?;
    let filter = |bundle: &Bundle| bundle.filter.as_ref().map(Filter::pack);
    same("system call filter", was.seccomp() == is.seccomp() && filter(prepared) == filter(wanted))?;
    same("sysctls", was.sysctl() == is.sysctl())?;
    same("devices", was.devices() == is.devices())?;
    same(
        "masked paths",
        (was.masked_paths(), was.readonly_paths()) == (is.masked_paths(), is.readonly_paths()),
    )?;
    same("confinement", was == is)?;
    let process = |bundle: &Bundle| {
        bundle.process().map(|process| {
            let mut process = process.clone();
            process
                .set_env(None)
                .set_cwd("/".into())
                .set_terminal(None)
                .set_console_size(None)
                .set_args(None);
            process
        })
    };
    let (was, is) =
        (process(prepared).map_err(|e| e.to_string())?, process(wanted).map_err(|e| e.to_string())?);
    same("user", was.user() == is.user())?;
    same("capabilities", was.capabilities() == is.capabilities())?;
    same("resource limits of processes", was.rlimits() == is.rlimits())?;
    same("process", was == is)?;
    // One that waits is told so by further arguments.
    let args =
        |bundle: &Bundle| bundle.spec.process().as_ref().and_then(|p| p.args().clone()).unwrap_or_default();
    same("program", args(prepared).starts_with(&args(wanted)))?;
    compare_mounts(prepared, wanted)
}

/// A path of the prepared bundle's directory as one of the wanted's.
fn moved(text: &str, from: &Path, to: &Path) -> String {
    let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
    text.replace(&from, &to)
}

fn compare_mounts(prepared: &Bundle, wanted: &Bundle) -> Result<Further, String> {
    let mut kept = Vec::new();
    let mut further = Further::default();
    let wants: Vec<&Mount> = wanted.spec.mounts().iter().flatten().collect();
    for was in prepared.spec.mounts().iter().flatten() {
        let at = was.destination();
        let mut same = wants.iter().enumerate().filter(|(_, is)| is.destination() == at);
        let (Some((number, is)), None) = (same.next(), same.next()) else {
            return Err(format!("it has not one mount at {}", at.display()));
        };
        let mut was = was.clone();
        let options = was
            .options()
            .as_ref()
            .map(|options| options.iter().map(|o| moved(o, &prepared.dir, &wanted.dir)).collect::<Vec<_>>());
        was.set_options(options);
        // A file or directory that was made for the one container alone: the other's covers it.
        let own = |bundle: &Bundle, mount: &Mount| {
            mount.typ().as_deref() == Some("bind")
                && mount.source().as_ref().is_some_and(|source| source.starts_with(&bundle.dir))
        };
        let replaced = own(prepared, &was) && own(wanted, is);
        if replaced {
            was.set_source(is.source().clone());
        } else {
            kept.push(number);
        }
        if was != **is {
            return Err(format!("its mount at {} differs", at.display()));
        }
    }
    for (number, is) in wants.iter().enumerate().filter(|(number, _)| !kept.contains(number)) {
        let at = is.destination();
        let below = wants.iter().enumerate().find(|(other, mount)| {
            (kept.contains(other) || *other < number)
                && mount.destination() != at
                && mount.destination().starts_with(at)
        });
        if let Some((_, below)) = below {
            return Err(format!(
                "its mount at {} would cover that at {}",
                at.display(),
                below.destination().display()
            ));
        }
        if !matches!(is.typ().as_deref().unwrap_or("bind"), "bind" | "tmpfs" | "overlay") {
            return Err(format!("its mount at {} cannot be made later", at.display()));
        }
        further.mounts.push((*is).clone());
    }
    Ok(further)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxIdMappingBuilder, Process};

    fn mount(kind: &str, at: &str, source: &str, options: &[&str]) -> Mount {
        let mut mount = Mount::default();
        mount
            .set_typ(Some(kind.into()))
            .set_destination(at.into())
            .set_source(Some(source.into()))
            .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
        mount
    }

    /// A bundle in `dir` as a guest would write it.
    fn bundle(dir: &str, annotations: &[(&str, &str)]) -> Bundle {
        let mut spec = Spec::default();
        let own = |name: &str| format!("{dir}/{name}");
        let overlay = format!("upperdir={dir}/top/upper");
        spec.set_annotations(Some(
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<HashMap<_, _>>(),
        ));
        spec.set_hostname(None).set_mounts(Some(vec![
            mount("proc", "/proc", "proc", &["nosuid"]),
            mount("overlay", "/c", "overlay", &["lowerdir=/layers/1", &overlay]),
            mount("bind", "/sys", &own("sys"), &["bind", "ro"]),
        ]));
        Bundle { dir: dir.into(), spec, rootfs: mount("bind", "/", "/base", &[]), filter: None }
    }

    fn prepared() -> Bundle {
        bundle("/pool/a", &[("dev.silo.waits", "1"), (SETTLED_ANNOTATION, "x")])
    }

    fn wanted(change: impl FnOnce(&mut Spec)) -> Bundle {
        let mut bundle = bundle("/containers/b", &[(SETTLED_ANNOTATION, "x"), ("user.note", "y")]);
        change(&mut bundle.spec);
        bundle
    }

    fn add(spec: &mut Spec, mount: Mount) {
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
    }

    #[test]
    fn what_can_follow_may_differ() {
        let data = mount("bind", "/c/data", "/srv", &["rbind"]);
        let wanted = wanted(|spec| {
            spec.set_hostname(Some("box".into()));
            let mut process = spec.process().clone().unwrap_or_default();
            process.set_env(Some(vec!["A=1".into()])).set_cwd("/c/x".into()).set_terminal(Some(true));
            let mut linux = spec.linux().clone().unwrap_or_default();
            let mut namespaces = linux.namespaces().clone().unwrap_or_default();
            namespaces.retain(|n| n.typ() != Ns::Uts);
            linux.set_cgroups_path(Some("/silo/b".into())).set_resources(None);
            spec.set_process(Some(process)).set_linux(Some(linux));
            add(spec, data.clone());
        });
        let own = mount("bind", "/sys", "/containers/b/sys", &["bind", "ro"]);
        assert_eq!(compare(&prepared(), &wanted).map(|f| f.mounts), Ok(vec![own, data]));
    }

    /// A change of a bundle, and what is said of it.
    type Case = (fn(&mut Spec), &'static str);

    fn linux(spec: &mut Spec, change: fn(&mut Linux) -> &mut Linux) {
        let mut linux = spec.linux().clone().unwrap_or_default();
        change(&mut linux);
        spec.set_linux(Some(linux));
    }

    fn process(spec: &mut Spec, change: fn(&mut Process) -> &mut Process) {
        let mut process = spec.process().clone().unwrap_or_default();
        change(&mut process);
        spec.set_process(Some(process));
    }

    fn id(host: u32) -> Vec<LinuxIdMapping> {
        let id = LinuxIdMappingBuilder::default();
        vec![id.container_id(0u32).host_id(host).size(1u32).build().unwrap()]
    }

    #[test]
    fn what_is_settled_is_named() {
        let cases: &[Case] = &[
            (|s| linux(s, |l| l.set_uid_mappings(Some(id(7)))), "its user namespace differs"),
            (|s| linux(s, |l| l.set_masked_paths(None)), "its masked paths differs"),
            (|s| linux(s, |l| l.set_seccomp(Some(Default::default()))), "its system call filter differs"),
            (|s| linux(s, |l| l.set_namespaces(None)), "its namespaces differs"),
            (|s| process(s, |p| p.set_capabilities(None)), "its capabilities differs"),
            (|s| process(s, |p| p.set_rlimits(Some(Vec::new()))), "its resource limits of processes differs"),
            (|s| process(s, |p| p.set_args(Some(vec!["other".into()]))), "its program differs"),
            (
                |s| {
                    s.set_annotations(Some(HashMap::from([(SETTLED_ANNOTATION.to_owned(), "z".to_owned())])));
                },
                "its settled state differs",
            ),
            (
                |s| {
                    let mut root = s.root().clone().unwrap_or_default();
                    root.set_readonly(Some(root.readonly() != Some(true)));
                    s.set_root(Some(root));
                },
                "its root differs",
            ),
        ];
        for (change, said) in cases {
            assert_eq!(compare(&prepared(), &wanted(change)).unwrap_err(), *said);
        }
        let mut never = prepared();
        never.spec.set_annotations(None);
        assert_eq!(compare(&never, &wanted(|_| {})).unwrap_err(), "its first process does not wait");
    }

    #[test]
    fn mounts_that_are_there_must_be_the_same_and_stay_visible() {
        let other_layers = wanted(|spec| {
            let mut mounts = spec.mounts().clone().unwrap_or_default();
            mounts[1] = mount("overlay", "/c", "overlay", &["lowerdir=/layers/2"]);
            spec.set_mounts(Some(mounts));
        });
        assert_eq!(compare(&prepared(), &other_layers).unwrap_err(), "its mount at /c differs");
        let covering = wanted(|spec| {
            let mut mounts = spec.mounts().clone().unwrap_or_default();
            mounts[1].set_destination("/d/c".into());
            spec.set_mounts(Some(mounts));
        });
        assert_eq!(compare(&prepared(), &covering).unwrap_err(), "it has not one mount at /c");
        let above = wanted(|spec| add(spec, mount("tmpfs", "/", "tmpfs", &[])));
        assert!(compare(&prepared(), &above).unwrap_err().contains("would cover that at /proc"));
        let late = wanted(|spec| add(spec, mount("proc", "/p", "proc", &[])));
        assert_eq!(compare(&prepared(), &late).unwrap_err(), "its mount at /p cannot be made later");
    }
}
