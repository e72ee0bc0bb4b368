//! The new format: entries one after the other, each with its checksums (Windows 8.1 and later).

use super::marvin;
use super::target::{Target, word};
use crate::error::HiveError;

const FIRST: usize = 512;
const ENTRY: usize = 40;

/// Applies the entries of a log whose first one has the number `next`; `last` is the newest applied so far.
pub(super) fn apply(
    target: &mut Target,
    log: &[u8],
    mut next: u32,
    last: &mut Option<u32>,
) -> Result<(), HiveError> {
    let mut at = FIRST;
    while let Some(entry) = entry(log, at, next) {
        target.resize(word(entry, 16))?;
        let count = word(entry, 20) as usize;
        let mut pages = ENTRY + count * 8;
        for reference in entry[ENTRY..pages].chunks_exact(8) {
            let (offset, size) = (word(reference, 0), word(reference, 4) as usize);
            let Some(page) = entry.get(pages..pages + size) else {
                return Err(HiveError::Dirty("an entry of a log is shorter than its pages"));
            };
            if !target.put(offset, page) {
                return Err(HiveError::Dirty("an entry of a log writes outside of the hive"));
            }
            pages += size;
        }
        *last = Some(next);
        next = next.wrapping_add(1);
        at += entry.len();
    }
    Ok(())
}

/// The number that follows the last whole entry.
pub(super) fn end(log: &[u8], mut next: u32) -> u32 {
    let mut at = FIRST;
    while let Some(entry) = entry(log, at, next) {
        next = next.wrapping_add(1);
        at += entry.len();
    }
    next
}

/// The entry at an offset, if it is whole and has the number.
fn entry(log: &[u8], at: usize, number: u32) -> Option<&[u8]> {
    let rest = log.get(at..).filter(|r| r.len() >= ENTRY && r.starts_with(b"HvLE"))?;
    let size = word(rest, 4) as usize;
    let entry = rest.get(..size).filter(|_| size.is_multiple_of(512) && size >= 512)?;
    let long = |at| u64::from(word(entry, at)) | u64::from(word(entry, at + 4)) << 32;
    let whole = long(24) == marvin::hash(&entry[ENTRY..]) && long(32) == marvin::hash(&entry[..32]);
    let fits = (word(entry, 20) as usize).checked_mul(8).is_some_and(|n| n <= size - ENTRY);
    (whole && fits && word(entry, 12) == number).then_some(entry)
}
