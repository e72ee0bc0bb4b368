//! One instruction's text → what it says.

use super::ast::{Argument, Command, Healthcheck, Instruction, Run, RunNetwork, Source, Transfer};
use super::flags::{Flags, Kind};
use super::heredoc::{self, Raw};
use super::mount;
use super::words::{Json, fields, first, go_quote, json, meant, quoted, split};

const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Whether the lines after an instruction may be heredocs of it.
pub(super) fn may_have_heredocs(text: &str, escape: char) -> bool {
    let (keyword, _, rest) = split(text, escape);
    match keyword.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "RUN" => json(rest) == Json::No,
        // Once: a trigger of a trigger is refused.
        "ONBUILD" => {
            let (inner, _, rest) = split(rest, escape);
            let any = ["ADD", "COPY", "RUN"].iter().any(|k| inner.eq_ignore_ascii_case(k));
            any && json(rest) == Json::No
        }
        _ => false,
    }
}

/// Reads an instruction that is no `FROM`.
pub(super) fn parse(text: &str, escape: char, heredocs: &[Raw]) -> Result<Instruction, String> {
    let (written, words, rest) = split(text, escape);
    let keyword = written.to_ascii_uppercase();
    let flags = |known| Flags::parse(&words, known);
    let no_flags = || Flags::parse(&words, &[]).map(drop);
    let one = || match rest {
        "" => Err(format!("{keyword} requires exactly one argument")),
        rest => no_flags().map(|()| rest.to_owned()),
    };
    let some = || match rest {
        "" => Err(format!("{keyword} requires at least one argument")),
        _ => no_flags(),
    };
    Ok(match keyword.as_str() {
        "ADD" => Instruction::Add(transfer(&keyword, &words, rest, heredocs)?),
        "COPY" => Instruction::Copy(transfer(&keyword, &words, rest, heredocs)?),
        "ARG" => {
            some()?;
            Instruction::Arg(quoted(rest, escape).iter().map(|w| argument(w)).collect::<Result<_, _>>()?)
        }
        "CMD" => {
            no_flags()?;
            Instruction::Cmd(command(rest)?)
        }
        "ENTRYPOINT" => {
            no_flags()?;
            // `ENTRYPOINT` alone takes away that of the base.
            let none = Command::Exec(Vec::new());
            Instruction::Entrypoint(if rest.is_empty() { none } else { command(rest)? })
        }
        "ENV" | "LABEL" => {
            some()?;
            let pairs = pairs(&keyword, rest, escape)?;
            if keyword == "ENV" { Instruction::Env(pairs) } else { Instruction::Label(pairs) }
        }
        "EXPOSE" => {
            some()?;
            let mut ports = fields(rest);
            ports.sort();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(&words, rest)?),
        "MAINTAINER" => Instruction::Maintainer(one()?),
        "ONBUILD" => {
            some()?;
            onbuild(rest, escape, heredocs)?
        }
        "RUN" => {
            let flags = flags(&[("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text)])?;
            Instruction::Run(run(&flags, command(rest)?, heredocs)?)
        }
        "SHELL" => {
            some()?;
            match json(rest) {
                Json::Strings(list) if list.is_empty() => {
                    return Err("SHELL requires at least one argument".into());
                }
                Json::Strings(list) => Instruction::Shell(list),
                Json::Mixed => return Err(MIXED.to_owned()),
                Json::No => return Err("SHELL requires the arguments to be in JSON form".to_owned()),
            }
        }
        "STOPSIGNAL" => Instruction::Stopsignal(one()?),
        "USER" => Instruction::User(one()?),
        "VOLUME" => {
            let volumes: Vec<String> = list(rest)?.iter().map(|v| v.trim().to_owned()).collect();
            if volumes.is_empty() {
                return Err("VOLUME requires at least one argument".to_owned());
            }
            no_flags()?;
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            Instruction::Volume(volumes)
        }
        "WORKDIR" => Instruction::Workdir(one()?),
        _ => {
            let lower = written == written.to_lowercase();
            let hint = meant(String::new(), &keyword, KEYWORDS.iter().copied());
            let hint = if lower { hint.to_lowercase() } else { hint };
            return Err(format!("unknown instruction: {written}{hint}"));
        }
    })
}

const MIXED: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// Exec or shell form.
fn command(rest: &str) -> Result<Command, String> {
    match json(rest) {
        Json::Strings(list) => Ok(Command::Exec(list)),
        Json::Mixed => Err(MIXED.to_owned()),
        Json::No => Ok(Command::Shell(rest.to_owned())),
    }
}

/// JSON, or words between blanks.
fn list(rest: &str) -> Result<Vec<String>, String> {
    match json(rest) {
        Json::Strings(list) => Ok(list),
        Json::Mixed => Err(MIXED.to_owned()),
        Json::No => Ok(fields(rest)),
    }
}

fn argument(word: &str) -> Result<Argument, String> {
    let (name, default) = word.split_once('=').map_or((word, None), |(n, d)| (n, Some(d.to_owned())));
    if name.is_empty() {
        return Err("ARG names can not be blank".to_owned());
    }
    Ok(Argument { name: name.to_owned(), default })
}

/// `name=value …`, or the old `name value`.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = quoted(rest, escape);
    if words.first().is_none_or(|w| !w.contains('=')) {
        let (name, Some(value)) = first(rest) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        return Ok(vec![(name.to_owned(), value.to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(format!("{keyword} names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            let word = go_quote(word);
            Err(format!("Syntax error - can't find = in {word}. Must be of the form: name=value"))
        }
    };
    words.iter().map(pair).collect()
}

fn transfer(keyword: &str, words: &[String], rest: &str, heredocs: &[Raw]) -> Result<Transfer, String> {
    const COMMON: [(&str, Kind); 4] =
        [("chown", Kind::Text), ("chmod", Kind::Text), ("link", Kind::Bool), ("exclude", Kind::List)];
    const ADD: [(&str, Kind); 3] =
        [("checksum", Kind::Text), ("keep-git-dir", Kind::Bool), ("unpack", Kind::Bool)];
    const COPY: [(&str, Kind); 2] = [("from", Kind::Text), ("parents", Kind::Bool)];
    let mut args = list(rest)?;
    let (Some(target), false) = (args.pop(), args.is_empty()) else {
        let why = "but only one was provided. Destination could not be determined";
        return Err(format!("{keyword} requires at least two arguments, {why}"));
    };
    let own: &[(&str, Kind)] = if keyword == "ADD" { &ADD } else { &COPY };
    let flags = Flags::parse(words, &[&COMMON, own].concat())?;
    let plain = json(rest) == Json::No;
    let opening = |word: &str| heredoc::opening(word).filter(|_| plain);
    if opening(&target).is_some() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let source = |word: String| match opening(&word) {
        Some(opening) => {
            let raw = heredocs.iter().rfind(|h| h.opening.name == opening.name);
            let raw = raw.ok_or_else(|| format!("{keyword}: {word} has no lines"))?;
            Ok(Source::Heredoc(raw.heredoc()))
        }
        None => Ok(Source::Path(word)),
    };
    Ok(Transfer {
        sources: args.into_iter().map(source).collect::<Result<_, String>>()?,
        target,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.bool("keep-git-dir").unwrap_or(false),
        unpack: flags.bool("unpack"),
    })
}

fn run(flags: &Flags, command: Command, heredocs: &[Raw]) -> Result<Run, String> {
    let network = match flags.text("network").as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => return Err(format!("invalid network mode {}", go_quote(other))),
    };
    let security = flags.text("security");
    if let Some(other) = security.as_deref().filter(|s| !["sandbox", "insecure"].contains(s)) {
        return Err(format!("security {} is not valid", go_quote(other)));
    }
    let mount_flags = flags.list("mount");
    let mounts =
        mount_flags.iter().filter_map(|m| mount::parse_fixed(m).transpose()).collect::<Result<_, _>>()?;
    let heredocs = heredocs.iter().map(Raw::heredoc).collect();
    Ok(Run { command, heredocs, mounts, mount_flags, network, security })
}

fn healthcheck(words: &[String], rest: &str) -> Result<Healthcheck, String> {
    if rest.is_empty() {
        return Err("HEALTHCHECK requires at least one argument".to_owned());
    }
    let (written, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (kind, args) = (written.to_ascii_uppercase(), args.trim_start());
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(words, &names.map(|n| (n, Kind::Text)))?;
    if kind == "NONE" {
        return if args.is_empty() {
            Ok(Healthcheck::None)
        } else {
            Err("HEALTHCHECK NONE takes no arguments".into())
        };
    }
    if kind != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", go_quote(&kind)));
    }
    let command = command(args)?;
    if command == Command::Exec(Vec::new()) || command == Command::Shell(String::new()) {
        return Err("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let duration = |name: &str| match flags.text(name) {
        None => Ok(0),
        Some(text) => nanoseconds(name, &text),
    };
    let retries = match flags.text("retries") {
        None => 0,
        Some(text) => match text.parse::<i32>() {
            Ok(n) if n < 0 => return Err(format!("--retries cannot be negative ({n})")),
            Ok(n) => n.unsigned_abs(),
            Err(_) => {
                return Err(format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(&text)));
            }
        },
    };
    Ok(Healthcheck::Check {
        command,
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        start_period: duration("start-period")?,
        start_interval: duration("start-interval")?,
        retries,
    })
}

fn nanoseconds(flag: &str, text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let duration = silo_engine::time::go_duration(text).map(|d| u64::try_from(d.as_nanos()));
    match duration {
        Some(Ok(0)) => Ok(0),
        Some(Ok(n)) if n < 1_000_000 => Err(format!("Interval {} cannot be less than 1ms", go_quote(flag))),
        Some(Ok(n)) => Ok(n),
        _ => Err(format!("time: invalid duration {}", go_quote(text))),
    }
}

/// `ONBUILD`: checks the instruction that it holds.
fn onbuild(rest: &str, escape: char, heredocs: &[Raw]) -> Result<Instruction, String> {
    let (inner, _, _) = split(rest, escape);
    match inner.to_ascii_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        refused @ ("MAINTAINER" | "FROM") => {
            return Err(format!("{refused} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    parse(rest, escape, heredocs)?;
    let mut text = rest.to_owned();
    for raw in heredocs {
        text.push_str(&format!("\n{}{}", raw.body, raw.opening.name));
    }
    Ok(Instruction::Onbuild(text))
}
