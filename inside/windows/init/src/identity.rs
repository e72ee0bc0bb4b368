//! Which machine this guest is: its SID, left in a file for Wine's server, which takes it at its start, or at once if it is
//! told to (`crates/silo-guest/src/windows/base/wine/machine-sid.patch`).

use std::fs;
use std::time::{Duration, Instant};

use crate::{request, server};

/// Where it is left, and its name from when it is in force.
const LEFT: &str = "machine-sid.new";
const TAKEN: &str = "machine-sid";
const LIMIT: Duration = Duration::from_secs(5);

/// Leaves the SID (`S-1-5-21-` and three numbers) for a server that is not started yet.
pub(crate) fn leave(sid: &str) -> Result<(), String> {
    if !is_machine_sid(sid) {
        return Err(format!("{sid:?} is no machine SID such as S-1-5-21-1-2-3"));
    }
    let path = format!("{}/{LEFT}", request::DIRECTORY);
    let temporary = format!("{path}.{}", std::process::id());
    fs::create_dir_all(request::DIRECTORY)
        .and_then(|()| fs::write(&temporary, format!("{sid}\n")))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(|e| format!("writing {path}: {e}"))
}

/// Gives a running guest another SID: its services' tokens, the user's key of the registry and what looks for the SID show
/// it when this returns. Programs that asked before keep what they were told.
pub(crate) fn change(sid: &str) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    let pid = server::running().ok_or("no server of Wine's runs that could take a machine SID")?;
    leave(sid)?;
    let taken = server::ask(pid, libc::SIGUSR2, &[TAKEN], end);
    match taken.map_err(|e| format!("giving Wine's server a machine SID: {e}"))? {
        Some(_) => Ok(()),
        None => Err(format!("Wine's server of this base does not take the machine SID {sid}")),
    }
}

fn is_machine_sid(text: &str) -> bool {
    let numbers = text.strip_prefix("S-1-5-21-").unwrap_or_default();
    numbers.split('-').count() == 3 && numbers.split('-').all(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_machine_sid;

    #[test]
    fn a_machine_sid_has_three_numbers() {
        assert!(is_machine_sid("S-1-5-21-0-4294967295-7"));
        for no in ["", "S-1-5-21-", "S-1-5-21-1-2", "S-1-5-21-1-2-3-500", "S-1-5-21-1-2-x", "S-1-5-32-1-2-3"]
        {
            assert!(!is_machine_sid(no), "{no}");
        }
    }
}
