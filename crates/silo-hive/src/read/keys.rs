//! Keys (`nk`) with their classes and security descriptors (`sk`).

use std::collections::HashMap;

use bytes::Bytes;

use super::base_block::BaseBlock;
use super::cells::{Cells, NIL, broken, u16_at, u32_at};
use super::{lists, values};
use crate::error::HiveError;
use crate::tree::{DEFAULT_SECURITY, Key, Layering, Semantics};

/// Length of an `nk` before the name.
const FIXED: u32 = 0x4c;
const VOLATILE: u16 = 0x1;
const LINK: u16 = 0x10;
const LATIN1: u16 = 0x20;
const INHERIT_CLASS: u8 = 0x80;
/// Windows' own bound.
const DEPTH: usize = 512;

/// Reads keys of one hive.
pub(super) struct Keys {
    cells: Cells,
    minor: u32,
    layered: bool,
    /// Descriptors read so far.
    security: HashMap<u32, Bytes>,
}

impl Keys {
    pub(super) fn new(cells: Cells, base: &BaseBlock) -> Self {
        Self { cells, minor: base.minor, layered: base.layered, security: HashMap::new() }
    }

    pub(super) fn root(mut self, offset: u32) -> Result<Key, HiveError> {
        match self.key(offset, 1)? {
            Some(root) => Ok(root),
            None => Err(broken("nk", offset, "the root key is volatile")),
        }
    }

    /// The key at an offset, unless it is volatile.
    fn key(&mut self, offset: u32, depth: usize) -> Result<Option<Key>, HiveError> {
        let cell = self.cells.take("nk", offset)?;
        let bad = |problem| broken("nk", offset, problem);
        if cell.get(..2) != Some(b"nk") || cell.len() < FIXED as usize {
            return Err(bad("the signature is missing"));
        }
        if depth > DEPTH {
            return Err(bad("keys are nested deeper than 512"));
        }
        let half = |at| u16_at(&cell, at).unwrap_or(0);
        let word = |at| u32_at(&cell, at).unwrap_or(0);
        let flags = half(2);
        if flags & VOLATILE != 0 {
            return Ok(None);
        }
        let length = half(0x48);
        if cell.len() < FIXED as usize + usize::from(length) {
            return Err(bad("the name is longer than the cell"));
        }
        let name = self.cells.name(offset, FIXED, length, flags & LATIN1 == 0);
        if name.is_empty() {
            return Err(bad("the name is empty"));
        }
        let mut key = Key::new(name);
        key.written = u64::from(word(4)) | u64::from(word(8)) << 32;
        key.is_link = flags & LINK != 0;
        key.class = self.class(word(0x30), usize::from(half(0x4a)))?;
        key.security = self.security(word(0x2c))?;
        if self.layered {
            let layer = cell[0x0d];
            key.layering = Layering {
                semantics: match layer & 3 {
                    0 => Semantics::Merge,
                    1 => Semantics::Tombstone,
                    2 => Semantics::SupersedeLocal,
                    _ => Semantics::SupersedeTree,
                },
                inherit_class: layer & INHERIT_CLASS != 0,
            };
        }
        let values = match (word(0x24), word(0x28)) {
            (0, _) => Vec::new(),
            (count, at) => values::values(&mut self.cells, at, count, self.minor, self.layered)?,
        };
        let mut subkeys = Vec::new();
        if word(0x14) != 0 {
            let list = lists::subkeys(&mut self.cells, word(0x1c))?;
            if list.len() != word(0x14) as usize {
                return Err(bad("the list of subkeys has another length than the key says"));
            }
            subkeys.reserve_exact(list.len());
            for at in list {
                subkeys.extend(self.key(at, depth + 1)?);
            }
        }
        key.set_contents(values, subkeys).map_err(|_| bad("two subkeys or two values have one name"))?;
        Ok(Some(key))
    }

    fn class(&mut self, offset: u32, length: usize) -> Result<Bytes, HiveError> {
        if offset == NIL || length == 0 {
            return Ok(Bytes::new());
        }
        let cell = self.cells.take("class", offset)?;
        if cell.len() < length {
            return Err(broken("class", offset, "it is longer than the cell"));
        }
        Ok(cell.slice(..length))
    }

    fn security(&mut self, offset: u32) -> Result<Bytes, HiveError> {
        // Old and hand-made hives have keys without one.
        if offset == NIL {
            return Ok(Bytes::from_static(DEFAULT_SECURITY));
        }
        if let Some(known) = self.security.get(&offset) {
            return Ok(known.clone());
        }
        let cell = self.cells.take("sk", offset)?;
        if cell.get(..2) != Some(b"sk") {
            return Err(broken("sk", offset, "the signature is missing"));
        }
        let size = u32_at(&cell, 0x10).unwrap_or(u32::MAX) as usize;
        if cell.len() < 0x14 || size > cell.len() - 0x14 {
            return Err(broken("sk", offset, "the descriptor is longer than the cell"));
        }
        if size == 0 {
            return Err(broken("sk", offset, "the descriptor is empty"));
        }
        let descriptor = cell.slice(0x14..0x14 + size);
        self.security.insert(offset, descriptor.clone());
        Ok(descriptor)
    }
}
