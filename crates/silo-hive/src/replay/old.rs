//! The old format: a bitmap of the pages that changed, and the pages (up to Windows 8).

use super::target::{Target, word};
use crate::error::HiveError;

/// Of a page, and of what else is aligned.
const PAGE: usize = 512;
const SIGNATURE: &[u8] = b"DIRT";

/// Applies a log.
pub(super) fn apply(target: &mut Target, log: &[u8], last: &mut Option<u32>) -> Result<(), HiveError> {
    let bins_size = word(log, 0x28);
    let pages = bins_size as usize / PAGE;
    let Some(bitmap) = log.get(PAGE..).filter(|b| b.starts_with(SIGNATURE)) else { return Ok(()) };
    let Some(bitmap) = bitmap.get(SIGNATURE.len()..SIGNATURE.len() + pages.div_ceil(8)) else {
        return Err(HiveError::Dirty("a log is shorter than its bitmap"));
    };
    target.resize(bins_size)?;
    let mut at = (PAGE + SIGNATURE.len() + bitmap.len()).next_multiple_of(PAGE);
    for page in (0..pages).filter(|p| bitmap[p / 8] >> (p % 8) & 1 == 1) {
        let Some(bytes) = log.get(at..at + PAGE) else {
            return Err(HiveError::Dirty("a log is shorter than its pages"));
        };
        if !target.put((page * PAGE) as u32, bytes) {
            return Err(HiveError::Dirty("a log writes outside of the hive"));
        }
        at += PAGE;
    }
    *last = Some(word(log, 4));
    Ok(())
}
