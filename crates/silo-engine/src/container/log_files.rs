//! A log's files in the order of time. A reader keeps the one open in which it is: rotation renames or removes that, but
//! what it holds stays, and the files after it are found by their inodes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Step of reading backwards for `--tail`, in bytes.
const BACK: u64 = 64 << 10;

/// One open file of a log.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    /// Bytes of it that have been read.
    pub(super) at: u64,
}

impl LogFile {
    /// The file, placed where reading goes on. A file that has been emptied is read from its beginning.
    pub(super) fn rest(&mut self) -> io::Result<&File> {
        if self.length()? < self.at {
            self.at = 0;
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        Ok(&self.file)
    }

    /// Bytes that it has now.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Where the last `wanted` lines begin, and how many there are.
    pub(super) fn last_lines(&mut self, wanted: u64) -> io::Result<(u64, u64)> {
        let length = self.length()?;
        let mut end = length;
        let mut found = 0;
        let mut buffer = vec![0u8; BACK as usize];
        while end > 0 {
            let start = end.saturating_sub(BACK);
            let piece = &mut buffer[..(end - start) as usize];
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(piece)?;
            for (i, byte) in piece.iter().enumerate().rev() {
                let at = start + i as u64;
                if *byte == b'\n' && at + 1 < length {
                    found += 1;
                    if found == wanted {
                        return Ok((at + 1, found));
                    }
                }
            }
            end = start;
        }
        Ok((0, if length > 0 { found + 1 } else { 0 }))
    }
}

/// Opens those of the at most `kept` files of the log at `path` that came after `last`, oldest first; without `last` all.
pub(super) fn after(path: &Path, kept: u32, last: Option<&LogFile>) -> io::Result<Vec<LogFile>> {
    let mut files: Vec<LogFile> = Vec::new();
    // From the newest on: a rotation meanwhile shows a file a second time, but hides none.
    for n in 0..kept.max(1) {
        let file = match File::open(numbered(path, n)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let meta = file.metadata()?;
        let id = (meta.dev(), meta.ino());
        if last.is_some_and(|last| last.id == id) {
            break;
        }
        if files.iter().all(|known| known.id != id) {
            files.push(LogFile { file, id, at: 0 });
        }
    }
    files.reverse();
    Ok(files)
}

/// The name that the file has after `n` rotations.
fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if n > 0 {
        name.push(format!(".{n}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_from_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let last = |wanted| after(&path, 1, None).unwrap().pop().unwrap().last_lines(wanted).unwrap();
        let text: String = (0..20_000).map(|i| format!("line {i:06}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let (offset, found) = last(3);
        assert_eq!(&text[offset as usize..], "line 019997\nline 019998\nline 019999\n");
        assert_eq!(found, 3);
        assert_eq!(last(30_000), (0, 20_000));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last(3), (0, 0));
    }

    #[test]
    fn files_are_told_apart_by_what_they_are_not_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = |mut file: LogFile| std::io::read_to_string(file.rest().unwrap()).unwrap();
        let texts = |files: Vec<LogFile>| files.into_iter().map(text).collect::<Vec<_>>();
        assert!(after(&path, 3, None).unwrap().is_empty());
        std::fs::write(&path, "a").unwrap();
        let first = after(&path, 3, None).unwrap().pop().unwrap();
        assert!(after(&path, 3, Some(&first)).unwrap().is_empty());
        for next in ["b", "c"] {
            let _ = std::fs::rename(numbered(&path, 1), numbered(&path, 2));
            std::fs::rename(&path, numbered(&path, 1)).unwrap();
            // Between a rotation's two steps there is no newest file.
            assert!(after(&path, 3, Some(&first)).unwrap().len() < 2);
            std::fs::write(&path, next).unwrap();
        }
        assert_eq!(texts(after(&path, 3, Some(&first)).unwrap()), ["b", "c"]);
        assert_eq!(texts(after(&path, 3, None).unwrap()), ["a", "b", "c"]);
        assert_eq!(texts(after(&path, 2, Some(&first)).unwrap()), ["b", "c"]);
        std::fs::remove_file(numbered(&path, 2)).unwrap();
        assert_eq!(text(first), "a");
    }
}
