//! What `$NAME` is: the environment of the stage so far, and the build arguments that its `ARG`s have declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Argument, Instruction, Step};
use super::error::{DockerfileError, Result};
use super::shell_words::expand_word;

/// Build arguments that need no `ARG`; they are in no history and in no cache's key unless one declares them.
pub const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// Most bytes of a stage's environment and arguments.
const MAX_SCOPE: usize = 4 << 20;

/// Values of build arguments that hold for the whole file.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    /// `--build-arg`; `None`: named without a value.
    pub(crate) given: BTreeMap<String, Option<String>>,
    /// `ARG`s before the first `FROM`, expanded.
    pub(crate) declared: BTreeMap<String, Option<String>>,
    /// `TARGETPLATFORM` and the like.
    pub(crate) platform: BTreeMap<&'static str, String>,
}

impl Globals {
    /// What was given, and what the platform is; nothing declared yet.
    pub(crate) fn new(
        given: BTreeMap<String, Option<String>>,
        platform: BTreeMap<&'static str, String>,
    ) -> Self {
        Self { given, declared: BTreeMap::new(), platform }
    }

    /// Takes in an `ARG` from before the first `FROM`.
    pub(crate) fn declare(&mut self, step: &Step, escape: char) -> Result<()> {
        let Instruction::Arg(arguments) = &step.instruction else { return Ok(()) };
        let lookup = |name: &str| self.get(name).map(str::to_owned);
        let word =
            |text: &String| expand_word(text, escape, &lookup).map_err(|why| DockerfileError::at(step, why));
        let one = |a: &Argument| Ok((word(&a.name)?, a.default.as_ref().map(word).transpose()?));
        let expanded = arguments.iter().map(one).collect::<Result<Vec<_>>>()?;
        self.declared.extend(expanded);
        let size =
            |(name, value): (&String, &Option<String>)| name.len() + value.as_ref().map_or(0, String::len);
        if self.declared.iter().map(size).sum::<usize>() > MAX_SCOPE {
            return Err(DockerfileError::at(
                step,
                format!("global arguments are more than {MAX_SCOPE} bytes"),
            ));
        }
        Ok(())
    }

    /// An argument's value: what was given, else `default`, else that of before the first `FROM`, else the platform's.
    fn value<'v>(&'v self, name: &str, default: Option<&'v str>) -> Option<&'v str> {
        let given = self.given.get(name).and_then(Option::as_deref);
        let declared = || self.declared.get(name).and_then(Option::as_deref);
        let platform = || self.platform.get(name).map(String::as_str);
        given.or(default).or_else(declared).or_else(platform)
    }

    /// The same where another platform is built for.
    pub(crate) fn for_platform(self: &Arc<Self>, os: &str, architecture: &str, variant: &str) -> Arc<Self> {
        let parts = [os, architecture, variant];
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        if self.platform.get("TARGETPLATFORM").is_some_and(|platform| *platform == text) {
            return self.clone();
        }
        let mut other = Self::clone(self);
        other.platform.extend([
            ("TARGETPLATFORM", text),
            ("TARGETOS", os.to_owned()),
            ("TARGETOSVERSION", String::new()),
            ("TARGETARCH", architecture.to_owned()),
            ("TARGETVARIANT", variant.to_owned()),
        ]);
        Arc::new(other)
    }

    /// What a name is in a `FROM` and in an `ARG` before the first one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let known = self.declared.contains_key(name)
            || self.platform.contains_key(name)
            || PREDEFINED.contains(&name);
        known.then(|| self.value(name, None)).flatten()
    }
}

/// What names mean at one point of a stage.
#[derive(Debug, Clone)]
pub struct Scope {
    globals: Arc<Globals>,
    escape: char,
    case_sensitive: bool,
    /// In order.
    environment: Vec<(String, String)>,
    /// `ARG`s of the stage, with their defaults.
    declared: BTreeMap<String, Option<String>>,
    /// Bytes of both.
    size: usize,
}

