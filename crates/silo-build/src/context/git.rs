//! Git repositories by the host's own `git`.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use silo_image::{Cancel, RegistrySettings};

use super::error::ContextError;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(5);
/// Bytes of a command's complaints that are told.
const MOST_TOLD: u64 = 4096;

/// A repository and what of it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// Its URL.
    pub url: String,
    /// Branch, tag or commit; empty: what the repository says.
    pub reference: String,
    /// Directory in it; empty: all.
    pub directory: String,
}

/// Checks a repository out into `to`, an empty directory. `keep`: with `.git`. A cancel kills what is under way.
pub fn clone(
    source: &GitSource,
    to: &Path,
    keep: bool,
    settings: &RegistrySettings,
    cancel: &Cancel,
) -> Result<(), ContextError> {
    let GitSource { url, reference, directory } = source;
    let bad = |what: &str| ContextError::Invalid(format!("{url}: {what}"));
    if reference.starts_with('-') || reference.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(bad(&format!("{reference:?} is no reference")));
    }
    let inside = Path::new(directory.trim_start_matches('/'));
    if inside.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(bad(&format!("{directory:?} leads out of the repository")));
    }
    let aside = match directory.is_empty() {
        true => to.to_owned(),
        false => to.join(".repository"),
    };
    std::fs::create_dir_all(&aside).map_err(ContextError::io(format!("making {}", aside.display())))?;
    let git = Git { at: aside.clone(), url, settings, cancel };
    git.run(&["init", "--quiet"])?;
    git.run(&["remote", "add", "origin", url])?;
    let wanted = if reference.is_empty() { "HEAD" } else { reference.as_str() };
    // A server may know no shallow fetches, and fetches of commits only by names: then all of it comes.
    if git.run(&["fetch", "--quiet", "--depth", "1", "origin", "--", wanted]).is_ok() {
        git.run(&["checkout", "--quiet", "--force", "FETCH_HEAD"])?;
    } else {
        git.run(&["fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"])?;
        let branch = format!("origin/{wanted}");
        let found = git.run(&["checkout", "--quiet", "--force", "--detach", &branch]);
        found.or_else(|_| git.run(&["checkout", "--quiet", "--force", "--detach", wanted]))?;
    }
    git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"])?;
    if !keep {
        std::fs::remove_dir_all(aside.join(".git"))
            .map_err(ContextError::io("removing the repository's .git".to_owned()))?;
    }
    if directory.is_empty() {
        return Ok(());
    }
    narrow(&aside, inside, to).map_err(|e| bad(&format!("{directory}: {e}")))
}

/// Leaves of a repository one of its directories. No link is followed: it would lead out of the context.
fn narrow(repository: &Path, inside: &Path, to: &Path) -> io::Result<()> {
    let mut at = repository.to_owned();
    for part in inside.components().filter(|part| matches!(part, Component::Normal(_))) {
        at.push(part);
        if !at.symlink_metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
    }
    // Its own name may be among what it holds.
    let aside = to.with_extension("repository");
    std::fs::rename(repository, &aside)?;
    let at = aside.join(at.strip_prefix(repository).unwrap_or(Path::new("")));
    for entry in std::fs::read_dir(at)? {
        let entry = entry?;
        std::fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    std::fs::remove_dir_all(aside)
}

struct Git<'a> {
    at: PathBuf,
    url: &'a str,
    settings: &'a RegistrySettings,
    cancel: &'a Cancel,
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<(), ContextError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "protocol.file.allow=never", "-c", "protocol.ext.allow=never"])
            .args(["-c", "advice.detachedHead=false", "-c", "core.hooksPath=/dev/null"])
            .args(arguments)
            .current_dir(&self.at)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            // What a repository has in it is never anybody's settings.
            .env("HOME", "/nonexistent")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("GIT_CONFIG_COUNT")
            .env_remove("GIT_CONFIG_PARAMETERS")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let proxies = [
            ("http_proxy", &self.settings.http_proxy),
            ("https_proxy", &self.settings.https_proxy),
            ("no_proxy", &self.settings.no_proxy),
        ];
        for (name, value) in proxies {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let shown = format!("git {}", arguments.first().copied().unwrap_or_default());
        let failed = |why: String| ContextError::Invalid(format!("{}: {shown}: {why}", self.url));
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ContextError::Invalid(format!(
                "{} is a git repository, and this host has no git: install it, or send the context as an archive",
                self.url
            )),
            _ => failed(e.to_string()),
        })?;
        let complaints = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut from) = complaints {
                let _ = from.by_ref().take(MOST_TOLD).read_to_end(&mut text);
                let _ = io::copy(&mut from, &mut io::sink());
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|e| failed(e.to_string()))? {
                break Some(status);
            }
            let is_cancelled = self.cancel.wait(POLL).is_err();
            if is_cancelled || began.elapsed() > LIMIT {
                if let Some(group) = Pid::from_raw(child.id() as i32) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                if is_cancelled {
                    let _ = reader.join();
                    return Err(failed("cancelled".to_owned()));
                }
                break None;
            }
        };
        let complaints = reader.join().unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failed(format!("{status}: {complaints}"))),
            None => Err(failed(format!("not done after {} s", LIMIT.as_secs()))),
        }
    }
}
