//! Finds out how a layer is compressed and undoes it.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// Bytes of memory that undoing xz may take: `xz -9` needs 65 MiB, its greatest custom dictionaries a little above 1.5 GiB.
const XZ_MEMORY: u64 = 256 << 20;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, possibly of several members.
    Gzip,
    /// Zstandard, possibly of several frames.
    Zstd,
    /// bzip2, possibly of several streams.
    Bzip2,
    /// xz, possibly of several streams.
    Xz,
}

/// Tells the compression from the first bytes (six are enough).
pub fn detect(first_bytes: &[u8]) -> Compression {
    match first_bytes {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first (zstd:chunked, pzstd).
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::Plain,
    }
}

/// The first bytes, put in front again, and the rest.
type Whole<R> = Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// The plain bytes of a reader.
pub struct Plain<R: Read>(Kind<R>);

enum Kind<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Whole<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Whole<R>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<Whole<R>>>),
    Xz(Box<liblzma::bufread::XzDecoder<Whole<R>>>),
}

impl<R: Read> Plain<R> {
    /// Looks at the first bytes of `reader`: compressed, or plain.
    pub fn new(reader: R) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(128 * 1024, reader);
        // A pipe may give fewer than six bytes at first, so they are read and put in front again.
        let mut first = Vec::with_capacity(6);
        while first.len() < 6 {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let take = buffer.len().min(6 - first.len());
            first.extend_from_slice(&buffer[..take]);
            reader.consume(take);
        }
        let kind = detect(&first);
        let whole = Cursor::new(first).chain(reader);
        Ok(Self(match kind {
            Compression::Plain => Kind::Plain(whole),
            Compression::Gzip => Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(whole))),
            Compression::Zstd => Kind::Zstd(zstd::stream::read::Decoder::with_buffer(whole)?),
            Compression::Bzip2 => Kind::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(whole))),
            Compression::Xz => {
                // A header may ask for a dictionary of 4 GiB.
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Kind::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream)))
            }
        }))
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(reader) => reader.read(buffer),
            Kind::Gzip(reader) => reader.read(buffer),
            Kind::Zstd(reader) => reader.read(buffer),
            Kind::Bzip2(reader) => reader.read(buffer),
            Kind::Xz(reader) => reader.read(buffer),
        }
    }
}

/// Gives the plain bytes of `reader`, however they are compressed.
pub fn decompress<'a>(reader: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(Box::new(Plain::new(reader)?))
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
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(text.as_bytes()).unwrap();
        let bz = bz.finish().unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text.as_bytes()).unwrap();
        let xz = xz.finish().unwrap();
        assert_eq!((detect(&bz), detect(&xz)), (Compression::Bzip2, Compression::Xz));
        assert_eq!(back(&[bz.clone(), bz].concat()), text.repeat(2));
        assert_eq!(back(&[xz.clone(), xz].concat()), text.repeat(2));
        assert_eq!(back(text.as_bytes()), text);
        assert_eq!(back(b""), "");
    }
}
