//! The Linux guest: namespaces, mounts and confinement as dockerd gives them.

mod bundle;
mod defaults;
mod paths;
mod resources;
pub mod seccomp;
mod users;

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::contract::{Bundle, BundleRequest, Changes, Guest, GuestError, GuestPath, Os, ProcessConfig};

use paths::{PATH, clean};

pub use defaults::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, capabilities};
pub use resources::{changed_resources, default_device_rules, device_rule, resources, rlimits};

/// Axis 1, Linux.
#[derive(Debug)]
pub struct LinuxGuest;

impl Guest for LinuxGuest {
    fn os(&self) -> Os {
        Os::Linux
    }

    fn bundle(&self, request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
        bundle::bundle(request)
    }

    fn process(&self, bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError> {
        bundle::exec_process(bundle, root, exec)
    }

    fn account_files(&self) -> &'static [&'static str] {
        users::FILES
    }

    fn path_in_root(&self, path: &str, working_dir: &str) -> Result<GuestPath, GuestError> {
        if path.contains('\0') {
            return Err(GuestError::Invalid("a path with a NUL byte".to_owned()));
        }
        let base = if working_dir.is_empty() { "/" } else { working_dir };
        Ok(GuestPath(clean(&Path::new("/").join(base).join(path))))
    }

    fn next_working_dir(&self, current: &str, next: &str) -> Result<String, GuestError> {
        Ok(self.path_in_root(next, current)?.0.to_string_lossy().into_owned())
    }

    fn is_absolute(&self, path: &str) -> bool {
        path.starts_with('/')
    }

    fn default_shell(&self) -> Vec<String> {
        vec!["/bin/sh".to_owned(), "-c".to_owned()]
    }

    fn default_env(&self) -> Vec<(String, String)> {
        vec![("PATH".to_owned(), PATH.to_owned())]
    }

    fn env_case_sensitive(&self) -> bool {
        true
    }

    fn changes(&self) -> (&'static str, &'static str) {
        ("upper", "/")
    }

    fn own_mount_points(&self) -> &'static [&'static str] {
        &[
            "/dev",
            "/proc",
            "/sys",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/dev/console",
            "/dev/mqueue",
            "/dev/pts",
            "/dev/shm",
        ]
    }

    fn capture(&self, changes: &Changes<'_>, to: &mut dyn std::io::Write) -> Result<(), GuestError> {
        let upper = changes.top.map(|top| top.join(self.changes().0)).filter(|upper| upper.exists());
        let Some(upper) = upper else { return Ok(()) };
        silo_layer::pack_upper(&upper, 0, self.own_mount_points(), to).map_err(|e| GuestError::Io {
            doing: "packing the container's changes".to_owned(),
            source: std::io::Error::other(e.to_string()),
        })
    }

    fn export(
        &self,
        root: std::os::fd::BorrowedFd<'_>,
        _of: &Changes<'_>,
        to: &mut dyn std::io::Write,
    ) -> Result<(), GuestError> {
        silo_layer::pack_tree(root, Path::new("/"), "", 0, true, to).map_err(|e| GuestError::Io {
            doing: "packing the container's files".to_owned(),
            source: std::io::Error::other(e.to_string()),
        })
    }

    fn changes_are_layer(&self) -> bool {
        true
    }

    fn layer_files(&self) -> &'static str {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let at = |p, w| LinuxGuest.path_in_root(p, w).unwrap().0.display().to_string();
        assert_eq!(at("/a/../b/./c", ""), "/b/c");
        assert_eq!(at("x", "/w"), "/w/x");
        assert_eq!(at("../../../x", "/w"), "/x");
        assert!(LinuxGuest.path_in_root("a\0b", "").is_err());
    }
}
