//! Limits of adapters, as labels, options and the command line say them: `100Mbps`.

use std::collections::BTreeMap;

use silo_network::Bandwidth;

use crate::error::{EngineError, Result};

/// What a container may send: label, driver option of an endpoint, option of a network.
pub const MAX_EGRESS: &str = "dev.silo.max-egress";
/// What a container may receive.
pub const MAX_INGRESS: &str = "dev.silo.max-ingress";

/// What is said of one side: nothing, no limit, or so many bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Unlimited,
    Limit(u64),
}

impl Said {
    fn or(self, other: Said) -> Said {
        if self == Said::Nothing { other } else { self }
    }

    fn limit(self) -> Option<u64> {
        match self {
            Said::Limit(bits) => Some(bits),
            Said::Nothing | Said::Unlimited => None,
        }
    }
}

/// `100Mbps`, `1.5 Gbit`, `800k`, `0` and `unlimited`; a number alone is bits a second.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse(text: &str) -> std::result::Result<Option<u64>, String> {
    let bad = |why: &str| format!("{text:?} {why}: it is written as 100Mbps, 1.5Gbps, 800kbps or unlimited");
    if matches!(text.trim().to_lowercase().as_str(), "unlimited" | "0") {
        return Ok(None);
    }
    match silo_network::parse_rate(text) {
        None => Err(bad("is no bandwidth")),
        Some(bits) if bits < LEAST => Err(bad("is less than 8kbps, the least")),
        Some(bits) if bits > MOST => Err(bad("is more than 1000Gbps, the most")),
        Some(bits) => Ok(Some(bits)),
    }
}

/// One packet in more than a second helps nobody.
const LEAST: u64 = 8_000;
const MOST: u64 = 1_000_000_000_000;

fn said(map: &BTreeMap<String, String>, key: &str, what: &str) -> Result<Said> {
    match map.get(key).map(|t| parse(t)) {
        None => Ok(Said::Nothing),
        Some(Ok(None)) => Ok(Said::Unlimited),
        Some(Ok(Some(bits))) => Ok(Said::Limit(bits)),
        Some(Err(why)) => Err(EngineError::invalid(format!("{what} {key}: {why}"))),
    }
}

/// Refuses limits that cannot be read.
pub(super) fn check(map: &BTreeMap<String, String>, what: &str) -> Result<()> {
    said(map, MAX_EGRESS, what)?;
    said(map, MAX_INGRESS, what)?;
    Ok(())
}

/// What an adapter may carry: as said of it, else of its container, else of its network.
pub(super) fn of(
    endpoint: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
    network: &BTreeMap<String, String>,
) -> Result<Bandwidth> {
    let side = |key: &str| -> Result<Option<u64>> {
        let own = said(endpoint, key, "driver option")?;
        let containers = said(labels, key, "label")?;
        Ok(own.or(containers).or(said(network, key, "network option")?).limit())
    };
    Ok(Bandwidth { egress: side(MAX_EGRESS)?, ingress: side(MAX_INGRESS)? })
}

/// A limit as it is shown: `100Mbps`.
pub fn limit_text(bits: u64) -> String {
    for (unit, factor) in [("Gbps", 1_000_000_000), ("Mbps", 1_000_000), ("kbps", 1_000)] {
        if bits >= factor && bits.is_multiple_of(factor) {
            return format!("{}{unit}", bits / factor);
        }
    }
    format!("{bits}bps")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_several_spellings() {
        for (text, expected) in [
            ("100Mbps", Ok(Some(100_000_000))),
            ("1.5 Gbit", Ok(Some(1_500_000_000))),
            ("800k", Ok(Some(800_000))),
            ("1000000", Ok(Some(1_000_000))),
            ("unlimited", Ok(None)),
            ("0", Ok(None)),
            ("fast", Err("is no bandwidth")),
            ("10MB/s", Err("is no bandwidth")),
            ("-1", Err("is no bandwidth")),
            ("100", Err("is less than 8kbps")),
            ("2000Gbps", Err("is more than 1000Gbps")),
        ] {
            match (parse(text), expected) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted, "{text}"),
                (Err(got), Err(wanted)) => assert!(got.contains(wanted), "{text}: {got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert_eq!(limit_text(1_500_000_000), "1500Mbps");
    }

    #[test]
    fn what_is_said_nearest_counts() {
        let map = |text: &str| BTreeMap::from([(MAX_EGRESS.to_owned(), text.to_owned())]);
        let none = BTreeMap::new();
        let egress = |a: &_, b: &_, c: &_| of(a, b, c).unwrap().egress;
        assert_eq!(egress(&none, &none, &map("1Mbps")), Some(1_000_000));
        assert_eq!(egress(&none, &map("2Mbps"), &map("1Mbps")), Some(2_000_000));
        assert_eq!(egress(&map("unlimited"), &map("2Mbps"), &map("1Mbps")), None);
        assert!(of(&none, &map("x"), &none).unwrap_err().message.starts_with("label dev.silo.max-egress:"));
    }
}
