//! Dockerfile instructions that change an image's config (`import -c`, `commit -c`).

use std::sync::Arc;

use crate::config::{ContainerConfig, Healthcheck};
use crate::error::{ImageError, Result};

/// The working directory that a `WORKDIR` (second) leads to from another (first); the error says why it does not.
pub type NextDirectory = dyn Fn(&str, &str) -> std::result::Result<String, String> + Send + Sync;

/// What an OS says of an image's config.
#[derive(Clone)]
pub struct Rules {
    /// Shell of the shell form, until `SHELL` says otherwise.
    pub shell: Vec<String>,
    /// Whether names in the environment differ by case.
    pub env_case_sensitive: bool,
    /// How `WORKDIR` goes on; the directory before may be empty.
    pub working_dir: Arc<NextDirectory>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("shell", &self.shell)
            .field("env_case_sensitive", &self.env_case_sensitive)
            .finish_non_exhaustive()
    }
}

impl Default for Rules {
    /// Those of an OS without a shell whose directories are as they are named.
    fn default() -> Self {
        Self {
            shell: Vec::new(),
            env_case_sensitive: true,
            working_dir: Arc::new(|_, next| Ok(next.to_owned())),
        }
    }
}

/// Applies instructions in order.
pub(crate) fn apply(config: &mut ContainerConfig, changes: &[String], rules: &Rules) -> Result<()> {
    for line in changes.iter().flat_map(|c| c.lines()).map(str::trim).filter(|l| !l.is_empty()) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        one(config, &word.to_uppercase(), rest.trim(), rules)
            .map_err(|why| ImageError::Invalid(format!("{word}: {why}: {line:?}")))?;
    }
    Ok(())
}

fn one(
    config: &mut ContainerConfig,
    word: &str,
    rest: &str,
    rules: &Rules,
) -> std::result::Result<(), String> {
    let shell = if config.shell.is_empty() { rules.shell.clone() } else { config.shell.clone() };
    let command = |text: &str| -> Vec<String> {
        json_list(text).unwrap_or_else(|| shell.iter().cloned().chain([text.to_owned()]).collect())
    };
    let list = |text: &str| -> std::result::Result<Vec<String>, String> {
        match json_list(text) {
            Some(list) => Ok(list),
            None => words(text),
        }
    };
    if rest.is_empty() && word != "CMD" && word != "ENTRYPOINT" {
        return Err("requires an argument".to_owned());
    }
    match word {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                let is_same = |entry: &String| {
                    let other = entry.split_once('=').map_or(entry.as_str(), |(n, _)| n);
                    other == name || !rules.env_case_sensitive && other.eq_ignore_ascii_case(&name)
                };
                let entry = format!("{name}={value}");
                // Where it was, as dockerd does.
                match config.env.iter().position(is_same) {
                    Some(at) => config.env[at] = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                let number = port.split('/').next().unwrap_or_default();
                if number.parse::<u16>().is_err() {
                    return Err(format!("invalid port {number:?}"));
                }
                if !config.exposed_ports.contains(&port) {
                    config.exposed_ports.push(port);
                }
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => config.working_dir = (rules.working_dir)(&config.working_dir, rest)?,
        "VOLUME" => {
            for volume in list(rest)? {
                if !config.volumes.contains(&volume) {
                    config.volumes.push(volume);
                }
            }
        }
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "SHELL" => config.shell = json_list(rest).ok_or("requires the arguments to be in JSON form")?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err("is not a valid change command".to_owned()),
    }
    Ok(())
}

fn healthcheck(rest: &str) -> std::result::Result<Healthcheck, String> {
    if rest.eq_ignore_ascii_case("none") {
        return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() });
    }
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("missing CMD")?;
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} needs a value"))?;
        if name == "retries" {
            check.retries = value.parse().map_err(|_| format!("--retries={value}"))?;
        } else {
            let nanoseconds = duration(value).ok_or_else(|| format!("invalid duration --{name}={value}"))?;
            match name {
                "interval" => check.interval = nanoseconds,
                "timeout" => check.timeout = nanoseconds,
                "start-period" => check.start_period = nanoseconds,
                "start-interval" => check.start_interval = nanoseconds,
                _ => return Err(format!("unknown flag --{name}")),
            }
        }
        rest = after.trim_start();
    }
    let command = rest.strip_prefix("CMD").ok_or("missing CMD")?.trim();
    check.test = match json_list(command) {
        Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
        None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
    };
    Ok(check)
}

/// Go's durations, nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..end].parse().ok()?;
    let factor = match &text[end..] {
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    Some((number * factor) as i64)
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Splits at blanks outside quotes; quotes and backslashes are taken away.
fn words(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("unexpected end of statement while looking for matching quote".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// `a=1 b="2 3"`, or the old form `name value with blanks`.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or("must have two arguments")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words(text)?
        .into_iter()
        .map(|w| match w.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("Syntax error - can't find = in {w:?}. Must be of the form: name=value")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(changes: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        let lines: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply(&mut config, &lines, &rules(true)).unwrap();
        config
    }

    fn rules(env_case_sensitive: bool) -> Rules {
        let shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        Rules { shell, env_case_sensitive, working_dir: Arc::new(|now, next| Ok(format!("{now}/{next}"))) }
    }

    #[test]
    fn variables_are_replaced_where_they_are_by_the_systems_rules() {
        let env = |env_case_sensitive| {
            let mut config = ContainerConfig::default();
            let line = "ENV Path=1 B=2 PATH=3 b=4".to_owned();
            apply(&mut config, &[line], &rules(env_case_sensitive)).unwrap();
            config.env
        };
        assert_eq!(env(true), ["Path=1", "B=2", "PATH=3", "b=4"]);
        assert_eq!(env(false), ["PATH=3", "b=4"]);
    }

    #[test]
    fn instructions() {
        let c = after(&[
            "CMD [\"sh\"]",
            "entrypoint echo hi",
            "ENV A=1 B=\"2 3\"",
            "ENV C 4 5",
            "LABEL x=y",
            "EXPOSE 80 53/udp",
            "WORKDIR a",
            "WORKDIR b",
            "VOLUME [\"/v\"]",
            "USER bob",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=5s --retries=2 CMD true",
        ]);
        assert_eq!(c.cmd.unwrap(), ["sh"]);
        assert_eq!(c.entrypoint.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(c.env, ["A=1", "B=2 3", "C=4 5"]);
        assert_eq!(c.exposed_ports, ["80/tcp", "53/udp"]);
        assert_eq!(
            (c.working_dir.as_str(), c.user.as_str(), c.stop_signal.as_str()),
            ("/a/b", "bob", "SIGINT")
        );
        let check = c.healthcheck.unwrap();
        assert_eq!(
            (check.interval, check.retries, check.test),
            (5_000_000_000, 2, vec!["CMD-SHELL".into(), "true".into()])
        );
    }

    #[test]
    fn errors_name_the_line() {
        let mut config = ContainerConfig::default();
        for bad in ["RUN x", "ENV", "LABEL \"a", "EXPOSE x", "SHELL sh"] {
            let error = apply(&mut config, &[bad.to_owned()], &Rules::default()).unwrap_err().to_string();
            assert!(error.contains(bad.split(' ').next().unwrap()), "{error}");
        }
    }
}