impl Scope {
    /// At the start of a stage whose image has this environment; `case_sensitive`: whether the OS tells names apart by case.
    pub fn new(globals: &Arc<Globals>, escape: char, environment: &[String], case_sensitive: bool) -> Self {
        let split = |e: &String| match e.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (e.clone(), String::new()),
        };
        Self {
            globals: Arc::clone(globals),
            escape,
            case_sensitive,
            environment: environment.iter().map(split).collect(),
            declared: BTreeMap::new(),
            size: 0,
        }
    }

    /// At the start of a stage that is based on another one, whose end this is: its `ARG`s stay declared.
    #[must_use]
    pub fn based_on_this(&self) -> Self {
        self.clone()
    }

    /// `\` or `` ` ``.
    pub fn escape(&self) -> char {
        self.escape
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a == b || !self.case_sensitive && a.to_uppercase() == b.to_uppercase()
    }

    /// A name's value; the environment's comes before an argument's.
    pub fn get(&self, name: &str) -> Option<&str> {
        let of_environment = self.environment.iter().rfind(|(n, _)| self.same(n, name));
        of_environment.map(|(_, value)| value.as_str()).or_else(|| self.argument(name))
    }

    fn argument(&self, name: &str) -> Option<&str> {
        let declared = self.declared.iter().find(|(n, _)| self.same(n, name));
        match declared {
            Some((name, default)) => self.globals.value(name, default.as_deref()),
            None => {
                let predefined = PREDEFINED.iter().find(|p| self.same(p, name))?;
                self.globals.value(predefined, None)
            }
        }
    }

    /// Takes in what an expanded `ENV` or `ARG` says; any other instruction says nothing here.
    ///
    /// # Errors
    /// Environment and arguments have got too large.
    pub fn apply(&mut self, instruction: &Instruction) -> Result<(), String> {
        match instruction {
            Instruction::Env(pairs) => {
                for (name, value) in pairs {
                    self.grow(name.len() + value.len())?;
                    let at = self.environment.iter().position(|(n, _)| self.same(n, name));
                    match at {
                        Some(at) => self.environment[at] = (name.clone(), value.clone()),
                        None => self.environment.push((name.clone(), value.clone())),
                    }
                }
            }
            Instruction::Arg(arguments) => {
                for Argument { name, default } in arguments {
                    self.grow(name.len() + default.as_ref().map_or(0, String::len))?;
                    self.declared.insert(name.clone(), default.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.size += bytes;
        if self.size > MAX_SCOPE {
            return Err(format!("environment and arguments of a stage are more than {MAX_SCOPE} bytes"));
        }
        Ok(())
    }

    /// `NAME=value` of the image so far.
    pub fn environment(&self) -> Vec<String> {
        self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Arguments that have a value and that the environment does not hide: `RUN` gets them into its environment. By name.
    pub fn arguments(&self) -> BTreeMap<String, String> {
        let predefined = PREDEFINED.iter().copied();
        let names = self.declared.keys().map(String::as_str).chain(predefined);
        let visible = names.filter(|name| !self.environment.iter().any(|(n, _)| self.same(n, name)));
        visible.filter_map(|name| Some((name.to_owned(), self.argument(name)?.to_owned()))).collect()
    }

    /// Those of [`Self::arguments`] that are part of a `RUN`'s history and its cache's key, as `NAME=value`, sorted; `None` if
    /// there are no arguments at all.
    pub fn recorded_arguments(&self) -> Option<Vec<String>> {
        let all = self.arguments();
        if all.is_empty() {
            return None;
        }
        let secret = |name: &str| PREDEFINED.contains(&name) && !self.declared.contains_key(name);
        let recorded = all.iter().filter(|(name, _)| !secret(name));
        let mut recorded: Vec<String> = recorded.map(|(name, value)| format!("{name}={value}")).collect();
        recorded.sort();
        Some(recorded)
    }

    /// Whether a name is declared, with or without a value. `in_argument`: where `ARG`s before the first `FROM` count too.
    pub(super) fn declares(&self, name: &str, in_argument: bool) -> bool {
        self.declared.keys().any(|n| self.same(n, name))
            || PREDEFINED.iter().any(|n| self.same(n, name))
            || in_argument && self.globals.get(name).is_some()
    }

    /// Names that the stage has declared so far.
    pub fn declared(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(String::as_str)
    }
}
