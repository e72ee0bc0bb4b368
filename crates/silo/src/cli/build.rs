//! `silo build`: Docker's classic build, with the secrets that its client can only send to BuildKit.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use silo_build::ignore::Ignore;

use super::client::Client;

/// Header of the secrets.
const SECRETS: &str = "X-Silo-Build-Secrets";
/// Bytes of it: a server takes no longer heads.
const MOST_SECRETS: usize = 350_000;
/// What a Dockerfile from elsewhere is called in the context.
const ASIDE: &str = ".dockerfile.silo-build";

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// Directory, URL of a repository or archive, or - for an archive from standard input
    context: String,
    /// Name of the image; may be repeated
    #[arg(long = "tag", short)]
    tags: Vec<String>,
    /// The Dockerfile, or - for standard input [Dockerfile in the context]
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// NAME=value of an ARG; without a value the environment's; may be repeated
    #[arg(long = "build-arg")]
    build_args: Vec<String>,
    /// id=NAME[,src=FILE|,env=VARIABLE] of a RUN --mount=type=secret; may be repeated
    #[arg(long = "secret")]
    secrets: Vec<String>,
    /// Stage to build
    #[arg(long)]
    target: Option<String>,
    /// Isolation of the steps: process or hyperv
    #[arg(long)]
    isolation: Option<String>,
    /// What is built for, such as windows/amd64
    #[arg(long)]
    platform: Option<String>,
    /// Take no step from the cache
    #[arg(long)]
    no_cache: bool,
    /// Pull images that are here too
    #[arg(long)]
    pull: bool,
}

/// Reads `id=…,src=…`, as `docker build --secret` has it.
fn secret(text: &str) -> Result<(String, Vec<u8>), String> {
    let (mut id, mut source, mut variable) = (String::new(), None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = value.to_owned(),
            Some(("src" | "source", value)) => source = Some(value),
            Some(("env", value)) => variable = Some(value),
            Some(("type", "file" | "env")) => {}
            _ => return Err(format!("--secret {text}: unexpected {field:?}")),
        }
    }
    if id.is_empty() {
        return Err(format!("--secret {text}: an id is needed"));
    }
    let value = match (source, variable) {
        (Some(path), None) => std::fs::read(path).map_err(|e| format!("--secret {text}: {path}: {e}"))?,
        (None, variable) => {
            let name = variable.unwrap_or(&id);
            let found = std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec);
            found.ok_or_else(|| format!("--secret {text}: there is no variable {name}"))?
        }
        (Some(_), Some(_)) => return Err(format!("--secret {text}: src and env are two sources")),
    };
    Ok((id, value))
}

impl BuildArguments {
    fn query(&self, dockerfile: &str, remote: &str) -> String {
        let build_args: BTreeMap<&str, Option<String>> = self
            .build_args
            .iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text.as_str(), std::env::var(text).ok()),
            })
            .collect();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut all = vec![
            ("dockerfile", dockerfile.to_owned()),
            ("remote", remote.to_owned()),
            ("target", text(&self.target)),
            ("isolation", text(&self.isolation)),
            ("platform", text(&self.platform)),
            ("buildargs", json!(build_args).to_string()),
            ("nocache", u8::from(self.no_cache).to_string()),
            ("pull", u8::from(self.pull).to_string()),
            ("rm", "1".to_owned()),
        ];
        all.extend(self.tags.iter().map(|tag| ("t", tag.clone())));
        all.retain(|(_, value)| !value.is_empty());
        let encoded = |(name, value): &(&str, String)| {
            format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
        };
        all.iter().map(encoded).collect::<Vec<_>>().join("&")
    }

    fn header(&self) -> Result<String, String> {
        let secrets = self.secrets.iter().map(|text| secret(text));
        let secrets = secrets.collect::<Result<BTreeMap<String, Vec<u8>>, String>>()?;
        let encoded: BTreeMap<&String, String> =
            secrets.iter().map(|(id, value)| (id, STANDARD.encode(value))).collect();
        let header = STANDARD.encode(json!(encoded).to_string());
        match header.len() > MOST_SECRETS {
            true => Err(format!("the secrets are too large: {} bytes, encoded", header.len())),
            false => Ok(header),
        }
    }
}

/// The context's directory, and the Dockerfile as a path in it, or its text.
fn dockerfile(root: &Path, file: Option<&Path>) -> Result<(String, Option<Vec<u8>>), String> {
    let Some(file) = file else { return Ok((String::new(), None)) };
    if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(|e| format!("reading the Dockerfile: {e}"))?;
        return Ok((ASIDE.to_owned(), Some(text)));
    }
    let at = |e: std::io::Error| format!("{}: {e}", file.display());
    let whole = file.canonicalize().map_err(at)?;
    match whole.strip_prefix(root) {
        Ok(inside) => Ok((inside.display().to_string(), None)),
        Err(_) => Ok((ASIDE.to_owned(), Some(std::fs::read(&whole).map_err(at)?))),
    }
}

