//! A dirty hive and its logs: the first four bytes say where the file ends and the second log begins.

use super::sign::sign;
use silo_hive::{Hive, recover};

/// Marvin32, so that a changed entry is not passed over.
fn marvin(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0x7a4e_55c5u32, 0x82ef_4d88u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    words.for_each(|w| mix(u32::from_le_bytes([w[0], w[1], w[2], w[3]])));
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    mix(u32::from_le_bytes(last));
    mix(0);
    u64::from(low) | u64::from(high) << 32
}

/// Makes the hashes of the entries right that are whole.
fn sign_entries(log: &mut [u8]) {
    let mut at = 512;
    while log.len() >= at + 512 && log[at..].starts_with(b"HvLE") {
        let size = u32::from_le_bytes([log[at + 4], log[at + 5], log[at + 6], log[at + 7]]) as usize;
        if size < 512 || size > log.len() - at {
            return;
        }
        let hash = marvin(&log[at + 40..at + size]);
        log[at + 24..at + 32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin(&log[at..at + 32]);
        log[at + 32..at + 40].copy_from_slice(&hash.to_le_bytes());
        at += size;
    }
}

/// The law.
pub(crate) fn check(data: &[u8]) {
    let [a, b, c, d, rest @ ..] = data else { return };
    let (a, b) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
    // The top bit leaves the base block torn.
    let torn = a & 0x8000 != 0;
    let (file, logs) = rest.split_at(rest.len().min(usize::from(a & 0x7fff)));
    let (one, two) = logs.split_at(logs.len().min(usize::from(b)));
    let (mut file, mut one, mut two) = (file.to_vec(), one.to_vec(), two.to_vec());
    for log in [&mut one, &mut two] {
        sign(log);
        sign_entries(log);
    }
    if !torn {
        sign(&mut file);
    }
    let bound = rest.len().max(4096);
    if let Ok(recovered) = recover(file, &[&one, &two]) {
        assert!(recovered.len() <= bound);
        assert_eq!(recover(&recovered, &[&one, &two]).as_ref(), Ok(&recovered), "a recovered hive is clean");
        let _ = Hive::from_bytes(recovered);
    }
}
