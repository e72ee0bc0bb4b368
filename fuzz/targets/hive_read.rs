//! A hive file: it is read or refused; what is read can be written, laid over others, and comes back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_hive::{Hive, diff, merge, to_reg};

/// Makes the checksum of the base block right, past which nothing would come by chance.
fn sign(file: &mut [u8]) {
    if file.len() >= 512 {
        let words = file[..508].chunks_exact(4);
        let sum = words.fold(0, |s, w| s ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let sum = if sum == 0 { 1 } else if sum == u32::MAX { u32::MAX - 1 } else { sum };
        file[508..512].copy_from_slice(&sum.to_le_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
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
});
