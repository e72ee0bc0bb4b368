//! Signal names as Docker takes them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

use crate::error::{EngineError, Result};

const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let unknown = || EngineError::invalid(format!("Invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(i) = NAMES.iter().position(|n| *n == name) {
        return Ok(i as i32 + 1);
    }
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(more), _) => more.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).map(|n| RTMIN + n),
        (_, Some(less)) => less.strip_prefix('-').and_then(|n| n.parse::<i32>().ok()).map(|n| RTMAX - n),
        _ => None,
    };
    real_time.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "NONSENSE", "RTMIN+99", "-1"] {
            assert_eq!(parse(text).unwrap_err().message, format!("Invalid signal: {text}"));
        }
    }
}
