//! Records an archive that is packed of a tree which has its files already.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use silo_sys::beneath;

use crate::LayerError;
use crate::archive::Reader;
use crate::place::clean;
use crate::record::Record;
use crate::unpack::{Counter, Limits, Unpacked};

/// Reads the plain tar of a Linux layer that is packed of `tree` and tells `record` of it: what a file of the tree holds, as
/// long as the entry says, is told as that file's.
///
/// Nothing is written. That the files hold what the archive does is not looked at. The reader is left after the end mark.
pub fn record_packed(
    tar: &mut dyn Read,
    tree: &Path,
    limits: &Limits,
    record: &mut dyn Record,
) -> Result<Unpacked, LayerError> {
    let root = File::open(tree).map_err(|e| LayerError::io("opening", tree, e))?;
    let mut reader = Reader::recorded(tar, record);
    let mut counter = Counter::new(limits);
    while let Some(item) = reader.next()? {
        counter.entry(&item)?;
        if !item.kind.is_file() || item.size == 0 {
            continue;
        }
        let path = clean(&item.name, &item.name)?;
        let file = beneath::open_no_links(&root, &path, OFlags::PATH, Mode::empty());
        let is_its = file
            .and_then(|file| File::from(file).metadata())
            .is_ok_and(|meta| meta.is_file() && meta.len() == item.size);
        if is_its {
            reader.pass_over(&path).map_err(|e| LayerError::io("reading", &path, e))?;
        }
    }
    Ok(counter.sum)
}
