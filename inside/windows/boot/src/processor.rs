//! What the processor can do, as Windows tells programs: feature flags, names, state that is saved.
//!
//! Sources: Intel SDM volume 2 "CPUID", volume 1 chapter 13; Windows SDK `PF_*` and `XSTATE_CONFIGURATION`.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use crate::text::{append, read_file, Text};

/// Offsets in `XSTATE_CONFIGURATION`.
const FEATURES: usize = 24;
const ALIGNED_FEATURES: usize = 24 + 64 * 8 + 8;
const ALL_SIZE: usize = ALIGNED_FEATURES + 8;
const ALL_FEATURES: usize = ALL_SIZE + 4;
/// Features that Wine saves with a thread: AVX, MPX, AVX-512.
const SAVED: u64 = 0xfc;
/// The legacy area and the header of an XSAVE area.
const LEGACY: u32 = 512;
const HEADER: u32 = 64;

/// Sets the bytes of `KUSER_SHARED_DATA.ProcessorFeatures`.
pub fn features(flags: &mut [u8; 64]) {
    // SAFETY: every x86-64 processor has these leaves.
    let (max, one, extended) = unsafe { (__cpuid(0).eax, __cpuid(1), __cpuid(0x8000_0001)) };
    // SAFETY: only asked when it is there.
    let seven = if max >= 7 { unsafe { __cpuid_count(7, 0) } } else { unsafe { __cpuid(0x8000_0000) } };
    let seven_ebx = if max >= 7 { seven.ebx } else { 0 };
    let seven_ecx = if max >= 7 { seven.ecx } else { 0 };
    let bit = |register: u32, bit: u32| register >> bit & 1 == 1;
    let saves = bit(one.ecx, 27);
    // SAFETY: the operating system has enabled XGETBV when bit 27 is set.
    let enabled = if saves { unsafe { read_xcr0() } } else { 0 };
    let avx = bit(one.ecx, 28) && enabled & 6 == 6;
    let present = [
        (2, bit(one.edx, 8)),
        (3, bit(one.edx, 23)),
        (6, bit(one.edx, 25)),
        (8, bit(one.edx, 4)),
        (9, bit(one.edx, 6)),
        (10, bit(one.edx, 26)),
        (12, bit(extended.edx, 20)),
        (13, bit(one.ecx, 0)),
        (14, bit(one.ecx, 13)),
        (17, saves),
        (22, bit(seven_ebx, 0)),
        (23, true),
        (28, bit(one.ecx, 30)),
        (32, bit(extended.edx, 27)),
        (33, bit(seven_ecx, 22)),
        (36, bit(one.ecx, 9)),
        (37, bit(one.ecx, 19)),
        (38, bit(one.ecx, 20)),
        (39, avx),
        (40, avx && bit(seven_ebx, 5)),
        (41, avx && enabled & 0xe0 == 0xe0 && bit(seven_ebx, 16)),
    ];
    for (feature, present) in present {
        flags[feature] = u8::from(present);
    }
}

#[target_feature(enable = "xsave")]
unsafe fn read_xcr0() -> u64 {
    _xgetbv(0)
}

/// Fills `XSTATE_CONFIGURATION`: which state is saved, where and how large.
///
/// # Safety
/// `out` must be valid for the structure's 0x338 bytes.
pub unsafe fn saved_state(out: *mut u8) {
    if __cpuid(0).eax < 0xd || __cpuid(1).ecx >> 27 & 1 == 0 {
        return;
    }
    let main = __cpuid_count(0xd, 0);
    let supported = (u64::from(main.edx) << 32 | u64::from(main.eax)) & read_xcr0() & SAVED;
    if supported == 0 {
        return;
    }
    let put32 = |at: usize, value: u32| (out.add(at) as *mut u32).write_unaligned(value);
    let put64 = |at: usize, value: u64| (out.add(at) as *mut u64).write_unaligned(value);
    let one = __cpuid_count(0xd, 1);
    let compact = one.eax & 2 != 0;
    put64(0, supported | 3);
    put64(8, supported | 3);
    put32(20, (one.eax & 1) | u32::from(compact) << 1);
    put32(ALL_SIZE, main.ebx);
    for (feature, offset, size) in [(0, 0, LEGACY), (1, LEGACY - 352, 256)] {
        put32(FEATURES + feature * 8, offset);
        put32(FEATURES + feature * 8 + 4, if feature == 0 { 160 } else { size });
        put32(ALL_FEATURES + feature * 4, if feature == 0 { 160 } else { size });
    }
    let mut packed_end = LEGACY + HEADER;
    let mut end = packed_end;
    let mut aligned = 0u64;
    for feature in 2..64u32 {
        if supported >> feature & 1 == 0 {
            continue;
        }
        let part = __cpuid_count(0xd, feature);
        put32(FEATURES + feature as usize * 8, part.ebx);
        put32(FEATURES + feature as usize * 8 + 4, part.eax);
        put32(ALL_FEATURES + feature as usize * 4, part.eax);
        if part.ecx & 2 != 0 {
            aligned |= 1 << feature;
            packed_end = (packed_end + 63) & !63;
        }
        packed_end += part.eax;
        end = end.max(part.ebx + part.eax);
    }
    put64(ALIGNED_FEATURES, aligned);
    put32(16, if compact { packed_end } else { end });
}

