//! Names of keys and values: UTF-16 units, kept as a file has them.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use crate::error::HiveError;
use crate::upcase::upcase;

/// Most units of a key's name.
pub(crate) const KEY_NAME: usize = 255;
/// Most units of a value's name.
pub(crate) const VALUE_NAME: usize = 16383;

/// A name: any UTF-16 units, ordered by [`Name::order`] without regard to case, compared by [`Eq`] exactly.
///
/// So two names may be of one order and not `==`; a key has one value or subkey of an order.
#[derive(Clone, Default)]
pub struct Name {
    bytes: Bytes,
    /// Two bytes a unit, little-endian; else one.
    wide: bool,
}

impl Name {
    /// As a file stores it: Latin-1, or UTF-16 little-endian (a last odd byte is dropped).
    pub(crate) fn stored(bytes: Bytes, wide: bool) -> Self {
        let bytes = if wide { bytes.slice(..bytes.len() & !1) } else { bytes };
        Self { bytes, wide }
    }

    /// The units.
    pub fn units(&self) -> impl Iterator<Item = u16> + '_ {
        let step = if self.wide { 2 } else { 1 };
        self.bytes.chunks(step).map(|c| u16::from_le_bytes([c[0], c.get(1).copied().unwrap_or(0)]))
    }

    /// From units.
    pub fn from_units(units: &[u16]) -> Self {
        let wide = units.iter().any(|u| *u > 0xff);
        let bytes: Vec<u8> = match wide {
            true => units.iter().flat_map(|u| u.to_le_bytes()).collect(),
            false => units.iter().map(|u| *u as u8).collect(),
        };
        Self { bytes: bytes.into(), wide }
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        self.bytes.len() / if self.wide { 2 } else { 1 }
    }

    /// Has no units: the name of a key's default value.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes for a file, and whether they are Latin-1 ("compressed").
    pub(crate) fn packed(&self) -> (Bytes, bool) {
        if self.wide && self.units().all(|u| u <= 0xff) {
            return (self.units().map(|u| u as u8).collect(), true);
        }
        (self.bytes.clone(), !self.wide)
    }

    /// The hash of `lh` lists: of the capitals ("Hash leaf").
    pub(crate) fn hash(&self) -> u32 {
        self.units().fold(0u32, |h, u| h.wrapping_mul(37).wrapping_add(u32::from(upcase(u))))
    }

    /// Refuses a name of another number of units.
    pub(crate) fn check(&self, least: usize, most: usize) -> Result<(), HiveError> {
        match self.len() {
            n if n < least => Err(self.refused("it is empty")),
            n if n > most => Err(self.refused("it is too long")),
            _ => Ok(()),
        }
    }

    /// The error that the name is.
    pub(crate) fn refused(&self, problem: &'static str) -> HiveError {
        HiveError::Name { name: self.to_string(), problem }
    }

    /// Its capitals, by which lists are in order.
    pub(crate) fn capitals(&self) -> impl Iterator<Item = u16> + '_ {
        self.units().map(upcase)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::from_units(&text.encode_utf16().collect::<Vec<_>>())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        if self.wide == other.wide { self.bytes == other.bytes } else { self.units().eq(other.units()) }
    }
}

impl Eq for Name {}

impl Name {
    /// The order of a hive's lists: capitals unit by unit, the shorter first.
    pub fn order(&self, other: &Self) -> Ordering {
        self.capitals().cmp(other.capitals())
    }

    /// As [`Name::order`], with a text.
    pub(crate) fn order_text(&self, other: &str) -> Ordering {
        self.capitals().cmp(other.encode_utf16().map(upcase))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in char::decode_utf16(self.units()) {
            fmt::Write::write_char(f, c.unwrap_or(char::REPLACEMENT_CHARACTER))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_windows_has_them() {
        for (name, hash) in [("Acme", 0x0033_aece), ("Old", 0x0001_b1b7), ("DeadKey", 0xc3d9_f017)] {
            assert_eq!(Name::from(name).hash(), hash, "{name}");
        }
    }

    #[test]
    fn case_counts_for_equality_not_for_order() {
        let (a, b) = (Name::from("Über"), Name::from("üBER"));
        assert_eq!(a.order(&b), Ordering::Equal);
        assert_ne!(a, b);
        assert_eq!(Name::from("a").order(&Name::from("AB")), Ordering::Less);
        assert_eq!(Name::from("a_").order(&Name::from("aB")), Ordering::Greater);
    }

    #[test]
    fn a_wide_name_of_narrow_units_is_the_narrow_one() {
        let wide = Name::stored(Bytes::from_static(b"a\0b\0"), true);
        assert_eq!(wide, Name::from("ab"));
        assert_eq!(wide.packed(), (Bytes::from_static(b"ab"), true));
    }
}
