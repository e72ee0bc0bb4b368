//! Reads and shrinks PE files: what an image loads, and the same image without symbols and debug sections.
//!
//! Format: Microsoft "PE Format" (portable executable), sections "Optional Header", "Section Table",
//! "The .idata Section", "The .edata Section", "Delay-Load Import Tables". Only what is needed here, and every
//! offset is checked: the files come from packages.

use std::collections::BTreeSet;

/// Offset of the PE signature's offset in the DOS header.
const E_LFANEW: usize = 0x3c;
/// Where Wine's build tools mark their own images, right after the DOS header, and with what.
const BUILTIN_MARK: (usize, &[u8]) = (0x40, b"Wine builtin DLL");
/// Size of one section header.
const SECTION_HEADER: usize = 40;
/// `IMAGE_SCN_MEM_DISCARDABLE`.
const DISCARDABLE: u32 = 0x0200_0000;
/// Data directories.
const EXPORT: usize = 0;
const IMPORT: usize = 1;
const DELAY_IMPORT: usize = 13;

/// What a file is not, when it is not a PE image that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a readable PE image: {0}")]
pub(super) struct PeError(&'static str);

struct Section {
    virtual_address: u32,
    virtual_size: u32,
    raw_offset: u32,
    raw_size: u32,
    characteristics: u32,
    name: [u8; 8],
}

/// A parsed view of one image's bytes.
pub(super) struct Pe<'a> {
    bytes: &'a [u8],
    header: usize,
    optional: usize,
    directories: usize,
    section_table: usize,
    sections: Vec<Section>,
}

