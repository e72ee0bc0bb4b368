//! A hive file to change, and what makes a changed one look right.

use std::io::Read;

/// A delta hive made by hand from the specification and read by yarp, python-registry, regipy and hivex; 8192 bytes.
pub(crate) fn written_down() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("../data/Software_Delta.gz")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Makes the checksum right.
pub(crate) fn sign(bytes: &mut [u8]) {
    let words = bytes[..0x1fc].chunks_exact(4);
    let sum = words.fold(0, |s, w| s ^ u32::from_le_bytes(w.try_into().unwrap()));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    bytes[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
}

/// Writes words into a file.
#[allow(dead_code, reason = "each test file is a crate of its own")]
pub(crate) fn put(bytes: &mut [u8], at: usize, words: &[u32]) {
    for (i, word) in words.iter().enumerate() {
        bytes[at + i * 4..at + i * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
}
