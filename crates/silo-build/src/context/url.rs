//! What a remote source's text is: an URL, or a git repository with a reference and a directory.

use super::git::GitSource;

/// Whether a source of `ADD` is fetched.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A git repository as `docker build` and `ADD` know one: `git://…`, `git@host:…`, `ssh://…`, `github.com/…`, or an http(s) URL
/// whose path ends with `.git`; `#reference:directory` may follow.
pub fn git_source(text: &str) -> Option<GitSource> {
    let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
    let is_git = match () {
        () if is_url(url) => url.ends_with(".git"),
        () if url.starts_with("github.com/") => true,
        () => ["git://", "git@", "ssh://"].iter().any(|prefix| url.starts_with(prefix)),
    };
    // Git would take what begins so for an option.
    if !is_git || url.starts_with('-') {
        return None;
    }
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    let url = if url.starts_with("github.com/") { format!("https://{url}") } else { url.to_owned() };
    Some(GitSource { url, reference: reference.to_owned(), directory: directory.to_owned() })
}
