//! Log files: what was to be written to a hive when the system stopped ("Format of transaction log files").

mod marvin;
mod new;
mod old;

use crate::error::HiveError;
use crate::read::{LENGTH, checksum};

/// What a log file's first 512 bytes say.
struct Header {
    primary: u32,
    kind: u32,
}

/// A primary file that is being brought up to date.
struct Target {
    file: Vec<u8>,
    /// Most bytes that it may come to: what it has and what its logs hold.
    bound: usize,
}

impl Target {
    /// Makes the bins as long as a log says.
    fn resize(&mut self, bins_size: u32) -> Result<(), HiveError> {
        let length = LENGTH + bins_size as usize;
        if !bins_size.is_multiple_of(4096) || bins_size == 0 || length > self.bound {
            return Err(HiveError::Dirty("a log tells of more than it holds"));
        }
        self.file.resize(length, 0);
        Ok(())
    }

    /// Writes into the bins; false if it lies outside.
    fn put(&mut self, offset: u32, bytes: &[u8]) -> bool {
        let at = LENGTH + offset as usize;
        match self.file.get_mut(at..at + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

/// Brings a dirty hive up to date with its log files; a clean one comes back as it is.
///
/// `logs` are the contents of `.LOG1` and `.LOG2`, or of `.LOG`, in any order; those that do not belong to the file, or
/// hold only older changes, are passed over. What is after a torn entry is left out, as Windows does.
///
/// # Errors
/// [`HiveError::Dirty`] if no log helps.
pub fn recover(primary: &[u8], logs: &[&[u8]]) -> Result<Vec<u8>, HiveError> {
    let Some(block) = primary.get(..LENGTH).filter(|b| b.starts_with(b"regf")) else {
        return Err(HiveError::NotAHive("it does not begin with a base block of 4096 bytes"));
    };
    let (valid, saved) = (word(block, 0x1fc) == checksum(block), word(block, 8));
    if valid && word(block, 4) == saved {
        return Ok(primary.to_vec());
    }
    let mut usable: Vec<(Header, &[u8])> = logs.iter().filter_map(|log| Some((header(log)?, *log))).collect();
    // Of a primary file whose base block is torn nobody knows what it has.
    usable.retain(|(header, _)| !valid || header.primary >= saved);
    usable.sort_by_key(|(header, _)| header.primary);
    let bound = primary.len() + logs.iter().map(|l| l.len()).sum::<usize>();
    let mut target = Target { file: primary.to_vec(), bound: bound.min(1 << 31) };
    if let (false, Some((_, log))) = (valid, usable.first()) {
        target.file[..512].copy_from_slice(&log[..512]);
        target.file[0x1c..0x20].fill(0);
    }
    let mut last = None;
    for (header, log) in &usable {
        match header.kind {
            6 => new::apply(&mut target, log, header.primary, &mut last)?,
            _ if usable.len() == 1 || last.is_none() => old::apply(&mut target, log, &mut last)?,
            _ => {}
        }
    }
    let Some(last) = last else { return Err(HiveError::Dirty("none of its logs holds what is missing")) };
    let bins_size = (target.file.len() - LENGTH) as u32;
    for (at, value) in [(4, last), (8, last), (0x28, bins_size)] {
        target.file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let sum = checksum(&target.file);
    target.file[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
    Ok(target.file)
}

fn header(log: &[u8]) -> Option<Header> {
    let block = log.get(..512).filter(|b| b.starts_with(b"regf") && word(b, 0x1fc) == checksum(b))?;
    let kind = word(block, 0x1c);
    matches!(kind, 1 | 2 | 6).then(|| Header { primary: word(block, 4), kind })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Hive, Key, Value};

    fn hive(values: usize) -> Vec<u8> {
        let mut hive = Hive::default();
        let mut key = Key::new("k");
        for i in 0..values {
            key.insert_value(Value::string(format!("v{i}").as_str(), "some text")).unwrap();
        }
        hive.root.insert_subkey(key).unwrap();
        hive.to_bytes().unwrap()
    }

    fn sign(block: &mut [u8]) {
        let sum = checksum(block);
        block[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
    }

    /// `file` as it is when `number` was begun and `saved` was finished.
    fn dirty(mut file: Vec<u8>, number: u32, saved: u32) -> Vec<u8> {
        file[4..8].copy_from_slice(&number.to_le_bytes());
        file[8..12].copy_from_slice(&saved.to_le_bytes());
        sign(&mut file);
        file
    }

    fn log_header(file: &[u8], number: u32, kind: u32) -> Vec<u8> {
        let mut log = dirty(file[..LENGTH].to_vec(), number, number);
        log.truncate(512);
        log[0x1c..0x20].copy_from_slice(&kind.to_le_bytes());
        sign(&mut log);
        log
    }

    /// One entry with all bins of `file`.
    fn entry(file: &[u8], number: u32) -> Vec<u8> {
        let bins = &file[LENGTH..];
        let mut entry = vec![0; (ENTRY_AND_REFERENCE + bins.len()).next_multiple_of(512)];
        let mut put = |at: usize, value: u32| entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, u32::from_le_bytes(*b"HvLE"));
        put(12, number);
        put(16, bins.len() as u32);
        put(20, 1);
        put(44, bins.len() as u32);
        let size = entry.len() as u32;
        entry[4..8].copy_from_slice(&size.to_le_bytes());
        entry[ENTRY_AND_REFERENCE..][..bins.len()].copy_from_slice(bins);
        let hash = marvin::hash(&entry[40..]);
        entry[24..32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin::hash(&entry[..32]);
        entry[32..40].copy_from_slice(&hash.to_le_bytes());
        entry
    }

    const ENTRY_AND_REFERENCE: usize = 48;

    #[test]
    fn entries_are_applied_in_their_order_up_to_the_torn_one() {
        let (first, second, third) = (hive(3), hive(400), hive(900));
        let primary = dirty(first.clone(), 5, 4);
        let one = [log_header(&first, 5, 6), entry(&second, 5)].concat();
        let two = [log_header(&first, 6, 6), entry(&third, 6)].concat();
        let read = |bytes: &[u8]| Hive::from_bytes(bytes.to_vec()).unwrap();
        assert!(matches!(Hive::from_bytes(primary.clone()), Err(HiveError::Dirty(_))));
        assert_eq!(read(&recover(&primary, &[&two, &one]).unwrap()), read(&third));
        let mut torn = two.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(read(&recover(&primary, &[&one, &torn]).unwrap()), read(&second));
        assert!(recover(&primary, &[&torn]).is_err());
        assert!(recover(&primary, &[]).is_err());
        // Older than what the file has.
        assert!(recover(&dirty(first.clone(), 9, 8), &[&one, &two]).is_err());
        assert_eq!(recover(&first, &[&one]).unwrap(), first);
    }

    #[test]
    fn a_torn_base_block_comes_from_the_log() {
        let (first, second) = (hive(3), hive(400));
        let mut primary = dirty(first.clone(), 5, 4);
        primary[0x30] ^= 1;
        let log = [log_header(&second, 5, 6), entry(&second, 5)].concat();
        assert_eq!(
            Hive::from_bytes(recover(&primary, &[&log]).unwrap()).unwrap(),
            Hive::from_bytes(second).unwrap()
        );
    }

    #[test]
    fn pages_of_the_old_format() {
        let (first, second) = (hive(3), hive(400));
        let bins = &second[LENGTH..];
        let mut log = log_header(&second, 5, 1);
        log.extend(b"DIRT");
        log.extend(vec![0xff; bins.len() / 512 / 8]);
        log.resize(log.len().next_multiple_of(512), 0);
        log.extend(bins);
        let recovered = recover(&dirty(first.clone(), 5, 4), &[&log]).unwrap();
        assert_eq!(Hive::from_bytes(recovered).unwrap(), Hive::from_bytes(second).unwrap());
        log.truncate(log.len() - 1);
        assert!(recover(&dirty(first, 5, 4), &[&log]).is_err());
    }

    #[test]
    fn no_log_makes_more_than_it_holds() {
        let first = hive(3);
        let mut huge = entry(&first, 5);
        huge[16..20].copy_from_slice(&0x4000_0000u32.to_le_bytes());
        let hash = marvin::hash(&huge[..32]);
        huge[32..40].copy_from_slice(&hash.to_le_bytes());
        let log = [log_header(&first, 5, 6), huge].concat();
        let error = recover(&dirty(first, 5, 4), &[&log]).unwrap_err().to_string();
        assert!(error.contains("more than it holds"), "{error}");
    }
}
