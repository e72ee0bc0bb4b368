//! Exec and shell forms → what is started; and how that is told in an image's history.

use super::ast::{Command, Healthcheck, Instruction, Run};
use super::words::go_quote;

/// An image's shell (`SHELL`, or its OS' own).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// `/bin/sh -c`.
    pub words: Vec<String>,
    /// The OS hands a program one line, which the program itself splits: shell and text are one argument, passed as written.
    pub one_line: bool,
}

/// Arguments of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The program first.
    pub words: Vec<String>,
    /// The first word is a whole command line (image config `ArgsEscaped`).
    pub escaped: bool,
}

/// What a `RUN` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A command.
    Command(Arguments),
    /// A file, which the container is to have under any directory while it runs.
    Script {
        /// The file's name.
        name: String,
        /// Its content.
        body: String,
        /// What goes before its path; empty: its first line (`#!`) says what runs it.
        shell: Vec<String>,
    },
}

impl Command {
    /// What is started. No words at all: nothing is (`CMD []`).
    pub fn arguments(&self, shell: &Shell) -> Arguments {
        match self {
            Self::Exec(words) => Arguments { words: words.clone(), escaped: false },
            Self::Shell(text) if text.is_empty() && shell.one_line => {
                Arguments { words: Vec::new(), escaped: false }
            }
            Self::Shell(text) if shell.one_line => {
                Arguments { words: vec![format!("{} {text}", shell.words.join(" "))], escaped: true }
            }
            Self::Shell(text) => {
                let text = (!text.is_empty()).then(|| text.clone());
                Arguments { words: shell.words.iter().cloned().chain(text).collect(), escaped: false }
            }
        }
    }
}

impl Shell {
    /// Whether its program is the command interpreter that reads one line and no more.
    fn is_command_interpreter(&self) -> bool {
        let program = self.words.first().map(|w| w.to_ascii_lowercase()).unwrap_or_default();
        let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
        name.strip_suffix(".exe").unwrap_or(name) == "cmd"
    }
}

