//! Names of keys and values: UTF-16 units, kept as a file has them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

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
///
/// Takes 16 bytes: a hive has one for each key and value, and most lie in its file.
#[derive(Clone, Default)]
pub struct Name {
    /// What holds its bytes; none: it has none.
    holder: Option<Arc<Bytes>>,
    /// Where they begin there.
    at: u32,
    /// How many they are, and in the top bit: two a unit, little-endian; else one.
    length: u32,
}

const WIDE: u32 = 1 << 31;

impl Name {
    /// As a file stores it, `length` bytes of `holder` from `at` on: Latin-1, or UTF-16 little-endian (a last odd byte is
    /// dropped). What is beyond the holder's end is no part of it.
    pub(crate) fn stored(holder: &Arc<Bytes>, at: u32, length: u16, wide: bool) -> Self {
        let room = holder.len().saturating_sub(at as usize);
        let length = u32::from(length).min(u32::try_from(room).unwrap_or(u32::MAX));
        let length = if wide { length & !1 | WIDE } else { length };
        Self { holder: Some(holder.clone()), at, length }
    }

    fn wide(&self) -> bool {
        self.length & WIDE != 0
    }

    fn bytes(&self) -> &[u8] {
        let (at, length) = (self.at as usize, (self.length & !WIDE) as usize);
        self.holder.as_ref().and_then(|holder| holder.get(at..at + length)).unwrap_or_default()
    }

    /// The units.
    pub fn units(&self) -> impl Iterator<Item = u16> + '_ {
        let step = if self.wide() { 2 } else { 1 };
        self.bytes().chunks(step).map(|c| u16::from_le_bytes([c[0], c.get(1).copied().unwrap_or(0)]))
    }

    /// From units. Of 2³⁰ or more the rest is dropped; no hive can hold a name of so many.
    pub fn from_units(units: &[u16]) -> Self {
        if units.is_empty() {
            return Self::default();
        }
        let units = &units[..units.len().min((1 << 30) - 1)];
        let wide = units.iter().any(|u| *u > 0xff);
        let bytes: Vec<u8> = match wide {
            true => units.iter().flat_map(|u| u.to_le_bytes()).collect(),
            false => units.iter().map(|u| *u as u8).collect(),
        };
        let length = bytes.len() as u32 | if wide { WIDE } else { 0 };
        Self { holder: Some(Arc::new(bytes.into())), at: 0, length }
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        self.bytes().len() / if self.wide() { 2 } else { 1 }
    }

    /// Has no units: the name of a key's default value.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Bytes for a file, and whether they are Latin-1 ("compressed").
    pub(crate) fn packed(&self) -> (Cow<'_, [u8]>, bool) {
        if self.wide() && self.units().all(|u| u <= 0xff) {
            return (self.units().map(|u| u as u8).collect(), true);
        }
        (self.bytes().into(), !self.wide())
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
        match self.wide() == other.wide() {
            true => self.bytes() == other.bytes(),
            false => self.units().eq(other.units()),
        }
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
        let holder = Arc::new(Bytes::from_static(b"xa\0b\0c"));
        let wide = Name::stored(&holder, 1, 5, true);
        assert_eq!(wide, Name::from("ab"));
        assert_eq!(wide.packed(), (b"ab"[..].into(), true));
        assert_eq!(Name::stored(&holder, 5, 9, false), Name::from("c"));
        assert!(Name::stored(&holder, 9, 9, false).is_empty());
    }
}
