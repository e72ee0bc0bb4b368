//! Limits that the host's kernel cannot keep: taken out of a request, each with a warning in dockerd's words.

use silo_guest::Limits;
use silo_sandbox::Accounting;

const SWAP: &str = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";
const SWAPPINESS: &str = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.";
const OOM_KILL: &str = "Your kernel does not support OomKillDisable. OomKillDisable discarded.";
const OOM_WITHOUT_LIMIT: &str = "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.";

/// Takes out what `host` does not have; returns a sentence for each.
pub(crate) fn discard(limits: &mut Limits, host: &Accounting) -> Vec<String> {
    let mut warnings = Vec::new();
    if limits.memory > 0 && limits.memory_swap != -1 && !host.swap {
        warnings.push(SWAP.to_owned());
        limits.memory_swap = -1;
    }
    if limits.memory_swappiness.is_some() && !host.swappiness {
        warnings.push(SWAPPINESS.to_owned());
        limits.memory_swappiness = None;
    }
    if limits.oom_kill_disable && !host.oom_control {
        warnings.push(OOM_KILL.to_owned());
        limits.oom_kill_disable = false;
    }
    if limits.oom_kill_disable && limits.memory == 0 {
        warnings.push(OOM_WITHOUT_LIMIT.to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: Limits, host: Accounting, left: Limits, warned: &[&str]) {
        let mut limits = asked;
        assert_eq!(discard(&mut limits, &host), warned);
        assert_eq!(limits, left);
    }

    #[test]
    fn what_a_host_cannot_keep_is_discarded_with_a_word() {
        let v2 = Accounting { swap: true, swappiness: false, oom_control: false };
        let v1 = Accounting { swap: true, swappiness: true, oom_control: true };
        let asked = Limits {
            memory: 64 << 20,
            memory_swappiness: Some(10),
            oom_kill_disable: true,
            ..Default::default()
        };
        check(asked.clone(), v1, asked.clone(), &[]);
        let left = Limits { memory: 64 << 20, ..Default::default() };
        check(asked, v2, left.clone(), &[SWAPPINESS, OOM_KILL]);
        let without_swap = Accounting { swap: false, ..v1 };
        check(
            left,
            without_swap,
            Limits { memory: 64 << 20, memory_swap: -1, ..Default::default() },
            &[SWAP],
        );
        let unbounded = Limits { oom_kill_disable: true, ..Default::default() };
        check(unbounded.clone(), v1, unbounded, &[OOM_WITHOUT_LIMIT]);
        check(Limits::default(), without_swap, Limits::default(), &[]);
    }
}
