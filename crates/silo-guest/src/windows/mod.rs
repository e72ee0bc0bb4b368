//! The Windows guest: Windows images on Wine, whose Linux side comes with the image's base.

pub mod base;
mod bundle;
mod command_line;
mod env;
mod layer;
mod limits;
mod paths;
mod registry;
mod users;

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::contract::{
    Bundle, BundleRequest, Changes, Guest, GuestError, GuestPath, Limits, Os, ProcessConfig, Wish,
};

use paths::WindowsPath;

/// Axis 1, Windows.
#[derive(Debug)]
pub struct WindowsGuest;

impl Guest for WindowsGuest {
    fn os(&self) -> Os {
        Os::Windows
    }

    fn check(&self, wish: &Wish<'_>) -> Result<(), GuestError> {
        bundle::refuse_what_windows_has_not(wish)
    }

    fn bundle(&self, request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
        bundle::bundle(request)
    }

    fn limits_changed(&self, bundle: &mut Spec, limits: &Limits, dir: &Path) -> Result<bool, GuestError> {
        bundle::show_limits(bundle, limits, dir)
    }

    fn process(&self, bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError> {
        bundle::exec_process(bundle, root, exec)
    }

    fn path_in_root(&self, path: &str, working_dir: &str) -> Result<GuestPath, GuestError> {
        let base = WindowsPath::parse(working_dir, None)?;
        Ok(GuestPath(WindowsPath::parse(path, Some(&base))?.in_root()))
    }

    fn is_absolute(&self, path: &str) -> bool {
        paths::is_absolute(path)
    }

    fn default_shell(&self) -> Vec<String> {
        ["cmd", "/S", "/C"].map(str::to_owned).to_vec()
    }

    /// None: the defaults are the registry's, and an image may have changed them there.
    fn default_env(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn env_case_sensitive(&self) -> bool {
        false
    }

    fn capture(&self, changes: &Changes<'_>, to: &mut dyn std::io::Write) -> Result<(), GuestError> {
        layer::capture(changes, to)
    }

    fn export(
        &self,
        root: std::os::fd::BorrowedFd<'_>,
        of: &Changes<'_>,
        to: &mut dyn std::io::Write,
    ) -> Result<(), GuestError> {
        layer::export(root, of, to)
    }

    fn changed_elsewhere(&self, changes: &Changes<'_>) -> Result<Vec<(String, bool)>, GuestError> {
        layer::changed_hives(changes)
    }

    fn registry(&self, of: &Changes<'_>, to: &mut dyn std::io::Write) -> Result<(), GuestError> {
        layer::registry_archive(of, to)
    }

    fn shown_path(&self, path: &str) -> String {
        format!("C:{}", path.replace('/', "\\"))
    }

    fn flush(&self, bundle: &Spec) -> Option<Process> {
        bundle::flush_process(bundle)
    }

    fn forget_chains(&self, cache: &Path, wanted: &dyn Fn(&str) -> bool) {
        registry::projection::keep_only(cache, wanted);
    }

    fn changes(&self) -> (&'static str, &'static str) {
        ("files/upper", "/c")
    }

    fn maps_ids(&self) -> bool {
        true
    }

    fn layer_files(&self) -> &'static str {
        "Files"
    }
}
