//! Values (`vk`) and their data, big ones (`db`) too.

use bytes::{Bytes, BytesMut};

use super::cells::{Cells, NIL, broken, u16_at, u32_at};
use crate::error::HiveError;
use crate::tree::Value;

/// Size field: the data stand in the offset field.
const RESIDENT: u32 = 1 << 31;
/// More than this lies in segments of this size, from version 1.4 on ("Big data").
const SEGMENT: usize = 16344;
/// The least that a value takes: its record and its place in a list.
const VALUE: usize = 28;
const LATIN1: u16 = 1;
const TOMBSTONE: u16 = 2;

/// The values that a list of `count` cells names.
pub(super) fn values(
    cells: &mut Cells,
    offset: u32,
    count: u32,
    minor: u32,
    layered: bool,
) -> Result<Vec<Value>, HiveError> {
    let list = cells.take("value list", offset)?;
    let entries = (count as usize).checked_mul(4).and_then(|length| list.get(..length));
    let Some(entries) = entries else {
        return Err(broken("value list", offset, "the cell has no room for so many values"));
    };
    if count as usize > cells.room(VALUE) {
        return Err(broken("value list", offset, "it names more values than the file has room for"));
    }
    let mut values = Vec::with_capacity(count as usize);
    for at in entries.chunks_exact(4).filter_map(|e| u32_at(e, 0)) {
        values.push(value(cells, at, minor, layered)?);
    }
    Ok(values)
}

fn value(cells: &mut Cells, offset: u32, minor: u32, layered: bool) -> Result<Value, HiveError> {
    let cell = cells.take("vk", offset)?;
    let bad = |problem| broken("vk", offset, problem);
    if cell.get(..2) != Some(b"vk") || cell.len() < 20 {
        return Err(bad("the signature is missing"));
    }
    let word = |at| u32_at(&cell, at).unwrap_or(0);
    let (size, at, kind) = (word(4), word(8), word(12));
    let flags = u16_at(&cell, 16).unwrap_or(0);
    let length = u16_at(&cell, 2).unwrap_or(0);
    if cell.len() < 20 + usize::from(length) {
        return Err(bad("the name is longer than the cell"));
    }
    let name = cells.name(offset, 20, length, flags & LATIN1 == 0);
    if layered && flags & TOMBSTONE != 0 {
        return Ok(Value::tombstone(name));
    }
    let data = if size & RESIDENT != 0 {
        let size = (size & !RESIDENT) as usize;
        if size > 4 {
            return Err(bad("more than four bytes of data stand in the record itself"));
        }
        cell.slice(8..8 + size)
    } else if size == 0 {
        Bytes::new()
    } else {
        data(cells, at, size as usize, minor)?
    };
    Ok(Value { name, kind, data, is_tombstone: false })
}

fn data(cells: &mut Cells, offset: u32, size: usize, minor: u32) -> Result<Bytes, HiveError> {
    let bad = |problem| broken("value data", offset, problem);
    let cell = cells.take("value data", offset)?;
    if cell.len() >= size {
        return Ok(cell.slice(..size));
    }
    if minor < 4 || size <= SEGMENT || cell.get(..2) != Some(b"db") {
        return Err(bad("the cell is smaller than the data"));
    }
    let count = usize::from(u16_at(&cell, 2).unwrap_or(0));
    if count != size.div_ceil(SEGMENT) {
        return Err(bad("the number of segments does not fit the size"));
    }
    let at = u32_at(&cell, 4).unwrap_or(NIL);
    let list = cells.take("db list", at)?;
    if list.len() < count * 4 {
        return Err(broken("db list", at, "it has more segments than the cell has room for"));
    }
    if size > cells.room(1) {
        return Err(bad("the data are longer than the file"));
    }
    let mut whole = BytesMut::with_capacity(size);
    for segment in list[..count * 4].chunks_exact(4).filter_map(|e| u32_at(e, 0)) {
        let wanted = SEGMENT.min(size - whole.len());
        let bytes = cells.take("db segment", segment)?;
        let Some(bytes) = bytes.get(..wanted) else {
            return Err(broken("db segment", segment, "it is shorter than its part"));
        };
        whole.extend_from_slice(bytes);
    }
    Ok(whole.freeze())
}
