//! Keys, values, lists and descriptors as cells.

use std::collections::HashMap;

use bytes::Bytes;

use super::cells::Cells;
use crate::error::HiveError;
use crate::name::{KEY_NAME, VALUE_NAME};
use crate::overlay::Named;
use crate::tree::{Key, Layering, Semantics, Value};

const NIL: u32 = u32::MAX;
/// Length of an `nk` before the name.
const NK: usize = 0x4c;
/// In it, the offsets of the lists.
const SUBKEYS: usize = 0x1c;
const VALUES: usize = 0x28;
/// Hive entry, not to be deleted: the root.
const ROOT: u16 = 0x0c;
const LINK: u16 = 0x10;
const LATIN1_KEY: u16 = 0x20;
const LATIN1_VALUE: u16 = 1;
const TOMBSTONE: u16 = 2;
const RESIDENT: u32 = 1 << 31;
/// "Big data".
const SEGMENT: usize = 16344;
/// Entries in a leaf: Windows' own writer takes 507, so that a leaf fits a bin of 4096 bytes.
const LEAF: usize = 500;
/// Windows' own bound.
const DEPTH: usize = 512;

/// Writes a tree; returns the root's cell.
pub(super) fn write(cells: &mut Cells, root: &Key, layered: bool) -> Result<u32, HiveError> {
    let mut writer = Writer { cells, layered, security: HashMap::new(), order: Vec::new() };
    let offset = writer.node(root, NIL)?;
    writer.contents(root, offset, 1)?;
    writer.link_security();
    Ok(offset)
}

struct Writer<'a> {
    cells: &'a mut Cells,
    layered: bool,
    /// Descriptor → place in `order`.
    security: HashMap<Bytes, usize>,
    /// Descriptors' cells in the order of their first use, with the number of keys that have them.
    order: Vec<(u32, u32)>,
}

