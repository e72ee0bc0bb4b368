//! Reads which shared libraries an x86-64 ELF file names (`DT_NEEDED`).
//!
//! Format: System V ABI, chapter 5 "Program Loading and Dynamic Linking". Only what is needed to close a set of
//! files over its libraries; anything that does not read yields `None`.

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Sonames that the file needs, in file order; `None` if it is no 64-bit little-endian ELF file or is damaged.
/// A file without a dynamic section needs nothing.
pub(super) fn needed(bytes: &[u8]) -> Option<Vec<String>> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64_at(bytes, 32)? as usize;
    let size = usize::from(u16_at(bytes, 54)?);
    let count = usize::from(u16_at(bytes, 56)?);
    let mut loads = Vec::new();
    let mut dynamic = None;
    for i in 0..count {
        let at = table.checked_add(i * size)?;
        let kind = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        let (offset, address, file_size) =
            (u64_at(bytes, at + 8)?, u64_at(bytes, at + 16)?, u64_at(bytes, at + 32)?);
        match kind {
            PT_LOAD => loads.push((address, file_size, offset)),
            PT_DYNAMIC => dynamic = Some((offset as usize, file_size as usize)),
            _ => {}
        }
    }
    let Some((start, length)) = dynamic else { return Some(Vec::new()) };
    let mut offsets = Vec::new();
    let mut strings = None;
    for at in (start..start.checked_add(length)?).step_by(16) {
        match (u64_at(bytes, at)?, u64_at(bytes, at + 8)?) {
            (DT_NULL, _) => break,
            (DT_NEEDED, offset) => offsets.push(offset as usize),
            (DT_STRTAB, address) => strings = Some(address),
            _ => {}
        }
    }
    if offsets.is_empty() {
        return Some(Vec::new());
    }
    let strings = strings?;
    let (address, _, offset) =
        loads.iter().find(|(a, s, _)| (*a..a.saturating_add(*s)).contains(&strings))?;
    let strings = (strings - address + offset) as usize;
    offsets.iter().map(|o| string(bytes, strings.checked_add(*o)?)).collect()
}

fn string(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().take(256).position(|b| *b == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_program_names_libc() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(super::needed(&this).unwrap().iter().any(|n| n.starts_with("libc.so")));
    }

    #[test]
    fn junk_and_truncation_are_refused() {
        assert_eq!(super::needed(b"#!/bin/sh"), None);
        assert_eq!(super::needed(b"\x7fELF\x02\x01\x01"), None);
    }
}
