//! A hive file: it is read or refused; what is read can be written, laid over others, and comes back the same.

use super::sign::sign;
use silo_hive::{Hive, diff, merge, to_reg};

/// The law.
pub(crate) fn check(data: &[u8]) {
    let mut file = data.to_vec();
    sign(&mut file);
    let Ok(hive) = Hive::from_bytes(file) else { return };
    let _ = to_reg(&hive, "HKEY_LOCAL_MACHINE");
    // Names may be longer than any that is written.
    if let Ok(bytes) = hive.to_bytes() {
        assert_eq!(Hive::from_bytes(bytes).expect("what was written"), hive);
    }
    let plain = merge(Hive::default(), hive.clone());
    let empty = Hive::default();
    assert_eq!(merge(empty.clone(), diff(&empty, &plain)), plain);
    assert_eq!(merge(plain.clone(), diff(&plain, &empty)), empty);
    let _ = merge(hive.clone(), hive);
}
