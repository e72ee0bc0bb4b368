//! Texts as Wine's registry files spell them (Wine: `server/unicode.c`, `dump_strW` and `parse_strW`).

/// Writes units, a backslash before each of `special` and before backslashes.
pub(super) fn write(out: &mut Vec<u8>, units: impl Iterator<Item = u16>, special: &[u8]) {
    let mut units = units.peekable();
    while let Some(unit) = units.next() {
        let next = units.peek().copied().and_then(|u| u8::try_from(u).ok()).unwrap_or(0);
        match u8::try_from(unit) {
            Err(_) | Ok(0x80..) => {
                // Up to four digits are read: all four are there if a digit follows.
                let text = match next.is_ascii_hexdigit() {
                    true => format!("\\x{unit:04x}"),
                    false => format!("\\x{unit:x}"),
                };
                out.extend_from_slice(text.as_bytes());
            }
            Ok(c @ 0..0x20) => {
                let text = match (short(c), next.is_ascii_digit()) {
                    (Some(letter), _) => format!("\\{letter}"),
                    (None, true) => format!("\\{c:03o}"),
                    (None, false) => format!("\\{c:o}"),
                };
                out.extend_from_slice(text.as_bytes());
            }
            Ok(c) => {
                if c == b'\\' || special.contains(&c) {
                    out.push(b'\\');
                }
                out.push(c);
            }
        }
    }
}

const SHORT: [(u8, char); 8] =
    [(7, 'a'), (8, 'b'), (9, 't'), (10, 'n'), (11, 'v'), (12, 'f'), (13, 'r'), (27, 'e')];

fn short(c: u8) -> Option<char> {
    SHORT.iter().find(|(code, _)| *code == c).map(|(_, letter)| *letter)
}

/// A spelled unit, and how many bytes it takes. `None` for a single backslash at the end.
fn unit(bytes: &[u8]) -> Option<(u16, usize)> {
    let [first, rest @ ..] = bytes else { return None };
    if *first != b'\\' {
        return Some((u16::from(*first), 1));
    }
    let (letter, rest) = rest.split_first()?;
    let number = |radix: u32, most: usize, digits: &[u8]| {
        let used = digits.iter().take(most).take_while(|d| char::from(**d).is_digit(radix)).count();
        let value =
            digits[..used].iter().fold(0u32, |n, d| n * radix + char::from(*d).to_digit(radix).unwrap_or(0));
        (value as u16, used)
    };
    if let Some((code, _)) = SHORT.iter().find(|(_, name)| *name == char::from(*letter)) {
        return Some((u16::from(*code), 2));
    }
    match letter {
        b'x' => {
            let (value, used) = number(16, 4, rest);
            Some(if used == 0 { (u16::from(b'x'), 2) } else { (value, 2 + used) })
        }
        b'0'..=b'7' => {
            let (value, used) = number(8, 3, &bytes[1..]);
            Some((value, 1 + used))
        }
        other => Some((u16::from(*other), 2)),
    }
}

/// Reads up to an `end` that has no backslash before it; returns the units and what follows `end`. Bytes above 127 are
/// UTF-8; wrong ones are dropped.
pub(super) fn read(bytes: &[u8], end: u8) -> Option<(Vec<u16>, &[u8])> {
    let (mut units, mut rest) = (Vec::new(), bytes);
    loop {
        match rest.first()? {
            c if *c == end => return Some((units, &rest[1..])),
            0x80.. => {
                let many = rest.iter().take_while(|c| **c >= 0x80).count();
                let text = rest[..many].utf8_chunks().map(|chunk| chunk.valid()).collect::<String>();
                units.extend(text.encode_utf16());
                rest = &rest[many..];
            }
            _ => {
                let (read, used) = unit(rest)?;
                units.push(read);
                rest = &rest[used..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(units: &[u16], spelled: &str) {
        let mut out = Vec::new();
        write(&mut out, units.iter().copied(), b"\"");
        assert_eq!(String::from_utf8_lossy(&out), spelled);
        out.push(b'"');
        assert_eq!(read(&out, b'"'), Some((units.to_vec(), &b""[..])), "{spelled}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        round(&units("a\\b\"c"), "a\\\\b\\\"c");
        round(&units("\u{e9}a\u{e9}z"), "\\x00e9a\\xe9z");
        round(&units("\t\n\u{1}8\u{1}7\u{1}x"), "\\t\\n\\0018\\0017\\1x");
        round(&units("\u{1f600}"), "\\xd83d\\xde00");
        round(&[0xd800, 0x61, 0, 0x31], "\\xd800a\\0001");
        round(&units("\u{7f}"), "\u{7f}");
    }

    #[test]
    fn what_others_write_is_read() {
        assert_eq!(
            read(b"\\xq\xc3\xa9\xff\"x", b'"').unwrap().0,
            "xq\u{e9}".encode_utf16().collect::<Vec<_>>()
        );
        assert_eq!(read(b"no end", b'"'), None);
        assert_eq!(read(b"end\\", b'"'), None);
    }
}
