//! gzip by all processors: one member, whose blocks are compressed side by side (as pigz does).

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Bytes of a block: what each costs in size (it begins without the text before it) against memory.
const BLOCK: usize = 512 << 10;
/// gzip's own default.
const LEVEL: u32 = 6;
/// Threads at most.
const MAX_THREADS: usize = 8;

struct Block {
    bytes: Vec<u8>,
    last: bool,
}

struct Compressed {
    bytes: Vec<u8>,
    crc: Crc,
}

fn compress_block(block: &Block) -> io::Result<Compressed> {
    let mut crc = Crc::new();
    crc.update(&block.bytes);
    let mut to = Vec::with_capacity(block.bytes.len() / 2 + 1024);
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    // A block that is not the last ends on a byte, so that the next can follow it.
    let flush = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let taken = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let before = to.len();
        let status = deflate
            .compress_vec(block.bytes.get(taken..).unwrap_or_default(), &mut to, flush)
            .map_err(io::Error::other)?;
        let done = match flush {
            FlushCompress::Finish => status == flate2::Status::StreamEnd,
            // All taken, and room left: everything has been written.
            _ => deflate.total_in() == block.bytes.len() as u64 && to.len() < to.capacity(),
        };
        if done {
            return Ok(Compressed { bytes: to, crc });
        }
        if to.len() == to.capacity() {
            to.reserve(64 << 10);
        } else if to.len() == before {
            return Err(io::Error::other("deflate makes no progress"));
        }
    }
}

fn fill(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    reader.take(BLOCK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Compresses all of a reader; memory is bounded by a few blocks a processor.
pub(crate) fn gzip(mut from: impl Read + Send, to: &mut dyn Write) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    // No name, no time, unknown system (RFC 1952, 2.3).
    to.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    let mut crc = Crc::new();
    let mut written = Ok(());
    std::thread::scope(|scope| {
        let (mut inputs, mut outputs): (Vec<SyncSender<Block>>, Vec<Receiver<io::Result<Compressed>>>) =
            Default::default();
        for _ in 0..threads {
            let (input, blocks) = sync_channel::<Block>(1);
            let (results, output) = sync_channel(1);
            inputs.push(input);
            outputs.push(output);
            scope.spawn(move || {
                for block in blocks {
                    if results.send(compress_block(&block)).is_err() {
                        return;
                    }
                }
            });
        }
        let reading = scope.spawn(move || {
            let mut block = fill(&mut from)?;
            for input in inputs.iter().cycle() {
                let next = if block.len() < BLOCK { Vec::new() } else { fill(&mut from)? };
                let last = next.is_empty();
                // Whoever took them is gone: the writer knows why.
                if input.send(Block { bytes: std::mem::replace(&mut block, next), last }).is_err() || last {
                    break;
                }
            }
            Ok::<_, io::Error>(())
        });
        written = (|| {
            for output in outputs.iter().cycle() {
                // The next in turn has nothing more: that was the last block.
                let Ok(result) = output.recv() else { break };
                let result = result?;
                to.write_all(&result.bytes)?;
                crc.combine(&result.crc);
            }
            Ok(())
        })();
        drop(outputs);
        if let Ok(Err(e)) = reading.join() {
            written = Err(e);
        }
    });
    written?;
    to.write_all(&crc.sum().to_le_bytes())?;
    to.write_all(&crc.amount().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_the_same_as_one_member() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 7 * BLOCK + 12345] {
            let mut state = 1u64;
            let mut plain = Vec::with_capacity(size);
            while plain.len() < size {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                plain.extend_from_slice(format!("line {} {}\n", plain.len(), state >> 40).as_bytes());
            }
            plain.truncate(size);
            let mut packed = Vec::new();
            gzip(plain.as_slice(), &mut packed).unwrap();
            let mut back = Vec::new();
            // Reads one member only.
            let mut decoder = flate2::bufread::GzDecoder::new(packed.as_slice());
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == plain, "{size}");
            assert!(decoder.into_inner().is_empty(), "{size}: a second member");
        }
    }

    #[test]
    fn bytes_that_cannot_be_compressed_and_errors_pass() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(3 * BLOCK)
        .collect();
        let mut packed = Vec::new();
        gzip(noise.as_slice(), &mut packed).unwrap();
        let mut back = Vec::new();
        flate2::bufread::GzDecoder::new(packed.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == noise);
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let error = gzip(noise.as_slice().chain(Broken), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }
}
