//! Archives as Go's `archive/tar` writes them for Windows' tools, built apart from the code under test.

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: u8,
    pub(crate) name: String,
    pub(crate) link: String,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
    pub(crate) records: Vec<(String, String)>,
    pub(crate) content: Vec<u8>,
}

pub(crate) const T: u64 = 1_700_000_000;

impl Entry {
    fn new(kind: u8, name: &str, mode: u32, attributes: u32) -> Self {
        let t = T.to_string();
        let records = [
            ("LIBARCHIVE.creationtime", "1600000000.1234567"),
            ("MSWINDOWS.fileattr", &attributes.to_string()),
            ("atime", "1700000001.5"),
            ("ctime", &t),
        ];
        Self {
            kind,
            name: name.to_owned(),
            link: String::new(),
            mode,
            mtime: T,
            records: records.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            content: Vec::new(),
        }
    }

    pub(crate) fn dir(name: &str) -> Self {
        Self::new(b'5', name, 0o040_000, 16)
    }

    pub(crate) fn file(name: &str, content: &[u8]) -> Self {
        Self { content: content.to_vec(), ..Self::new(b'0', name, 0o100_000, 32) }
    }

    pub(crate) fn link(name: &str, to: &str) -> Self {
        Self { link: to.to_owned(), ..Self::new(b'2', name, 0o120_000, 0x420) }
    }

    pub(crate) fn dir_link(name: &str, to: &str) -> Self {
        Self { link: to.to_owned(), ..Self::new(b'2', name, 0o160_000, 0x410) }
    }

    pub(crate) fn hard(name: &str, to: &str) -> Self {
        Self { link: to.to_owned(), ..Self::new(b'1', name, 0o644, 32) }
    }

    /// A stream: of the owner's records it has the times.
    pub(crate) fn stream(name: &str, content: &[u8]) -> Self {
        let mut entry = Self::file(name, content);
        entry.records.retain(|(k, _)| k.ends_with("time") && !k.starts_with('L'));
        entry
    }

    pub(crate) fn gone(name: &str) -> Self {
        Self { records: Vec::new(), mtime: 0, ..Self::new(b'0', name, 0, 0) }
    }

    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.records.retain(|(k, _)| k != key);
        self.records.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// The archive of the entries.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut records = entry.records.clone();
        let whiteout = entry.records.is_empty();
        let (mut prefix, mut short) = (String::new(), entry.name.clone());
        if entry.name.len() > 100 && whiteout && entry.name.is_ascii() {
            let at = entry.name[..entry.name.len().min(156)].rfind('/').unwrap();
            (prefix, short) = (entry.name[..at].to_owned(), entry.name[at + 1..].to_owned());
        } else if entry.name.len() > 100 || !entry.name.is_ascii() {
            records.push(("path".to_owned(), entry.name.clone()));
        }
        if entry.link.len() > 100 || !entry.link.is_ascii() {
            records.push(("linkpath".to_owned(), entry.link.clone()));
        }
        records.sort();
        let mut pax = Vec::new();
        for (key, value) in records {
            let mut length = 0;
            let record = loop {
                let record = format!("{length} {key}={value}\n");
                if record.len() == length {
                    break record;
                }
                length = record.len();
            };
            pax.extend_from_slice(record.as_bytes());
        }
        if !pax.is_empty() {
            let name = match entry.name.rsplit_once('/') {
                Some((dir, file)) => format!("{dir}/PaxHeaders.0/{file}"),
                None => format!("PaxHeaders.0/{}", entry.name),
            };
            block(&mut bytes, b'x', &name, "", "", 0, 0, pax.len());
            put(&mut bytes, &pax);
        }
        let size = if entry.kind == b'0' { entry.content.len() } else { 0 };
        block(&mut bytes, entry.kind, &short, &prefix, &entry.link, entry.mode, entry.mtime, size);
        if size > 0 {
            put(&mut bytes, &entry.content);
        }
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn put(bytes: &mut Vec<u8>, content: &[u8]) {
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

#[allow(clippy::too_many_arguments)]
fn block(
    to: &mut Vec<u8>,
    kind: u8,
    name: &str,
    prefix: &str,
    link: &str,
    mode: u32,
    mtime: u64,
    size: usize,
) {
    let mut b = [0u8; 512];
    let mut set = |at: usize, room: usize, text: &str| {
        let text: Vec<u8> = text.bytes().filter(u8::is_ascii).take(room).collect();
        b[at..at + text.len()].copy_from_slice(&text);
    };
    set(0, 100, name);
    set(100, 8, &format!("{mode:07o}"));
    set(108, 8, "0000000");
    set(116, 8, "0000000");
    set(124, 12, &format!("{size:011o}"));
    set(136, 12, &format!("{mtime:011o}"));
    set(148, 8, "        ");
    set(157, 100, link);
    set(257, 5, "ustar");
    set(263, 2, "00");
    // Go leaves the devices of an extension header empty.
    if kind != b'x' {
        set(329, 8, "0000000");
        set(337, 8, "0000000");
    }
    set(345, 155, prefix);
    b[156] = kind;
    let sum: u32 = b.iter().map(|x| u32::from(*x)).sum();
    b[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    b[154] = 0;
    to.extend_from_slice(&b);
}
