//! Times as Docker's filters write them: Unix seconds (with a fraction), RFC 3339, or a duration back from now.

use jiff::{SignedDuration, Timestamp};

use crate::error::{EngineError, Result};
use crate::filters::Filters;

/// Parses `1700000000`, `1700000000.5`, `2024-01-01T00:00:00Z`, `2024-01-01`, `10m`, `1h30m`.
pub fn parse(text: &str) -> Result<Timestamp> {
    let invalid = || EngineError::invalid(format!("invalid time: {text:?}"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Some((seconds, fraction)) = text.split_once('.')
        && let (Ok(seconds), true) = (seconds.parse::<i64>(), fraction.bytes().all(|b| b.is_ascii_digit()))
    {
        let nanos: i32 = format!("{fraction:0<9}")[..9].parse().map_err(|_| invalid())?;
        return Timestamp::new(seconds, nanos).map_err(|_| invalid());
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map_err(|_| invalid());
    }
    for form in [format!("{text}Z"), format!("{text}T00:00:00Z")] {
        if let Ok(time) = form.parse::<Timestamp>() {
            return Ok(time);
        }
    }
    let back = go_duration(text).ok_or_else(invalid)?;
    Timestamp::now().checked_sub(back).map_err(|_| invalid())
}

/// Go's duration notation (`1h15m30.5s`, `300ms`).
pub fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[end..];
    }
    SignedDuration::try_from_secs_f64(total).ok()
}

/// The `until` filter of prune verbs.
pub fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    match filters.get("until") {
        [] => Ok(None),
        [one] => parse(one).map(Some),
        _ => Err(EngineError::invalid("more than one until filter specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notations() {
        assert_eq!(parse("1700000000").unwrap().as_second(), 1_700_000_000);
        assert_eq!(parse("1700000000.25").unwrap().subsec_nanosecond(), 250_000_000);
        assert_eq!(parse("2023-11-14T22:13:20Z").unwrap().as_second(), 1_700_000_000);
        assert_eq!(parse("2023-11-14T22:13:20").unwrap().as_second(), 1_700_000_000);
        assert_eq!(parse("2023-11-14").unwrap().as_second(), 1_699_920_000);
        let ago = Timestamp::now().duration_since(parse("1h30m").unwrap()).as_secs();
        assert!((5399..=5401).contains(&ago), "{ago}");
        assert!(parse("soon").unwrap_err().message.contains("soon"));
    }
}
