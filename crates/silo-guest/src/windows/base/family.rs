//! Which of Microsoft's base images a base stands for, and its names.

/// Which of Microsoft's base images a base stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Console programs only, 64-bit only.
    NanoServer,
    /// All of Wine's Windows side, and 32-bit programs.
    ServerCore,
}

impl Family {
    /// All there are.
    pub fn all() -> [Family; 2] {
        [Family::NanoServer, Family::ServerCore]
    }

    /// As typed: `nanoserver`, `servercore`.
    pub fn parse(name: &str) -> Option<Family> {
        match name {
            "nanoserver" => Some(Family::NanoServer),
            "servercore" => Some(Family::ServerCore),
            _ => None,
        }
    }

    /// As typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::NanoServer => "nanoserver",
            Family::ServerCore => "servercore",
        }
    }

    /// The image reference that a built base gets.
    pub fn reference(self) -> &'static str {
        match self {
            Family::NanoServer => "silo/nanoserver:ltsc2022",
            Family::ServerCore => "silo/servercore:ltsc2022",
        }
    }

    pub(super) fn installation_type(self) -> &'static str {
        match self {
            Family::NanoServer => "Nano Server",
            Family::ServerCore => "Server Core",
        }
    }

    pub(super) fn edition(self) -> &'static str {
        match self {
            Family::NanoServer => "ServerDatacenterNano",
            Family::ServerCore => "ServerDatacenter",
        }
    }
}
