//! The first 4096 bytes ("Base block").

use crate::error::HiveError;

/// Length; everything after it is bins.
pub(crate) const LENGTH: usize = 4096;
/// Where the checksum stands, and what it covers.
const CHECKSUM: usize = 0x1fc;
/// `Flags`: layered keys are supported.
const LAYERED: u32 = 2;

/// What the tree depends on.
pub(super) struct BaseBlock {
    /// Minor version, 3 to 6.
    pub(super) minor: u32,
    /// Offset of the root key's cell.
    pub(super) root: u32,
    /// Length of all bins.
    pub(super) bins_size: usize,
    /// Layering of keys counts.
    pub(super) layered: bool,
}

/// The checksum of a base block's first 508 bytes.
pub(crate) fn checksum(block: &[u8]) -> u32 {
    let words = block[..CHECKSUM].chunks_exact(4);
    match words.fold(0, |sum, w| sum ^ u32::from_le_bytes([w[0], w[1], w[2], w[3]])) {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    }
}

impl BaseBlock {
    pub(super) fn read(file: &[u8]) -> Result<Self, HiveError> {
        let Some(block) = file.get(..LENGTH) else {
            return Err(HiveError::NotAHive("it is shorter than a base block, 4096 bytes"));
        };
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        if &block[..4] != b"regf" {
            return Err(HiveError::NotAHive("it does not begin with \"regf\""));
        }
        let (major, minor) = (word(0x14), word(0x18));
        if major != 1 || !(3..=6).contains(&minor) {
            return Err(HiveError::NotAHive("its version is not 1.3 to 1.6"));
        }
        if word(0x1c) != 0 {
            return Err(HiveError::NotAHive("it is a log, not a primary file"));
        }
        if word(0x20) != 1 {
            return Err(HiveError::NotAHive("its format is not 1, direct memory load"));
        }
        if word(CHECKSUM) != checksum(block) {
            return Err(HiveError::Dirty("the base block's checksum is wrong"));
        }
        if word(4) != word(8) {
            return Err(HiveError::Dirty("its sequence numbers differ"));
        }
        let bins_size = word(0x28) as usize;
        if bins_size == 0 || !bins_size.is_multiple_of(4096) {
            return Err(HiveError::NotAHive("the length of its bins is no multiple of 4096"));
        }
        Ok(Self { minor, root: word(0x24), bins_size, layered: word(0x90) & LAYERED != 0 })
    }
}
