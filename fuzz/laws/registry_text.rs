//! Registry text: it is read or refused; what is read says the same again as text, and does the same to a hive.

use silo_hive::{Hive, apply_reg, from_reg, merge, to_reg};

/// The law.
pub(crate) fn check(data: &[u8]) {
    let Ok(delta) = from_reg(data, "HKLM") else { return };
    let plain = merge(Hive::default(), delta.clone());
    let bytes = plain.to_bytes().expect("a hive of what text sets");
    assert_eq!(Hive::from_bytes(bytes).as_ref(), Ok(&plain));
    let mut applied = Hive::default();
    apply_reg(&mut applied, data, "HKLM").expect("it was read before");
    // Names with a carriage return have no place in text.
    if let Ok(text) = to_reg(&delta, "HKLM") {
        let again = from_reg(text.as_bytes(), "HKLM").expect("what was written");
        assert_eq!(merge(Hive::default(), again), plain);
    }
}
