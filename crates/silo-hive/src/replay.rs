//! Log files: what was to be written to a hive when the system stopped ("Format of transaction log files").

use std::borrow::Cow;

mod marvin;
mod new;
mod old;
mod target;

use crate::error::HiveError;
use crate::read::{LENGTH, checksum};
use target::{Target, word};

/// A log file whose first 512 bytes are as they should be.
struct Log<'a> {
    bytes: &'a [u8],
    /// Number of the write that it begins with.
    number: u32,
    is_new: bool,
}

/// Brings a dirty hive up to date with its log files; a clean one comes back as it is.
///
/// A file that is given away (a `Vec`) is not copied. `logs` are the contents of `.LOG1` and `.LOG2`, or of `.LOG`, in any
/// order; those that do not belong to the file, or hold only older changes, are passed over. What is after a torn entry is
/// left out, as Windows does.
///
/// # Errors
/// [`HiveError::Dirty`] if no log helps.
pub fn recover<'a>(primary: impl Into<Cow<'a, [u8]>>, logs: &[&[u8]]) -> Result<Vec<u8>, HiveError> {
    let primary = primary.into();
    let Some(block) = primary.get(..LENGTH).filter(|b| b.starts_with(b"regf")) else {
        return Err(HiveError::NotAHive("it does not begin with a base block of 4096 bytes"));
    };
    let (valid, saved) = (word(block, 0x1fc) == checksum(block), word(block, 8));
    if valid && word(block, 4) == saved {
        return Ok(primary.into_owned());
    }
    let mut usable: Vec<Log> = logs.iter().filter_map(|log| header(log)).collect();
    // Of a primary file whose base block is torn nobody knows what it has.
    usable.retain(|log| !valid || log.number >= saved);
    usable.sort_by_key(|log| log.number);
    let used = run(&usable, valid);
    let Some(newest) = used.last() else {
        return Err(HiveError::Dirty("none of its logs holds what is missing"));
    };
    let mut target = Target::new(primary.into_owned(), logs);
    let mut last = None;
    for log in used {
        match log.is_new {
            true => new::apply(&mut target, log.bytes, log.number, &mut last)?,
            false => old::apply(&mut target, log.bytes, &mut last)?,
        }
    }
    let Some(last) = last else { return Err(HiveError::Dirty("none of its logs holds what is missing")) };
    let (mut file, bins_size) = target.finish();
    // A log begins with what the base block is to become.
    file[..512].copy_from_slice(&newest.bytes[..512]);
    for (at, value) in [(4, last), (8, last), (0x1c, 0), (0x28, bins_size)] {
        file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let sum = checksum(&file);
    file[0x1fc..0x200].copy_from_slice(&sum.to_le_bytes());
    Ok(file)
}

/// Of logs in the order of their numbers, those to apply one after the other.
fn run<'l, 'a>(logs: &'l [Log<'a>], valid: bool) -> &'l [Log<'a>] {
    let first_new = logs.iter().position(|log| log.is_new);
    let Some(first) = first_new.filter(|first| logs[*first..].iter().all(|log| log.is_new)) else {
        // Each of the old format has all that is missing.
        return &logs[logs.len().saturating_sub(1)..];
    };
    let logs = &logs[first..];
    let goes_on = |pair: &[Log]| new::end(pair[0].bytes, pair[0].number) == pair[1].number;
    let gap = logs.windows(2).rposition(|pair| !goes_on(pair));
    match gap {
        None => logs,
        // What lies between two logs that do not meet is in the primary file, if that was written at all since.
        Some(gap) if !valid => &logs[gap + 1..],
        Some(_) => {
            let end = logs.windows(2).take_while(|pair| goes_on(pair)).count();
            &logs[..=end]
        }
    }
}

fn header(log: &[u8]) -> Option<Log<'_>> {
    let block = log.get(..512).filter(|b| b.starts_with(b"regf") && word(b, 0x1fc) == checksum(b))?;
    let kind = word(block, 0x1c);
    matches!(kind, 1 | 2 | 6).then(|| Log { bytes: log, number: word(block, 4), is_new: kind == 6 })
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
        assert!(recover(dirty(first.clone(), 9, 8), &[&one, &two]).is_err());
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
        let recovered = recover(dirty(first.clone(), 5, 4), &[&log]).unwrap();
        assert_eq!(Hive::from_bytes(recovered).unwrap(), Hive::from_bytes(second).unwrap());
        log.truncate(log.len() - 1);
        assert!(recover(dirty(first, 5, 4), &[&log]).is_err());
    }

    #[test]
    fn of_two_old_logs_the_newer_one_counts() {
        let (first, second, third) = (hive(3), hive(20), hive(40));
        let log = |file: &[u8], number| {
            let mut log = log_header(file, number, 1);
            log.extend(b"DIRT");
            log.extend(vec![0xff; (file.len() - LENGTH) / 512 / 8]);
            log.resize(log.len().next_multiple_of(512), 0);
            log.extend(&file[LENGTH..]);
            log
        };
        let recovered = recover(dirty(first, 7, 4), &[&log(&third, 7), &log(&second, 6)]).unwrap();
        assert_eq!(Hive::from_bytes(recovered).unwrap(), Hive::from_bytes(third).unwrap());
    }

    #[test]
    fn beside_a_torn_base_block_an_old_log_that_does_not_go_on_is_passed_over() {
        let (first, second, third) = (hive(3), hive(400), hive(900));
        let mut primary = dirty(first.clone(), 9, 8);
        primary[0x30] ^= 1;
        let stale = [log_header(&second, 2, 6), entry(&second, 2)].concat();
        let newest = [log_header(&third, 9, 6), entry(&third, 9)].concat();
        let recovered = recover(&primary, &[&stale, &newest]).unwrap();
        assert_eq!(&recovered[4..8], &[9, 0, 0, 0]);
        assert_eq!(Hive::from_bytes(recovered).unwrap(), Hive::from_bytes(third).unwrap());
    }

    #[test]
    fn a_log_that_cuts_and_lengthens_in_turn_costs_its_length() {
        let first = hive(3);
        let mut log = log_header(&first, 5, 6);
        let mut empty = |number: u32, size: u32| {
            let mut entry = vec![0; 512];
            for (at, value) in [(0, u32::from_le_bytes(*b"HvLE")), (4, 512), (12, number), (16, size)] {
                entry[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            }
            for (at, upto) in [(24, 40..512), (32, 0..32)] {
                let hash = marvin::hash(&entry[upto]);
                entry[at..at + 8].copy_from_slice(&hash.to_le_bytes());
            }
            log.extend(entry);
        };
        // 40000 times 16 MB would be zeroed otherwise.
        for i in 0..40_000 {
            empty(5 + i * 2, 1 << 24);
            empty(6 + i * 2, (first.len() - LENGTH) as u32);
        }
        let start = std::time::Instant::now();
        let recovered = recover(dirty(first.clone(), 5, 4), &[&log]).unwrap();
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        assert_eq!(Hive::from_bytes(recovered).unwrap(), Hive::from_bytes(first).unwrap());
    }

    #[test]
    fn no_log_makes_more_than_it_holds() {
        let first = hive(3);
        let mut huge = entry(&first, 5);
        huge[16..20].copy_from_slice(&0x4000_0000u32.to_le_bytes());
        let hash = marvin::hash(&huge[..32]);
        huge[32..40].copy_from_slice(&hash.to_le_bytes());
        let log = [log_header(&first, 5, 6), huge].concat();
        let error = recover(dirty(first, 5, 4), &[&log]).unwrap_err().to_string();
        assert!(error.contains("more than it holds"), "{error}");
    }
}
