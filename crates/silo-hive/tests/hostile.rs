//! Hostile files: each is refused by name of the record and its place, and costs no more than its length.

mod files;

use std::time::Instant;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use silo_hive::{Hive, diff, from_reg, merge, recover, to_reg};

use files::{put, sign, written_down};

#[test]
fn what_is_broken_is_named() {
    let check = |change: &dyn Fn(&mut Vec<u8>), wanted: &str| {
        let mut bytes = written_down();
        change(&mut bytes);
        if bytes.len() > 0x200 && wanted != "checksum" {
            sign(&mut bytes);
        }
        let error = Hive::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error:?} should say {wanted:?}");
    };
    check(&|b| b.truncate(100), "shorter than a base block");
    check(&|b| b.truncate(5000), "ends before its last bin");
    check(&|b| b[0] = b'x', "does not begin with \"regf\"");
    check(&|b| b[0x18] = 9, "version");
    check(&|b| b[0x1c] = 6, "log");
    check(&|b| b[4] = 2, "sequence numbers differ");
    check(&|b| b[0x30] = 1, "checksum");
    check(&|b| b[0x1000] = 0, "hbin at offset 0x1000");
    check(&|b| b[0x1008] = 1, "hbin at offset 0x1000");
    check(&|b| b[0x24] = 0x21, "nk at offset 0x1021: there can be no cell");
    check(&|b| b[0x1024] = 0, "nk at offset 0x1020: the signature is missing");
    check(&|b| b[0x1023] = 0, "nk at offset 0x1020: the cell is free");
    // Acme is its own subkey: the list of the root stands in for its missing one.
    check(&|b| b[0x1124 + 0x14] = 2, "subkey list at offset");
    check(
        &|b| b[0x11d0 + 4 + 4..][..4].copy_from_slice(&0x20u32.to_le_bytes()),
        "nk at offset 0x1020: the cell is another record's",
    );
    check(&|b| b[0x11d0 + 6] = 200, "more entries than the cell has room for");
    check(&|b| b[0x11e8 + 4 + 2] = 99, "vk at offset 0x11e8: the name is longer");
    check(&|b| b[0x1078 + 4 + 0x10] = 0xff, "sk at offset 0x1078");
    check(&|b| b[0x1078 + 4 + 0x10] = 0, "sk at offset 0x1078: the descriptor is empty");
    check(&|b| b[0x1024 + 2] |= 1, "nk at offset 0x1020: the root key is volatile");
    // A wide name of a single byte has no unit.
    check(
        &|b| {
            b[0x1124 + 2] = 0;
            b[0x1124 + 0x48] = 1;
        },
        "nk at offset 0x1120: the name is empty",
    );
    // The second value list begins within the first key's record.
    check(&|b| put(b, 0x117c + 0x28, &[0x128]), "value list at offset 0x1128");
}

#[test]
fn lists_that_overlap_are_read_once() {
    // An index of 16000 lists, each 8 bytes behind the one before and each of 65535 keys: 4 GiB if all were read.
    const BINS: usize = 1 << 20;
    let mut bytes = written_down();
    bytes.resize(4096 + BINS, 0);
    put(&mut bytes, 0x28, &[BINS as u32]);
    put(&mut bytes, 0x1008, &[BINS as u32]);
    put(&mut bytes, 0x1024 + 0x14, &[u32::MAX, 0, 0x400]);
    put(&mut bytes, 0x1400, &[-64_008i32 as u32, u32::from_le_bytes(*b"ri\x80\x3e")]);
    for i in 0..16_000 {
        put(&mut bytes, 0x1408 + i * 4, &[0x1_0000 + i as u32 * 8]);
    }
    for at in (0x1_1000..4096 + BINS).step_by(8) {
        put(&mut bytes, at, &[-0x8_0008i32 as u32, u32::from_le_bytes(*b"lf\xff\xff")]);
    }
    sign(&mut bytes);
    let error = Hive::from_bytes(bytes).unwrap_err().to_string();
    assert!(error.contains("offset 0x11008: the cell is another record's"), "{error}");
}

#[test]
fn a_size_that_only_the_record_knows_is_no_reason_to_allocate() {
    // A value of 1 GiB in 65535 segments that are not there.
    let mut bytes = written_down();
    bytes.resize(4096 + (1 << 19), 0);
    put(&mut bytes, 0x28, &[1 << 19]);
    put(&mut bytes, 0x1008, &[1 << 19]);
    put(&mut bytes, 0x11e8 + 4 + 4, &[16344 * 65535, 0x400]);
    put(&mut bytes, 0x1400, &[-16i32 as u32, u32::from_le_bytes(*b"db\xff\xff"), 0x410]);
    put(&mut bytes, 0x1410, &[-0x4_0008i32 as u32]);
    sign(&mut bytes);
    let error = Hive::from_bytes(bytes).unwrap_err().to_string();
    assert!(error.contains("value data at offset 0x1400: the data are longer than the file"), "{error}");
}

#[test]
fn text_of_many_values_in_any_order_is_read_in_its_length() {
    let mut text = String::from("Windows Registry Editor Version 5.00\r\n\r\n[HKLM]\r\n");
    for i in (0..200_000).rev() {
        text.push_str(&format!("\"{i:06}\"=dword:0\r\n"));
    }
    let start = Instant::now();
    assert_eq!(from_reg(text.as_bytes(), "HKLM").unwrap().root.values().len(), 200_000);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

/// The fuzz targets of `fuzz/` in short: a fixed seed, some thousand changed files.
#[test]
fn changed_files_never_panic() {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut below = move |n: usize| (rng.next_u64() % n as u64) as usize;
    let hive = written_down();
    let mut dirty = hive.clone();
    put(&mut dirty, 4, &[5, 4]);
    sign(&mut dirty);
    let mut log = hive[..512].to_vec();
    put(&mut log, 4, &[5, 5]);
    put(&mut log, 0x1c, &[1]);
    sign(&mut log);
    log.extend(b"DIRT\xff");
    log.resize(1024, 0);
    log.extend(&hive[4096..]);
    let text = to_reg(&Hive::from_bytes(hive.clone()).unwrap(), "HKLM").unwrap().into_bytes();
    let mut read = 0;
    for _ in 0..6000 {
        let [mut hive, mut log, mut text] = [&hive, &log, &text].map(Clone::clone);
        for bytes in [&mut hive[..0x1300], &mut log[..0x600], &mut text[..]] {
            for _ in 0..1 + below(4) {
                let (at, from) = (below(bytes.len()), below(bytes.len()));
                match below(3) {
                    0 => bytes[at] = below(256) as u8,
                    1 => bytes[at] ^= 1 << below(8),
                    _ => {
                        let count = (1 + below(8)).min(bytes.len() - at.max(from));
                        bytes.copy_within(from..from + count, at);
                    }
                }
            }
        }
        sign(&mut hive);
        if let Ok(hive) = Hive::from_bytes(hive) {
            let plain = merge(Hive::default(), hive);
            assert_eq!(merge(Hive::default(), diff(&Hive::default(), &plain)), plain);
            read += 1;
        }
        sign(&mut log);
        let _ = recover(&dirty, &[&log]).map(Hive::from_bytes);
        let _ = from_reg(&text, "HKLM");
    }
    assert!(read > 100, "only {read} were read at all");
}