/// The vendor, such as `GenuineIntel`.
pub fn vendor() -> Text {
    // SAFETY: leaf 0 always exists.
    let leaf = unsafe { __cpuid(0) };
    from_registers(&[leaf.ebx, leaf.edx, leaf.ecx])
}

/// The marketing name.
pub fn brand() -> Text {
    let mut registers = [0u32; 12];
    // SAFETY: every x86-64 processor has the brand leaves.
    unsafe {
        if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
            for i in 0..3 {
                let leaf = __cpuid(0x8000_0002 + i as u32);
                registers[4 * i..4 * i + 4].copy_from_slice(&[leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
            }
        }
    }
    from_registers(&registers)
}

/// `Intel64 Family 6 Model 85 Stepping 7`.
pub fn identifier() -> Text {
    // SAFETY: leaf 1 always exists.
    let signature = unsafe { __cpuid(1).eax };
    let base = signature >> 8 & 15;
    let family = if base == 15 { base + (signature >> 20 & 255) } else { base };
    let extended = if base == 6 || base == 15 { (signature >> 16 & 15) << 4 } else { 0 };
    let amd = vendor().starts_with(&[u16::from(b'A'), u16::from(b'u')]);
    let mut text = Text::new();
    append(&mut text, if amd { "AMD64 Family " } else { "Intel64 Family " });
    number(&mut text, family);
    append(&mut text, " Model ");
    number(&mut text, signature >> 4 & 15 | extended);
    append(&mut text, " Stepping ");
    number(&mut text, signature & 15);
    text
}

/// Family and the word that Windows calls the revision (model and stepping).
pub fn family_and_revision() -> (u32, u32) {
    // SAFETY: leaf 1 always exists.
    let signature = unsafe { __cpuid(1).eax };
    let model = signature >> 4 & 15 | (signature >> 16 & 15) << 4;
    let base = signature >> 8 & 15;
    let family = if base == 15 { base + (signature >> 20 & 255) } else { base };
    (family, model << 8 | signature & 15)
}

/// Speed in MHz: the processor's own word, else the kernel's.
pub fn megahertz() -> u32 {
    // SAFETY: only asked when it is there.
    let own = unsafe { if __cpuid(0).eax >= 0x16 { __cpuid(0x16).eax & 0xffff } else { 0 } };
    if own != 0 {
        return own;
    }
    let text = match read_file(r"\\?\unix\proc\cpuinfo") {
        Some(text) => text,
        None => return 0,
    };
    let key = b"cpu MHz";
    let at = match text.windows(key.len()).position(|w| w == key) {
        Some(at) => at,
        None => return 0,
    };
    let digits = text[at..].iter().skip_while(|b| !b.is_ascii_digit()).take_while(|b| b.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// Appends a number in decimal.
pub fn number(text: &mut Text, number_: u32) {
    let mut digits = [0u16; 10];
    let (mut rest, mut at) = (number_, digits.len());
    loop {
        at -= 1;
        digits[at] = u16::from(b'0') + (rest % 10) as u16;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend(&digits[at..]);
}

fn from_registers(registers: &[u32]) -> Text {
    let mut text = Text::new();
    for register in registers {
        for byte in register.to_le_bytes() {
            if byte != 0 && !(byte == b' ' && text.is_empty()) {
                text.push(u16::from(byte));
            }
        }
    }
    text
}
