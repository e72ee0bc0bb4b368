//! `silo daemon`'s options for builds.

use std::path::Path;

use clap::Args;
use serde::Deserialize;
use silo_engine::BuildSettings;

/// What builds may take of the disk.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct BuildArguments {
    /// Size of the cache of builds above which what was not used for longest is removed, such as 20GB; 0: no limit [a tenth of
    /// the disk]
    #[arg(long)]
    build_cache_limit: Option<String>,
    /// Size that a build's context, or an archive of ADD, may unpack to [100GB]
    #[arg(long)]
    build_context_limit: Option<String>,
    /// Files that one may have [5000000]
    #[arg(long)]
    build_context_files: Option<u64>,
}

/// `20GB`, `512m`, `1000`: bytes, in powers of 1,024.
fn size(option: &str, text: &str) -> Result<u64, String> {
    silo_engine::size::bytes(text)
        .ok_or_else(|| format!("{option} {text:?} is no size: it is a number with k, m, g, t or p behind it"))
}

impl BuildArguments {
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            build_cache_limit: self.build_cache_limit.or(file.build_cache_limit),
            build_context_limit: self.build_context_limit.or(file.build_context_limit),
            build_context_files: self.build_context_files.or(file.build_context_files),
        }
    }

    /// `root`: the daemon's directory, which is there.
    pub(crate) fn settings(self, root: &Path) -> Result<BuildSettings, String> {
        let usual = BuildSettings::default();
        let cache_limit = match self.build_cache_limit {
            Some(text) => Some(size("--build-cache-limit", &text)?).filter(|bytes| *bytes > 0),
            None => Some(
                BuildSettings::usual_cache_limit(root)
                    .map_err(|e| format!("asking for the size of the disk of {}: {e}", root.display()))?,
            ),
        };
        let unpacked_bytes = match self.build_context_limit {
            Some(text) => size("--build-context-limit", &text)?,
            None => usual.unpacked_bytes,
        };
        let unpacked_files = self.build_context_files.unwrap_or(usual.unpacked_files);
        Ok(BuildSettings { cache_limit, unpacked_bytes, unpacked_files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size("--x", text).ok(), bytes, "{text}");
        check("20GB", Some(20 << 30));
        check("1.5m", Some(3 << 19));
        check("512 KiB", Some(512 << 10));
        check("0", Some(0));
        check("1000b", Some(1000));
        check("-1", None);
        check("1x", None);
        check("", None);
    }
}
