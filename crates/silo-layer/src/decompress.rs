//! Finds out how a layer is compressed and undoes it.

use std::io::{BufRead, BufReader, Read};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, possibly of several members.
    Gzip,
    /// Zstandard, possibly of several frames.
    Zstd,
}

/// Tells the compression from the first bytes (four are enough).
pub fn detect(first_bytes: &[u8]) -> Compression {
    match first_bytes {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first (zstd:chunked, pzstd).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::Plain,
    }
}

/// Gives the plain bytes of `reader`, whether gzip, zstd or plain.
pub fn decompress<'a>(reader: Box<dyn Read + Send + 'a>) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    // A pipe may give fewer than four bytes at first, so they are read and put in front again.
    let mut first = Vec::with_capacity(4);
    while first.len() < 4 {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        let take = buffer.len().min(4 - first.len());
        first.extend_from_slice(&buffer[..take]);
        reader.consume(take);
    }
    let kind = detect(&first);
    let whole = std::io::Cursor::new(first).chain(reader);
    Ok(match kind {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn back(bytes: &[u8]) -> String {
        std::io::read_to_string(decompress(Box::new(bytes)).unwrap()).unwrap()
    }

    #[test]
    fn each_kind_is_recognised() {
        let text = "layer".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let gz = gz.finish().unwrap();
        let zst = zstd::encode_all(text.as_bytes(), 1).unwrap();
        assert_eq!(
            (detect(&gz), detect(&zst), detect(b"a")),
            (Compression::Gzip, Compression::Zstd, Compression::Plain)
        );
        assert_eq!(back(&gz), text);
        assert_eq!(back(&[gz.clone(), gz].concat()), text.repeat(2));
        assert_eq!(back(&zst), text);
        assert_eq!(back(text.as_bytes()), text);
        assert_eq!(back(b""), "");
    }
}
