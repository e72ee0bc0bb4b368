//! Sizes as people write them for Docker (its go-units): a number, which may have decimals, with a unit. `1.5 GiB`, `4096`, `2kb`.

/// Bytes; units are powers of 1024 (`RAMInBytes`). `None`: it is no size, or 2^63 and more. Blanks around it do no harm.
pub fn bytes(text: &str) -> Option<u64> {
    in_powers_of(1024.0, text)
}

/// Bytes; units are powers of 1000 (`FromHumanSize`), as in sizes of logs.
pub fn decimal(text: &str) -> Option<u64> {
    in_powers_of(1000.0, text)
}

fn in_powers_of(base: f64, text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let power = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * base.powi(power);
    (bytes < 2f64.powi(63)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
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
        for text in ["", "m", "1q", "1mm", "1ib", "-1", "1.2.3k", "9000p", "1  k", "ten", "1e3"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(decimal("10m"), Some(10_000_000));
        assert_eq!(decimal("1.5kb"), Some(1500));
    }
}
