//! What must hold for any bytes: one law a target, called by the target and by the test of all seeds
//! (`tests/tests/fuzz_seeds.rs`).

mod agent_link;
mod dockerfile;
mod hive_read;
mod hive_replay;
mod layer_archive;
mod registry_text;
mod sign;

/// Panics if it does not hold.
type Law = fn(&[u8]);

/// Every target and its law.
pub(crate) const LAWS: &[(&str, Law)] = &[
    ("agent_link", agent_link::check),
    ("dns_message", silo_network::fuzz_dns_message),
    ("dockerfile", dockerfile::check),
    ("hive_read", hive_read::check),
    ("hive_replay", hive_replay::check),
    ("layer_archive", layer_archive::check),
    ("registry_text", registry_text::check),
    ("wine_registry_text", silo_guest::windows::fuzz_wine_registry_text),
];

/// Checks a target's law.
///
/// # Panics
/// If it does not hold, or there is no such target.
pub(crate) fn check(target: &str, bytes: &[u8]) {
    let (_, law) = LAWS.iter().find(|(name, _)| *name == target).expect("a target has a law");
    law(bytes);
}
