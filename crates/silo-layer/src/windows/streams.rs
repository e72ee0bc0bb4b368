//! Alternate streams in an archive: entries `file:stream` that follow their file.

use std::io::Read;

use super::aside::{INLINE, Store};
use super::names;
use crate::LayerError;
use crate::archive::{Item, Reader};

/// Bytes that the list of a file's streams may have: about what NTFS' list of attributes holds.
const LARGEST_LIST: usize = 256 << 10;
/// What the stream's type is called where it is said (MS-FSCC, 2.1.4).
const TYPE: &str = ":$DATA";

/// The entry before, to which streams may belong.
#[derive(Debug)]
pub(super) struct Owner<At> {
    /// Its name in the archive.
    pub(super) name: Vec<u8>,
    /// Where it is.
    pub(super) at: At,
    /// Its streams so far, each with the value that stands for the content.
    pub(super) streams: Vec<(String, Vec<u8>)>,
    size: usize,
}

impl<At> Owner<At> {
    pub(super) fn new(name: &[u8], at: At) -> Self {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        Self { name: name.to_vec(), at, streams: Vec::new(), size: 0 }
    }

    /// Takes the stream `item`, named `file:stream`.
    pub(super) fn take(
        &mut self,
        store: &Store,
        item: &Item,
        content: &mut Reader<'_>,
    ) -> Result<(), LayerError> {
        let hostile = |why: &str| LayerError::hostile(&item.name, why);
        let name = item.name.strip_prefix(self.name.as_slice()).and_then(|rest| rest.strip_prefix(b":"));
        let name = name.ok_or_else(|| hostile("a stream that does not follow its file"))?;
        let name = std::str::from_utf8(name).map_err(|_| hostile("its name is not UTF-8"))?;
        if !item.kind.is_file() {
            return Err(hostile("a stream must be a file"));
        }
        // The type is said or left out; written it is left out.
        let cut = name.len().saturating_sub(TYPE.len());
        let typed = name.get(cut..).is_some_and(|end| end.eq_ignore_ascii_case(TYPE));
        let name = if typed { &name[..cut] } else { name };
        names::check_stream(name).map_err(|why| hostile(&why))?;
        let folded = names::fold(name);
        // Streams are few; a file with very many is refused below.
        if self.streams.iter().any(|(other, _)| names::fold(other) == folded) {
            return Err(hostile("the file has this stream already"));
        }
        self.size += name.len() + (item.size as usize).min(INLINE) + 100;
        if self.size > LARGEST_LIST {
            return Err(hostile("more streams than NTFS could hold"));
        }
        let mut content: &mut dyn Read = content;
        let value = store.keep(&mut content, item.size).map_err(|source| LayerError::Io {
            doing: format!("keeping the stream {:?}", String::from_utf8_lossy(&item.name)),
            source,
        })?;
        self.streams.push((name.to_owned(), value));
        Ok(())
    }
}