impl Run {
    /// What it runs. `RUN <<EOF` alone runs the lines: by the shell, as one text; by their own `#!` line; or, where the shell
    /// takes one line only, as a file of commands. (No `set -e`: a script that wants it says so.)
    pub fn program(&self, shell: &Shell) -> Program {
        let Command::Shell(text) = &self.command else {
            return Program::Command(self.command.arguments(shell));
        };
        let alone = super::heredoc::opening(text).is_some();
        let text = match self.heredocs.first() {
            None => text.clone(),
            Some(script) if alone => {
                let name: String = script.name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
                if !shell.one_line && script.body.starts_with("#!") {
                    return Program::Script { name, body: script.body.clone(), shell: Vec::new() };
                }
                if shell.is_command_interpreter() {
                    let lines = script.body.lines().map(|l| format!("{l}\r\n"));
                    let body = std::iter::once("@echo off\r\n".to_owned()).chain(lines).collect();
                    return Program::Script { name: format!("{name}.cmd"), body, shell: shell.words.clone() };
                }
                script.body.clone()
            }
            // The shell reads them itself.
            Some(_) => self
                .heredocs
                .iter()
                .fold(text.clone(), |text, heredoc| format!("{text}\n{}{}", heredoc.body, heredoc.name)),
        };
        Program::Command(Command::Shell(text).arguments(shell))
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl Program {
    /// Words that say what is run, for history and the cache's key.
    pub fn recorded(&self) -> Vec<String> {
        match self {
            Self::Command(arguments) => arguments.words.clone(),
            Self::Script { body, shell, .. } => shell.iter().chain([body]).cloned().collect(),
        }
    }
}

/// History of a `RUN`, as the classic builder writes it: `|2 a=1 b=2 /bin/sh -c …` with [`super::Scope::recorded_arguments`].
pub fn run_history(words: &[String], arguments: Option<&[String]>) -> String {
    let words = words.join(" ");
    match arguments {
        None => words,
        Some(arguments) => {
            let count = format!("|{}", arguments.len());
            let all = std::iter::once(&count).chain(arguments).map(String::as_str);
            all.chain([words.as_str()]).collect::<Vec<_>>().join(" ")
        }
    }
}

/// History of an instruction that runs nothing: `/bin/sh -c #(nop)  ENV a=b`, with what [`comment`] says.
pub fn nop_history(shell: &Shell, comment: &str) -> String {
    format!("{} #(nop)  {comment}", shell.words.join(" "))
}

/// History of `WORKDIR`, with the directory that it made: `/bin/sh -c #(nop) WORKDIR /a`.
pub fn workdir_history(shell: &Shell, directory: &str) -> String {
    format!("{} #(nop) WORKDIR {directory}", shell.words.join(" "))
}

/// History of `COPY` and `ADD`: `/bin/sh -c #(nop) COPY file:… in /x `; `hash` as `file:…`, `dir:…` or `multi:…`.
pub fn transfer_history(
    shell: &Shell,
    keyword: &str,
    chown: Option<&str>,
    hash: &str,
    target: &str,
) -> String {
    let chown = chown.map(|c| format!("--chown={c} ")).unwrap_or_default();
    format!("{} #(nop) {keyword} {chown}{hash} in {target} ", shell.words.join(" "))
}

/// What the classic builder says of an expanded instruction that runs nothing and writes nothing; `None` of the others.
pub fn comment(instruction: &Instruction, shell: &Shell) -> Option<String> {
    let quoted = |words: &[String]| words.iter().map(|w| go_quote(w)).collect::<Vec<_>>().join(" ");
    let command = |c: &Command| format!("[{}]", quoted(&c.arguments(shell).words));
    let pairs = |pairs: &[(String, String)]| -> String {
        pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect()
    };
    Some(match instruction {
        Instruction::Arg(list) => {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("ARG {}", list.join(" "))
        }
        Instruction::Cmd(c) => format!("CMD {}", command(c)),
        Instruction::Entrypoint(c) => format!("ENTRYPOINT {}", command(c)),
        Instruction::Env(list) => format!("ENV{}", pairs(list)),
        Instruction::Label(list) => format!("LABEL{}", pairs(list)),
        Instruction::Expose(ports) => format!("EXPOSE {}", ports.join(" ")),
        Instruction::Healthcheck(check) => format!("HEALTHCHECK {}", health_comment(check)),
        Instruction::Maintainer(name) => format!("MAINTAINER {name}"),
        Instruction::Onbuild(text) => format!("ONBUILD {text}"),
        Instruction::Shell(words) => format!("SHELL [{}]", words.join(" ")),
        Instruction::Stopsignal(signal) => format!("STOPSIGNAL {signal}"),
        Instruction::User(user) => format!("USER {user}"),
        Instruction::Volume(volumes) => format!("VOLUME [{}]", volumes.join(" ")),
        Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_) => {
            return None;
        }
    })
}

/// Go's `%q` of dockerd's struct: test, interval, timeout, start period, start interval, retries (as a letter).
fn health_comment(check: &Healthcheck) -> String {
    let (test, times, retries) = match check {
        Healthcheck::None => (vec!["NONE".to_owned()], [0; 4], 0),
        Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                Command::Exec(words) => {
                    std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
                }
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
            };
            (test, [*interval, *timeout, *start_period, *start_interval], *retries)
        }
    };
    let test: Vec<String> = test.iter().map(|w| go_quote(w)).collect();
    let times: Vec<String> = times.iter().map(|t| format!("\"{}\"", go_duration(*t))).collect();
    let letter = char::from_u32(retries).unwrap_or(char::REPLACEMENT_CHARACTER);
    let letter = match letter {
        '\'' => "\\'".to_owned(),
        '"' => "\"".to_owned(),
        c => go_quote(&c.to_string()).trim_matches('"').to_owned(),
    };
    format!("&{{[{}] {} '{letter}'}}", test.join(" "), times.join(" "))
}

/// Go's text of a duration: `1h2m3.5s`, `500ms`.
fn go_duration(nanoseconds: u64) -> String {
    let fraction = |whole: u64, rest: u64, digits: usize| {
        let text = format!("{whole}.{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", fraction(n / 1_000, n % 1_000, 3)),
        n if n < 1_000_000_000 => format!("{}ms", fraction(n / 1_000_000, n % 1_000_000, 6)),
        n => {
            let (seconds, rest) = (n / 1_000_000_000, n % 1_000_000_000);
            let last = format!("{}s", fraction(seconds % 60, rest, 9));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => last,
                (0, m) => format!("{m}m{last}"),
                (h, m) => format!("{h}h{m}m{last}"),
            }
        }
    }
}
