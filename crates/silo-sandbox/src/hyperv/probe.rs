//! Whether KVM runs guest code at speed here. The device file alone proves nothing: a host that emulates virtualisation
//! has it, and runs a guest at a hundredth of TCG's speed.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use silo_sys::kvm;

use crate::contract::MachineHost;

/// Iterations of the probe's counting loop, two instructions each.
const COUNT: u32 = 2_000_000;
/// More is a host that emulates: TCG is quicker. 50 million instructions a second.
const LIMIT: Duration = Duration::from_millis(80);

/// What this host gives its machines: found out once, in a fifth of a second.
pub fn host() -> &'static MachineHost {
    static FOUND: OnceLock<MachineHost> = OnceLock::new();
    FOUND.get_or_init(|| {
        let no_kvm = match probe() {
            Ok(Some(time)) if time <= LIMIT => None,
            Ok(found) => {
                let rate = found.map_or("less than a few".to_owned(), |t| {
                    format!("{:.1}", f64::from(COUNT) * 2.0 / t.as_secs_f64() / 1e6)
                });
                Some(format!("/dev/kvm runs {rate} million instructions a second, 50 are wanted"))
            }
            Err(e) => Some(format!("/dev/kvm: {e}")),
        };
        MachineHost { no_kvm, tsc_khz: silo_sys::tap::tsc_khz() }
    })
}

/// How long the loop took; `None`: it did not end in time.
fn probe() -> io::Result<Option<Duration>> {
    let begin = Instant::now();
    Ok(kvm::count(COUNT, LIMIT * 2)?.then(|| begin.elapsed()))
}
