//! How much a build may unpack: contexts, and archives that `ADD` takes apart.

use rustix::fs::statvfs;
use silo_engine::Engine;
use silo_image::layer::Limits;

use crate::failure::{Failure, Result};

/// What of a disk no archive takes: one part in so many.
const KEPT: u64 = 50;

/// The daemon's limits, or what the disk has room for.
pub(crate) fn limits(engine: &Engine) -> Result<Limits> {
    let scratch = engine.scratch();
    let disk = statvfs(&scratch)
        .map_err(|e| Failure::internal(format!("asking for the room on {}: {e}", scratch.display())))?;
    let builds = &engine.config().builds;
    let free = room(disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    Ok(Limits { bytes: builds.unpacked_bytes.min(free), entries: builds.unpacked_files })
}

/// Bytes of a disk that may be taken.
fn room(free: u64, size: u64) -> u64 {
    free.saturating_sub(size / KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_stays_free() {
        assert_eq!(room(1000, 1000), 980);
        assert_eq!(room(10, 1000), 0);
    }
}
