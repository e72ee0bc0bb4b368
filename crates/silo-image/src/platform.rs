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
