//! Sizes as people write them (Docker's go-units, `RAMInBytes`).

/// Bytes of a number, which may have decimals, with a unit of powers of 1024: `10m`, `1.5 GiB`, `4096`, `2kb`. `None`: it is no
/// size, or 2^63 and more.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * 1024f64.powi(power);
    (bytes < 2f64.powi(63)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_by_docker() {
        for (text, wanted) in [
            ("0", 0),
            ("4096", 4096),
            ("12b", 12),
            ("2kb", 2048),
            ("1.5 GiB", 3 << 29),
            ("10M", 10 << 20),
            ("2t", 2 << 40),
            (" 1p ", 1 << 50),
        ] {
            assert_eq!(bytes(text), Some(wanted), "{text}");
        }
        for text in ["", "m", "1q", "1mm", "-1", "1.2.3k", "9000p", "1  k", "ten", "1e3"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
