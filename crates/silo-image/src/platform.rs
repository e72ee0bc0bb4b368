//! The platform that a request names, and whether an image is for it.

use std::fmt;

use crate::config::ImageConfig;

/// A platform of the OCI image specification (image-index.md, `platform`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `windows`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `v7`; empty: the architecture's plain one.
    pub variant: String,
    /// Windows' build; empty: any.
    pub os_version: String,
}

impl Platform {
    /// Whether an image is for this platform. An image that tells no variant is for all of its architecture, one for an
    /// older 32-bit ARM is for a newer one too.
    pub fn matches(&self, image: &ImageConfig) -> bool {
        let (architecture, variant) = normal(&self.architecture, &self.variant);
        let (of_image, variant_of_image) = normal(&image.architecture, &image.variant);
        let age = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
        let fits = variant == variant_of_image
            || image.variant.is_empty()
            || architecture == "arm" && age(&variant_of_image) <= age(&variant);
        self.os == image.os
            && architecture == of_image
            && fits
            && (self.os_version.is_empty() || self.os_version == image.os_version)
    }
}

/// Architectures that `--platform` may name alone.
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "x86_64", "aarch64",
];
/// Systems that it may name alone.
const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd"];

/// Architecture of this machine in OCI's words.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Platform {
    /// `os[(version)][/architecture[/variant]]`, or an architecture alone; what is left out is the host's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?}: {why}: invalid argument");
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|p| p.is_empty() || p.contains(char::is_whitespace)) {
            return Err(bad("an invalid platform specifier"));
        }
        let (os, os_version) = match parts[0].strip_suffix(')').and_then(|p| p.split_once('(')) {
            Some((os, version)) => (os.to_lowercase(), version.to_owned()),
            None => (parts[0].to_lowercase(), String::new()),
        };
        let (os, architecture) = match parts.get(1) {
            Some(architecture) => (os, architecture.to_lowercase()),
            None if SYSTEMS.contains(&os.as_str()) => (os, host_architecture().to_owned()),
            None if ARCHITECTURES.contains(&os.as_str()) => ("linux".to_owned(), os),
            None => return Err(bad("unknown operating system or architecture")),
        };
        let variant = parts.get(2).map(|v| v.to_lowercase()).unwrap_or_default();
        let (architecture, variant) = normal(&architecture, &variant);
        // One that says nothing of a variant takes any.
        let variant = if architecture == "arm" && parts.len() < 3 { "v7".to_owned() } else { variant };
        Ok(Self { os, architecture, variant, os_version })
    }

    /// How well an entry of an index is for this platform: `None` not at all, else the greater the better. An entry's
    /// version may say more than the one that is wanted.
    pub(crate) fn rank(&self, entry: &Self) -> Option<(u32, Vec<u64>)> {
        let of = ImageConfig {
            os: entry.os.clone(),
            architecture: entry.architecture.clone(),
            variant: entry.variant.clone(),
            ..Default::default()
        };
        let versions = |text: &str| text.split('.').map(|p| p.parse().unwrap_or(0)).collect::<Vec<u64>>();
        let any = Self { os_version: String::new(), ..self.clone() };
        let wanted = versions(&self.os_version);
        let same = self.os_version.is_empty() || versions(&entry.os_version).starts_with(&wanted);
        let age = entry.variant.trim_start_matches('v').parse().unwrap_or(0);
        (any.matches(&of) && same).then(|| (age, versions(&entry.os_version)))
    }
}

/// One spelling for what is the same: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
fn normal(architecture: &str, variant: &str) -> (String, String) {
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let variant = match (architecture, variant) {
        ("amd64", "v1") | ("arm64", "v8" | "8") => "",
        ("arm", "") => "v7",
        (_, other) => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_as_users_write_them() {
        for (text, whole) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("arm64", Some("linux/arm64")),
            ("windows(10.0.20348)/amd64", Some("windows(10.0.20348)/amd64")),
            ("plan10", None),
            ("linux//x", None),
            ("a/b/c/d", None),
            ("", None),
        ] {
            assert_eq!(Platform::parse(text).ok().map(|p| p.to_string()).as_deref(), whole, "{text}");
        }
        assert_eq!(Platform::parse("windows").unwrap().os, "windows");
    }

    #[test]
    fn platforms_of_images() {
        let platform = |text: &str| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: next(), os_version: String::new() }
        };
        for (wanted, image, fits) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/x86_64", "linux/amd64", true),
            ("linux/amd64/v2", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/arm64", "linux/amd64", false),
            ("windows/amd64", "linux/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
        ] {
            let of = platform(image);
            let config = ImageConfig {
                os: of.os,
                architecture: of.architecture,
                variant: of.variant,
                ..Default::default()
            };
            assert_eq!(platform(wanted).matches(&config), fits, "{wanted} of {image}");
        }
        let build = Platform { os_version: "10.0.20348.1".into(), ..platform("windows/amd64") };
        assert_eq!(build.to_string(), "windows(10.0.20348.1)/amd64");
    }
}
