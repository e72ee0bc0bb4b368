//! The Windows guest: Windows images on Wine, whose Linux side comes with the image's base.

pub mod base;
mod bundle;
mod command_line;
mod env;
mod flush;
mod layer;
mod limits;
mod machine_sid;
mod oci;
mod paths;
mod registry;
mod spellings;
mod user_mounts;
mod users;

pub use registry::fuzz_wine_registry_text;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use crate::contract::{
    BaseLayers, Bundle, BundleRequest, Changes, EntryPlaces, Flushed, Guest, GuestError, GuestPath, Limits,
    Lineage, Names, Os, ProcessConfig, Wish,
};

use paths::WindowsPath;
use spellings::Spellings;

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

    fn ready_state(&self, user: &str, limits: &Limits, targets: &[&str]) -> Option<String> {
        bundle::ready_state(user, limits, targets)
    }
    fn warm_up(&self, request: &BundleRequest<'_>) -> Result<Bundle, GuestError> {
        bundle::warm_up(request)
    }
    fn limits_changed(&self, limits: &Limits, dir: &Path) -> Result<bool, GuestError> {
        bundle::show_limits(limits, dir).map(|()| true)
    }

    fn process(&self, bundle: &Spec, root: &Path, exec: &ProcessConfig) -> Result<Process, GuestError> {
        bundle::exec_process(bundle, root, exec)
    }

    fn path_in_root(&self, path: &str, working_dir: &str) -> Result<GuestPath, GuestError> {
        let base = WindowsPath::parse(working_dir, None)?;
        Ok(GuestPath(WindowsPath::parse(path, Some(&base))?.in_root()))
    }

    fn spelled(&self, names: &dyn Names, path: &Path) -> PathBuf {
        Spellings::new(names).find(path)
    }

    fn in_volume(&self, names: &dyn Names, path: &str) -> PathBuf {
        let found = Spellings::new(names).find(&Path::new("/").join(path.replace('\\', "/")));
        found.strip_prefix("/").map(Path::to_owned).unwrap_or_default()
    }

    fn entry_places<'r>(&self, names: &'r dyn Names, directory: &Path) -> Option<EntryPlaces<'r>> {
        Some(Spellings::new(names).entry_places(directory))
    }

    fn is_same_place(&self, one: &str, other: &str) -> bool {
        match (WindowsPath::parse(one, None), WindowsPath::parse(other, None)) {
            (Ok(one), Ok(other)) => paths::is_spelled(one.in_root().as_os_str(), other.in_root().as_os_str()),
            _ => one == other,
        }
    }

    fn next_working_dir(&self, current: &str, next: &str) -> Result<String, GuestError> {
        let base = WindowsPath::parse(current, None)?;
        Ok(WindowsPath::parse(next, Some(&base))?.to_string())
    }

    fn os_version(&self, layer: &Path) -> Result<String, GuestError> {
        layer::os_version(layer)
    }

    fn base_layers(&self, of: &Lineage<'_>) -> Result<Option<BaseLayers>, GuestError> {
        base::base_layers(of)
    }

    fn stands_for(&self, reference: &str) -> Option<&'static str> {
        base::of_repository(reference).map(base::Family::reference)
    }

    fn build_base(
        &self,
        family: &str,
        packages: Option<&Path>,
        work: &Path,
        progress: &mut dyn FnMut(&str),
        to: &mut dyn std::io::Write,
    ) -> Result<(), GuestError> {
        base::build_archive(family, packages, work, progress, to)
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
        root: BorrowedFd<'_>,
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
        flush::process(bundle)
    }

    fn flushed(&self, root: &Path) -> Flushed {
        flush::flushed(root)
    }

    fn flush_report(&self) -> Option<&'static str> {
        Some(flush::REPORT)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directories_join_as_in_a_dockerfile() {
        let next = |current, next| WindowsGuest.next_working_dir(current, next).unwrap();
        assert_eq!(next("", r"\app"), r"C:\app");
        assert_eq!(next(r"C:\app", r"sub\deep"), r"C:\app\sub\deep");
        assert_eq!(next(r"C:\app", r"\other"), r"C:\other");
        assert_eq!(next(r"C:\app", "d:/x"), r"D:\x");
        assert_eq!(next("/app", "."), r"C:\app");
    }

    #[test]
    fn places_are_the_same_in_any_spelling() {
        let same = |one, other| WindowsGuest.is_same_place(one, other);
        assert!(same(r"C:\data", "c:/DATA/") && same(r"\data", r"C:\data") && same("D:", r"d:\"));
        assert!(!same(r"C:\data", r"D:\data") && !same(r"C:\data", r"C:\dat"));
    }
}
