//! The link of a microVM's agent: bytes are frames or refused, the same however they come in pieces, and nobody gets more
//! of a stream taken off it than there is room for.

use std::collections::HashMap;

use silo_runtime::link::{CHUNK, Incoming, Link, WINDOW};
use silo_runtime::protocol::Reply;

/// What came out, and whether it ended in an error.
fn read(link: &mut Link, bytes: &[u8], seen: &mut Vec<String>) -> bool {
    link.received(bytes);
    loop {
        match link.take::<Reply>() {
            Ok(Some(incoming)) => seen.push(format!("{incoming:?}")),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The law.
pub(crate) fn check(data: &[u8]) {
    let (mut whole, mut seen) = (Link::default(), Vec::new());
    let held = read(&mut whole, data, &mut seen);
    let (mut pieces, mut again) = (Link::default(), Vec::new());
    let step = data.first().map_or(1, |b| usize::from(*b) % 7 + 1);
    assert_eq!(held, data.chunks(step).all(|piece| read(&mut pieces, piece, &mut again)));
    assert_eq!(seen, again);

    // Without credit no stream gives more than its window; what was sent is what is owed.
    let (mut link, mut taken) = (Link::default(), HashMap::<u32, usize>::new());
    link.received(data);
    while let Ok(Some(incoming)) = link.take::<Reply>() {
        match incoming {
            Incoming::Data(stream, bytes) => {
                let sum = taken.entry(stream).or_default();
                *sum += bytes.len();
                assert!(bytes.len() <= CHUNK && *sum <= WINDOW);
            }
            Incoming::End(stream) => drop(taken.remove(&stream)),
            Incoming::Credit(stream, _) => assert!(link.room(stream) <= CHUNK),
            Incoming::Message(_) => {}
        }
    }
    assert!(link.output.is_empty());
}
