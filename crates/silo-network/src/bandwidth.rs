//! Rates as people write them.

/// Bits a second of `100Mbps`, `10mbit`, `1.5Gbps`, `800kbit`, `1000000`: decimal multiples, as network rates are given.
/// `None`: not a rate, or 0.
pub fn parse_rate(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "bps" | "bit" | "bit/s" => 1.0,
        "k" | "kbps" | "kbit" | "kbit/s" => 1e3,
        "m" | "mbps" | "mbit" | "mbit/s" => 1e6,
        "g" | "gbps" | "gbit" | "gbit/s" => 1e9,
        _ => return None,
    };
    let rate = number.parse::<f64>().ok()? * scale;
    // No host carries an exabit.
    (1.0..1e18).contains(&rate).then_some(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_decimal() {
        for (text, rate) in [
            ("100Mbps", 100_000_000),
            ("1.5gbit", 1_500_000_000),
            ("800 kbit/s", 800_000),
            ("64000", 64_000),
            ("10m", 10_000_000),
        ] {
            assert_eq!(parse_rate(text), Some(rate), "{text}");
        }
        for bad in ["", "fast", "0", "-1", "10MiB", "1.2.3", "1e30", "Mbps"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }
}