impl Writer<'_> {
    /// The key's own record, with descriptor and class.
    fn node(&mut self, key: &Key, parent: u32) -> Result<u32, HiveError> {
        let (name, latin1) = key.name.packed();
        key.name.check(1, KEY_NAME)?;
        if !self.layered && key.layering != Layering::default() {
            return Err(HiveError::Tree("a key of a plain hive has layering"));
        }
        if key.security.is_empty() {
            return Err(HiveError::Tree("a key has no security descriptor"));
        }
        if key.class.len() > usize::from(u16::MAX) {
            return Err(HiveError::Tree("a class has more than 65535 bytes"));
        }
        let offset = self.cells.allocate(NK + name.len())?;
        let security = self.security(&key.security)?;
        let class = if key.class.is_empty() { NIL } else { self.cells.add(&key.class)? };
        let mut flags = if latin1 { LATIN1_KEY } else { 0 };
        if parent == NIL {
            flags |= ROOT;
        }
        if key.is_link {
            flags |= LINK;
        }
        let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0) as u32;
        let longest_subkey = longest(&mut key.subkeys().iter().map(|k| k.name.len() * 2));
        let longest_class = longest(&mut key.subkeys().iter().map(|k| k.class.len()));
        let longest_value = longest(&mut key.values().iter().map(|v| v.name.len() * 2));
        let longest_data = longest(&mut key.values().iter().map(|v| v.data.len()));
        let layer = if self.layered { layer_byte(key) } else { 0 };
        let nk = self.cells.content(offset, NK + name.len());
        let mut put = |at: usize, bytes: &[u8]| nk[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"nk");
        put(0x02, &flags.to_le_bytes());
        put(0x04, &key.written.to_le_bytes());
        put(0x0d, &[layer]);
        put(0x10, &parent.to_le_bytes());
        put(0x14, &(key.subkeys().len() as u32).to_le_bytes());
        put(SUBKEYS, &NIL.to_le_bytes());
        put(0x20, &NIL.to_le_bytes());
        put(0x24, &(key.values().len() as u32).to_le_bytes());
        put(VALUES, &NIL.to_le_bytes());
        put(0x2c, &security.to_le_bytes());
        put(0x30, &class.to_le_bytes());
        put(0x34, &(longest_subkey as u16).to_le_bytes());
        put(0x38, &longest_class.to_le_bytes());
        put(0x3c, &longest_value.to_le_bytes());
        put(0x40, &longest_data.to_le_bytes());
        put(0x48, &(name.len() as u16).to_le_bytes());
        put(0x4a, &(key.class.len() as u16).to_le_bytes());
        put(NK, &name);
        Ok(offset)
    }

    /// What a key's record points to; siblings' records lie side by side, where a search looks for them.
    fn contents(&mut self, key: &Key, offset: u32, depth: usize) -> Result<(), HiveError> {
        if depth > DEPTH {
            return Err(HiveError::Tree("keys are nested deeper than 512"));
        }
        ordered(key.subkeys())?;
        ordered(key.values())?;
        let mut subkeys = Vec::with_capacity(key.subkeys().len());
        for subkey in key.subkeys() {
            subkeys.push(self.node(subkey, offset)?);
        }
        let list = self.list(key.subkeys(), &subkeys)?;
        let values = self.values(key.values())?;
        let nk = self.cells.content(offset, NK);
        nk[SUBKEYS..SUBKEYS + 4].copy_from_slice(&list.to_le_bytes());
        nk[VALUES..VALUES + 4].copy_from_slice(&values.to_le_bytes());
        for (subkey, offset) in key.subkeys().iter().zip(subkeys) {
            self.contents(subkey, offset, depth + 1)?;
        }
        Ok(())
    }

    fn values(&mut self, values: &[Value]) -> Result<u32, HiveError> {
        if values.is_empty() {
            return Ok(NIL);
        }
        let mut list = Vec::with_capacity(values.len() * 4);
        for value in values {
            list.extend(self.value(value)?.to_le_bytes());
        }
        self.cells.add(&list)
    }

    fn value(&mut self, value: &Value) -> Result<u32, HiveError> {
        let (name, latin1) = value.name.packed();
        value.name.check(0, VALUE_NAME)?;
        if value.is_tombstone && !self.layered {
            return Err(HiveError::Tree("a value of a plain hive is a tombstone"));
        }
        let offset = self.cells.allocate(20 + name.len())?;
        let length = value.data.len();
        let mut inline = [0; 4];
        let (size, data) = if value.is_tombstone {
            (0, NIL)
        } else if length <= 4 {
            // An empty value too: some readers stumble over one without a cell.
            inline[..length].copy_from_slice(&value.data);
            (length as u32 | RESIDENT, u32::from_le_bytes(inline))
        } else {
            (length as u32, self.data(&value.data)?)
        };
        let flags = if latin1 { LATIN1_VALUE } else { 0 } | if value.is_tombstone { TOMBSTONE } else { 0 };
        let vk = self.cells.content(offset, 20 + name.len());
        let mut put = |at: usize, bytes: &[u8]| vk[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"vk");
        put(2, &(name.len() as u16).to_le_bytes());
        put(4, &size.to_le_bytes());
        put(8, &data.to_le_bytes());
        put(12, &(if value.is_tombstone { 0 } else { value.kind }).to_le_bytes());
        put(16, &flags.to_le_bytes());
        put(20, &name);
        Ok(offset)
    }

    fn data(&mut self, data: &[u8]) -> Result<u32, HiveError> {
        if data.len() <= SEGMENT {
            return self.cells.add(data);
        }
        let count = data.len().div_ceil(SEGMENT);
        if count > usize::from(u16::MAX) {
            return Err(HiveError::Tree("a value has more than 1 GiB"));
        }
        let record = self.cells.allocate(8)?;
        let list = self.cells.allocate(count * 4)?;
        for (i, part) in data.chunks(SEGMENT).enumerate() {
            // The last one is as long as the others.
            let segment = self.cells.allocate(SEGMENT)?;
            self.cells.content(segment, part.len()).copy_from_slice(part);
            self.cells.content(list, count * 4)[i * 4..i * 4 + 4].copy_from_slice(&segment.to_le_bytes());
        }
        let db = self.cells.content(record, 8);
        db[..2].copy_from_slice(b"db");
        db[2..4].copy_from_slice(&(count as u16).to_le_bytes());
        db[4..].copy_from_slice(&list.to_le_bytes());
        Ok(record)
    }

    /// One leaf, or leaves under an index.
    fn list(&mut self, subkeys: &[Key], offsets: &[u32]) -> Result<u32, HiveError> {
        let mut leaves = Vec::new();
        for (keys, part) in subkeys.chunks(LEAF).zip(offsets.chunks(LEAF)) {
            let mut leaf = Vec::with_capacity(4 + part.len() * 8);
            leaf.extend(b"lh");
            leaf.extend((part.len() as u16).to_le_bytes());
            for (key, offset) in keys.iter().zip(part) {
                leaf.extend(offset.to_le_bytes());
                leaf.extend(key.name.hash().to_le_bytes());
            }
            leaves.push(self.cells.add(&leaf)?);
        }
        match leaves[..] {
            [] => Ok(NIL),
            [one] => Ok(one),
            _ if leaves.len() > usize::from(u16::MAX) => Err(HiveError::Tree("a key has too many subkeys")),
            _ => {
                let mut index = Vec::with_capacity(4 + leaves.len() * 4);
                index.extend(b"ri");
                index.extend((leaves.len() as u16).to_le_bytes());
                leaves.iter().for_each(|l| index.extend(l.to_le_bytes()));
                self.cells.add(&index)
            }
        }
    }

    fn security(&mut self, descriptor: &Bytes) -> Result<u32, HiveError> {
        if let Some(place) = self.security.get(descriptor) {
            let (offset, keys) = &mut self.order[*place];
            *keys += 1;
            return Ok(*offset);
        }
        let offset = self.cells.allocate(0x14 + descriptor.len())?;
        let sk = self.cells.content(offset, 0x14 + descriptor.len());
        sk[..2].copy_from_slice(b"sk");
        sk[0x10..0x14].copy_from_slice(&(descriptor.len() as u32).to_le_bytes());
        sk[0x14..].copy_from_slice(descriptor);
        self.security.insert(descriptor.clone(), self.order.len());
        self.order.push((offset, 1));
        Ok(offset)
    }

    /// Descriptors form a ring.
    fn link_security(&mut self) {
        let count = self.order.len();
        for i in 0..count {
            let (offset, keys) = self.order[i];
            let (next, previous) = (self.order[(i + 1) % count].0, self.order[(i + count - 1) % count].0);
            let sk = self.cells.content(offset, 0x14);
            sk[4..8].copy_from_slice(&next.to_le_bytes());
            sk[8..12].copy_from_slice(&previous.to_le_bytes());
            sk[12..16].copy_from_slice(&keys.to_le_bytes());
        }
    }
}

/// A name that was changed may be out of its place, where no search finds it.
fn ordered<T: Named>(list: &[T]) -> Result<(), HiveError> {
    match list.windows(2).find(|pair| pair[0].name().order(pair[1].name()).is_ge()) {
        Some(pair) => Err(pair[1].name().refused("it is not in its place among its siblings")),
        None => Ok(()),
    }
}

fn layer_byte(key: &Key) -> u8 {
    let semantics = match key.layering.semantics {
        Semantics::Merge => 0,
        Semantics::Tombstone => 1,
        Semantics::SupersedeLocal => 2,
        Semantics::SupersedeTree => 3,
    };
    semantics | if key.layering.inherit_class { 0x80 } else { 0 }
}
