//! An archive's entries under other names, for whoever extracts them elsewhere.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::LayerError;
use crate::archive::Reader;
use crate::extract::Places;
use crate::write::Writer;

/// Writes a plain tar again with each entry named by the path that `places` gives it, and without those that have none;
/// targets of hard links too. What [`extract`](crate::extract()) does with the result in the root is what it would have
/// done with `tar` and `places`. Constant memory.
///
/// # Errors
/// Of an archive that is none, of a name that `places` refuses, of reading and writing.
pub fn rename_entries(
    tar: &mut dyn Read,
    places: &mut Places<'_>,
    to: &mut dyn Write,
) -> Result<(), LayerError> {
    let mut writer = Writer::new(to, 0);
    let mut reader = Reader::new(tar);
    while let Some(item) = reader.next()? {
        let failed = |e| LayerError::io("passing on", Path::new(OsStr::from_bytes(&item.name)), e);
        let mut at = |name: &[u8]| -> Result<Option<Vec<u8>>, LayerError> {
            let place = places(name).map_err(|why| LayerError::hostile(&item.name, why))?;
            let relative = |at: PathBuf| at.strip_prefix("/").map_or_else(|_| at.clone(), PathBuf::from);
            Ok(place.map(|at| relative(at).into_os_string().into_encoded_bytes()))
        };
        let Some(name) = at(&item.name)? else { continue };
        let link = match item.kind.is_hard_link() {
            true => at(&item.link)?.unwrap_or_else(|| b".".to_vec()),
            false => item.link.clone(),
        };
        writer.again(&item, &name, &link).map_err(failed)?;
        writer.content(&mut reader, item.size).map_err(failed)?;
    }
    writer.finish().map_err(|e| LayerError::io("passing on", Path::new("an archive"), e))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in_under_other_names() {
        let from = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        std::fs::create_dir(from.path().join("dir")).unwrap();
        std::fs::write(from.path().join("dir").join(&long), vec![7; 100_000]).unwrap();
        std::fs::hard_link(from.path().join("dir").join(&long), from.path().join("dir/other")).unwrap();
        std::os::unix::fs::symlink("Somewhere", from.path().join("dir/link")).unwrap();
        let root = std::fs::File::open(from.path()).unwrap();
        let (mut tar, mut renamed) = (Vec::new(), Vec::new());
        crate::pack_tree(root.as_fd(), Path::new("/dir"), "Dir", 0, false, &mut tar).unwrap();
        let mut places = |name: &[u8]| {
            let name = String::from_utf8(name.to_vec()).unwrap().to_lowercase();
            let name = name.trim_end_matches('/');
            Ok((name != "dir").then(|| Path::new("/a/b").join(name)))
        };
        rename_entries(&mut &*tar, &mut places, &mut renamed).unwrap();

        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(to.path().join("a/b/dir")).unwrap();
        let root = std::fs::File::open(to.path()).unwrap();
        crate::extract(root.as_fd(), Path::new("/"), &mut &*renamed, &Default::default(), None).unwrap();
        let at = |name: &str| to.path().join("a/b/dir").join(name);
        assert_eq!(std::fs::read(at(&long)).unwrap(), vec![7; 100_000]);
        let [one, other] = [&*long, "other"].map(|name| std::fs::metadata(at(name)).unwrap());
        assert_eq!(one.ino(), other.ino());
        assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("Somewhere"));
        let source = std::fs::metadata(from.path().join("dir").join(&long)).unwrap();
        assert_eq!(
            (one.mtime(), one.mtime_nsec(), one.mode()),
            (source.mtime(), source.mtime_nsec(), source.mode())
        );
        let mut places = |_: &[u8]| Err("it is refused".to_owned());
        let refused = rename_entries(&mut &*tar, &mut places, &mut Vec::new()).unwrap_err();
        assert!(refused.to_string().contains("refused"), "{refused}");
        assert!(rename_entries(&mut &tar[..700], &mut |_| Ok(None), &mut Vec::new()).is_err());
    }
}