impl<'a> Pe<'a> {
    /// Reads the headers.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Pe<'a>, PeError> {
        let truncated = PeError("truncated header");
        if bytes.get(..2) != Some(b"MZ") {
            return Err(PeError("no MZ signature"));
        }
        let header = u32_at(bytes, E_LFANEW).ok_or(truncated)? as usize;
        if bytes.get(header..header + 4) != Some(b"PE\0\0") {
            return Err(PeError("no PE signature"));
        }
        let optional = header + 24;
        let optional_size = usize::from(u16_at(bytes, header + 20).ok_or(truncated)?);
        let pe32_plus = match u16_at(bytes, optional).ok_or(truncated)? {
            0x20b => true,
            0x10b => false,
            _ => return Err(PeError("unknown optional header")),
        };
        let directories = optional + if pe32_plus { 112 } else { 96 };
        let count = usize::from(u16_at(bytes, header + 6).ok_or(truncated)?);
        let section_table = optional + optional_size;
        let sections = (0..count)
            .map(|i| {
                let at = section_table + i * SECTION_HEADER;
                Some(Section {
                    virtual_size: u32_at(bytes, at + 8)?,
                    virtual_address: u32_at(bytes, at + 12)?,
                    raw_size: u32_at(bytes, at + 16)?,
                    raw_offset: u32_at(bytes, at + 20)?,
                    characteristics: u32_at(bytes, at + 36)?,
                    name: bytes.get(at..at + 8)?.try_into().ok()?,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(truncated)?;
        Ok(Pe { bytes, header, optional, directories, section_table, sections })
    }

    /// Lower-case file names of every image that this one imports, imports when first called, or forwards
    /// exports to. Entries that do not read are left out: the loader would fail on them too.
    pub(super) fn needs(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.descriptors(IMPORT, 20, 12, &mut names);
        self.descriptors(DELAY_IMPORT, 32, 4, &mut names);
        self.forwards(&mut names);
        names
    }

    /// Names behind a table of fixed-size descriptors that ends with one whose name is zero.
    fn descriptors(&self, directory: usize, size: usize, name_at: usize, names: &mut BTreeSet<String>) {
        let Some((rva, _)) = self.directory(directory) else { return };
        let Some(start) = self.offset(rva) else { return };
        for at in (start..).step_by(size) {
            match u32_at(self.bytes, at + name_at) {
                None | Some(0) => return,
                Some(name) => names.extend(self.string(name).map(|n| n.to_ascii_lowercase())),
            }
        }
    }

    /// An export whose address lies inside the export directory is a string `module.function`.
    fn forwards(&self, names: &mut BTreeSet<String>) {
        let Some((rva, size)) = self.directory(EXPORT) else { return };
        let Some(table) = self.offset(rva) else { return };
        let (Some(count), Some(functions)) =
            (u32_at(self.bytes, table + 20), u32_at(self.bytes, table + 28).and_then(|f| self.offset(f)))
        else {
            return;
        };
        for i in 0..count as usize {
            let Some(function) = u32_at(self.bytes, functions + 4 * i) else { return };
            if (rva..rva.saturating_add(size)).contains(&function) {
                let module =
                    self.string(function).and_then(|f| Some(f.rsplit_once('.')?.0.to_ascii_lowercase()));
                names.extend(module.map(|m| if m.contains('.') { m } else { m + ".dll" }));
            }
        }
    }

    fn directory(&self, index: usize) -> Option<(u32, u32)> {
        let count = u32_at(self.bytes, self.directories - 4)? as usize;
        let at = self.directories + 8 * index;
        let (rva, size) = (u32_at(self.bytes, at)?, u32_at(self.bytes, at + 4)?);
        (index < count && rva != 0).then_some((rva, size))
    }

    fn offset(&self, rva: u32) -> Option<usize> {
        let section = self.sections.iter().find(|s| {
            let length = s.virtual_size.max(s.raw_size);
            (s.virtual_address..s.virtual_address.saturating_add(length)).contains(&rva)
        })?;
        Some((rva - section.virtual_address) as usize + section.raw_offset as usize)
    }

    fn string(&self, rva: u32) -> Option<String> {
        let rest = self.bytes.get(self.offset(rva)?..)?;
        let end = rest.iter().take(256).position(|b| *b == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    }
}

/// The image without its COFF symbol table and without the debug sections at its end. The loaded image is the
/// same; file and section alignment stay, so that Wine can map each section from the file instead of copying it.
pub(super) fn strip(bytes: &[u8]) -> Result<Vec<u8>, PeError> {
    let pe = Pe::parse(bytes)?;
    let is_debug = |s: &Section| {
        s.characteristics & DISCARDABLE != 0 && (s.name.starts_with(b"/") || s.name.starts_with(b".debug"))
    };
    let keep = pe.sections.iter().rposition(|s| !is_debug(s)).map_or(0, |last| last + 1);
    let last = pe.sections[..keep].last().ok_or(PeError("only debug sections"))?;
    let section_alignment = u32_at(bytes, pe.optional + 32).filter(|a| a.is_power_of_two());
    let section_alignment = section_alignment.ok_or(PeError("section alignment is no power of two"))?;
    let image_size = last
        .virtual_address
        .checked_add(last.virtual_size.max(last.raw_size))
        .and_then(|end| end.checked_next_multiple_of(section_alignment))
        .ok_or(PeError("image size overflows"))?;
    let end = pe.sections[..keep].iter().map(|s| s.raw_offset as usize + s.raw_size as usize).max();
    let end = end.filter(|end| *end <= bytes.len()).ok_or(PeError("section beyond the end of the file"))?;

    let mut out = bytes[..end].to_vec();
    out[pe.header + 6..pe.header + 8].copy_from_slice(&(keep as u16).to_le_bytes());
    // Symbol table pointer and count, the optional header's SizeOfImage and CheckSum (zero: not checked).
    out[pe.header + 12..pe.header + 20].fill(0);
    out[pe.optional + 56..pe.optional + 60].copy_from_slice(&image_size.to_le_bytes());
    out[pe.optional + 64..pe.optional + 68].fill(0);
    for i in keep..pe.sections.len() {
        let at = pe.section_table + i * SECTION_HEADER;
        out[at..at + SECTION_HEADER].fill(0);
    }
    debug_directory_is_gone(&mut out, &pe, image_size);
    Ok(out)
}

/// A data directory that pointed into a dropped section points nowhere.
fn debug_directory_is_gone(out: &mut [u8], pe: &Pe<'_>, image_size: u32) {
    for index in 0..16 {
        // The certificate table is a file offset, not an address; packages' files carry none.
        if pe.directory(index).is_some_and(|(rva, _)| index != 4 && rva >= image_size) {
            let at = pe.directories + 8 * index;
            out[at..at + 8].fill(0);
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Whether Wine's build made the image. Only such images are looked for in Wine's own directory; others must lie in
/// the Windows file system to be found.
pub(super) fn is_builtin(bytes: &[u8]) -> bool {
    let (at, mark) = BUILTIN_MARK;
    bytes.get(at..at + mark.len()) == Some(mark)
}