/// Packs a directory without what is ignored, which the daemon would leave out itself.
fn pack(root: &Path, name: &str, text: Option<Vec<u8>>, to: impl Write) -> Result<(), String> {
    let name = if name.is_empty() { "Dockerfile" } else { name };
    let own = format!("{name}.dockerignore");
    let patterns =
        [own.as_str(), ".dockerignore"].iter().find_map(|file| std::fs::read(root.join(file)).ok());
    let ignore = Ignore::parse(&patterns.unwrap_or_default())
        .map_err(|e| format!("error reading .dockerignore: {e}"))?;
    let kept = [name, own.as_str(), ".dockerignore", "dockerfile"];
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        let failed = |e: std::io::Error| format!("packing {}: {e}", root.join(&directory).display());
        for entry in std::fs::read_dir(root.join(&directory)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = directory.join(entry.file_name());
            let (shown, kind) = (path.to_string_lossy().into_owned(), entry.file_type().map_err(failed)?);
            let ignored = ignore.is_ignored(&shown) && !kept.contains(&shown.as_str());
            let below = kept.iter().any(|file| Path::new(file).starts_with(&path));
            if kind.is_dir() && (!ignored || below || ignore.may_want_below(&shown)) {
                todo.push(path.clone());
            }
            if kind.is_socket() || ignored && !kind.is_dir() || ignored && !below {
                continue;
            }
            archive.append_path_with_name(entry.path(), &path).map_err(failed)?;
        }
    }
    let failed = |e: std::io::Error| format!("packing the context: {e}");
    if let Some(text) = text {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &text[..]).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(failed)
}

fn show(line: Value) -> Result<(), String> {
    if let Some(error) = line["error"].as_str() {
        return Err(error.to_owned());
    }
    let text = match (line["stream"].as_str(), line["status"].as_str(), line["id"].as_str()) {
        (Some(text), ..) => text.to_owned(),
        // Of a pull; not each step of a download.
        (_, Some(status), None) => format!("{status}\n"),
        _ => return Ok(()),
    };
    print!("{text}");
    std::io::stdout().flush().map_err(|e| format!("writing: {e}"))
}

/// `silo build`.
pub(crate) fn main(client: &Client, arguments: &BuildArguments) -> Result<(), String> {
    let context = arguments.context.as_str();
    let headers = [(SECRETS, arguments.header()?), ("Content-Type", "application/x-tar".to_owned())];
    let post = |query: String, body: &mut dyn Read| {
        client.post_stream_with(&format!("/build?{query}"), &headers, body, show)
    };
    let named = arguments.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    if context == "-" {
        return post(arguments.query(&named, ""), &mut std::io::stdin());
    }
    if context.contains("://") || context.starts_with("git@") || context.starts_with("github.com/") {
        return post(arguments.query(&named, context), &mut std::io::empty());
    }
    let root = Path::new(context).canonicalize().map_err(|e| format!("context {context}: {e}"))?;
    let (name, text) = dockerfile(&root, arguments.file.as_deref())?;
    let query = arguments.query(&name, "");
    let (mut reader, writer) = std::io::pipe().map_err(|e| format!("making a pipe: {e}"))?;
    std::thread::scope(|scope| {
        let packing =
            scope.spawn(|| pack(&root, &name, text, std::io::BufWriter::with_capacity(1 << 18, writer)));
        let built = post(query, &mut reader);
        drop(reader);
        // An archive that ends early is what the daemon complains about then.
        packing.join().map_err(|_| "packing the context panicked".to_owned())?.and(built)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        std::fs::write(&file, b"\xffvalue").unwrap();
        let of_file = secret(&format!("id=a,src={}", file.display())).unwrap();
        assert_eq!(of_file, ("a".to_owned(), b"\xffvalue".to_vec()));
        assert_eq!(secret("id=b,env=PATH").unwrap().1, std::env::var("PATH").unwrap().into_bytes());
        assert_eq!(secret("id=PATH").unwrap().1, std::env::var("PATH").unwrap().into_bytes());
        for wrong in
            ["src=x", "id=a,src=/nonexistent", "id=a,env=NO_SUCH_VARIABLE", "id=a,x=y", "id=a,src=a,env=b"]
        {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_context_is_packed_without_what_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["Dockerfile", "a", "junk/b", "junk/keep", "sub/Other", "sub/c"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        std::fs::write(dir.path().join(".dockerignore"), "junk\n!junk/keep\nsub\nDockerfile\n").unwrap();
        let packed = |name: &str, text: Option<Vec<u8>>| {
            let mut tar = Vec::new();
            pack(dir.path(), name, text, &mut tar).unwrap();
            let mut archive = tar::Archive::new(&tar[..]);
            let entries = archive.entries().unwrap();
            let mut all: Vec<String> =
                entries.map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
            all.sort();
            all
        };
        assert_eq!(packed("", None), [".dockerignore", "Dockerfile", "a", "junk/keep"]);
        assert_eq!(packed("sub/Other", None), [".dockerignore", "a", "junk/keep", "sub", "sub/Other"]);
        assert_eq!(
            packed(ASIDE, Some(vec![1])),
            [".dockerfile.silo-build", ".dockerignore", "a", "junk/keep"]
        );
    }
}
