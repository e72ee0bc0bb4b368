//! The words after the last colon of `-v` and `--volumes-from`.

/// What a mode says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountMode {
    /// `ro`.
    pub read_only: bool,
    /// `rprivate`, `slave`, …; empty: not said.
    pub propagation: String,
    /// `nocopy`.
    pub no_copy: bool,
}

impl MountMode {
    /// `ro`, `z,nocopy`, …: of each kind one word at most, as with dockerd. `None`: it is no mode.
    pub fn parse(text: &str) -> Option<Self> {
        let mut mode = Self::default();
        let mut seen = [false; 5];
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "ro" | "rw" => 0,
                // Labels of SELinux, which Silo has nothing to do with, and what only Docker Desktop heeds.
                "z" | "Z" => 1,
                "consistent" | "cached" | "delegated" => 2,
                "nocopy" => 3,
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => 4,
                _ => return None,
            };
            if std::mem::replace(&mut seen[kind], true) {
                return None;
            }
            match kind {
                0 => mode.read_only = word == "ro",
                3 => mode.no_copy = true,
                4 => word.clone_into(&mut mode.propagation),
                _ => {}
            }
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let said = |text: &str| {
            MountMode::parse(text).map(|m| format!("{} {} {}", m.read_only, m.propagation, m.no_copy))
        };
        assert_eq!(said("").as_deref(), Some("false  false"));
        assert_eq!(said("ro,z,nocopy").as_deref(), Some("true  true"));
        assert_eq!(said("rw,Z,rslave,cached").as_deref(), Some("false rslave false"));
        for bad in ["ro,rw", "z,Z", "slave,shared", "RO", "copy", "ro,", ",", "ro;z"] {
            assert_eq!(MountMode::parse(bad), None, "{bad}");
        }
    }
}
