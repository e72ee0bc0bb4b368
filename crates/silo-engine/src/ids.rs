//! IDs of what the engine makes.

use rand::Rng;

/// 64 random hex digits.
pub(crate) fn random_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
