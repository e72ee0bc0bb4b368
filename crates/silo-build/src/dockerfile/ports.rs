//! What `EXPOSE` says → the ports of an image's config.

/// `80`, `80-82/udp`, `8080:80` → `80/tcp`, …: what is before a colon is a host's and says nothing here.
///
/// # Errors
/// The word that is no port, in dockerd's words.
pub fn exposed_ports(words: &[String]) -> Result<Vec<String>, String> {
    let mut ports = Vec::new();
    for word in words {
        let container = word.rsplit(':').next().unwrap_or_default();
        let (range, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
        let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
        if range.is_empty() {
            return Err(format!("no port specified: {word}<empty>"));
        }
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(format!("invalid proto: {protocol}"));
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // Go's numbers have no sign.
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
        let (first, last) = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => return Err(format!("invalid containerPort: {range}")),
        };
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Result<&[&str], &str>) {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let expected = expected.map(|e| e.iter().map(|p| (*p).to_owned()).collect()).map_err(str::to_owned);
        assert_eq!(exposed_ports(&words), expected);
    }

    #[test]
    fn words_are_ports_ranges_and_protocols() {
        check(
            &["80", "8000-8001/UDP", "1:2", "[::1]:3:4/sctp", "80/tcp"],
            Ok(&["2/tcp", "4/sctp", "80/tcp", "8000/udp", "8001/udp"]),
        );
        check(&["a"], Err("invalid containerPort: a"));
        check(&["70000"], Err("invalid containerPort: 70000"));
        check(&["+1"], Err("invalid containerPort: +1"));
        check(&["0"], Ok(&["0/tcp"]));
        check(&["9-8"], Err("invalid containerPort: 9-8"));
        check(&["80/x"], Err("invalid proto: x"));
        check(&["1:"], Err("no port specified: 1:<empty>"));
    }
}
