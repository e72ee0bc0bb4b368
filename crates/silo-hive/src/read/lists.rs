//! Subkey lists ("Subkeys list"): `li`, `lf`, `lh`, and `ri` over them.

use super::cells::{Cells, broken, u16_at, u32_at};
use crate::error::HiveError;

/// The least that a subkey takes: its record and its place in a list.
const SUBKEY: usize = 92;

/// The cells of the subkeys that a list names, in its order.
pub(super) fn subkeys(cells: &mut Cells, offset: u32) -> Result<Vec<u32>, HiveError> {
    let list = cells.take("subkey list", offset)?;
    let mut keys = Vec::new();
    if list.get(..2) == Some(b"ri") {
        for part in entries(&list, offset, "ri", 4)? {
            let list = cells.take("subkey list", part)?;
            leaf(&list, part, &mut keys)?;
        }
    } else {
        leaf(&list, offset, &mut keys)?;
    }
    match keys.len() > cells.room(SUBKEY) {
        true => Err(broken("subkey list", offset, "it names more keys than the file has room for")),
        false => Ok(keys),
    }
}

fn leaf(list: &[u8], offset: u32, keys: &mut Vec<u32>) -> Result<(), HiveError> {
    match list.get(..2) {
        Some(b"li") => keys.extend(entries(list, offset, "li", 4)?),
        Some(b"lf") => keys.extend(entries(list, offset, "lf", 8)?),
        Some(b"lh") => keys.extend(entries(list, offset, "lh", 8)?),
        _ => return Err(broken("subkey list", offset, "it is none of li, lf, lh")),
    }
    Ok(())
}

fn entries<'a>(
    list: &'a [u8],
    offset: u32,
    record: &'static str,
    width: usize,
) -> Result<impl Iterator<Item = u32> + use<'a>, HiveError> {
    let count = usize::from(u16_at(list, 2).unwrap_or(0));
    let Some(entries) = list.get(4..4 + count * width) else {
        return Err(broken(record, offset, "it has more entries than the cell has room for"));
    };
    Ok(entries.chunks_exact(width).filter_map(|e| u32_at(e, 0)))
}
