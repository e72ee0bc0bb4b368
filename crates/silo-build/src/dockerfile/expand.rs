//! An instruction with its variables replaced and its quotes taken away.

use std::cell::Cell;

use super::ast::{Argument, Instruction, Source, Step, Transfer};
use super::error::{DockerfileError, Result};
use super::lines::MAX_FILE;
use super::mount;
use super::scope::Scope;
use super::shell_words::Reading;

impl Step {
    /// The instruction with its strings final.
    ///
    /// # Errors
    /// A word is no shell's word, or a variable that must have a value has none; more than 16 MiB come of it.
    pub fn expand(&self, scope: &Scope) -> Result<Instruction> {
        self.instruction.expand(scope).map_err(|why| DockerfileError::at(self, why))
    }
}

impl Instruction {
    /// A copy whose strings are final. What a shell is to expand (`RUN`, `CMD`, `ENTRYPOINT`, `HEALTHCHECK CMD`) stays, as do
    /// `SHELL`, `ONBUILD` and `MAINTAINER`; of a `RUN` the mounts are expanded.
    ///
    /// # Errors
    /// As [`Step::expand`].
    pub fn expand(&self, scope: &Scope) -> Result<Self, String> {
        self.expand_telling(scope, None)
    }

    /// As [`Self::expand`]; `unset` hears of variables that have no value.
    pub(super) fn expand_telling(&self, scope: &Scope, unset: Option<&dyn Fn(&str)>) -> Result<Self, String> {
        let lookup = |name: &str| scope.get(name).map(str::to_owned);
        let how = Reading { unset, ..Reading::new(scope.escape(), &lookup) };
        let words = Words { how, spent: Cell::new(0) };
        Ok(match self {
            Self::Add(transfer) => Self::Add(words.transfer(transfer)?),
            Self::Copy(transfer) => Self::Copy(words.transfer(transfer)?),
            Self::Arg(arguments) => {
                let one = |a: &Argument| {
                    Ok(Argument { name: words.word(&a.name)?, default: words.option(&a.default)? })
                };
                Self::Arg(arguments.iter().map(one).collect::<Result<_, String>>()?)
            }
            Self::Env(pairs) => Self::Env(words.pairs(pairs)?),
            Self::Label(pairs) => Self::Label(words.pairs(pairs)?),
            Self::Expose(ports) => {
                let mut all = Vec::new();
                for port in ports {
                    let found = words.how.words(port)?;
                    words.spend(found.iter().map(String::len).sum())?;
                    all.extend(found);
                }
                Self::Expose(all)
            }
            Self::Run(run) => {
                let mounts = run.mount_flags.iter().map(|m| mount::parse(m, &|v| words.word(v)));
                let mounts = mounts.collect::<Result<_, String>>()?;
                Self::Run(super::ast::Run { mounts, ..run.clone() })
            }
            Self::Stopsignal(signal) => Self::Stopsignal(words.word(signal)?),
            Self::User(user) => Self::User(words.word(user)?),
            Self::Volume(volumes) => Self::Volume(words.list(volumes)?),
            Self::Workdir(path) => Self::Workdir(words.word(path)?),
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => self.clone(),
        })
    }
}

struct Words<'e> {
    how: Reading<'e>,
    /// Bytes that came of the instruction.
    spent: Cell<usize>,
}

impl Words<'_> {
    fn spend(&self, bytes: usize) -> Result<(), String> {
        self.spent.set(self.spent.get() + bytes);
        if self.spent.get() > MAX_FILE {
            return Err(format!("more than {MAX_FILE} bytes come of an instruction"));
        }
        Ok(())
    }

    fn word(&self, word: &str) -> Result<String, String> {
        let out = self.how.word(word)?;
        self.spend(out.len())?;
        Ok(out)
    }

    fn option(&self, word: &Option<String>) -> Result<Option<String>, String> {
        word.as_ref().map(|w| self.word(w)).transpose()
    }

    fn list(&self, words: &[String]) -> Result<Vec<String>, String> {
        words.iter().map(|w| self.word(w)).collect()
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        pairs.iter().map(|(name, value)| Ok((self.word(name)?, self.word(value)?))).collect()
    }

    fn transfer(&self, transfer: &Transfer) -> Result<Transfer, String> {
        let source = |source: &Source| match source {
            Source::Path(path) => self.word(path).map(Source::Path),
            Source::Heredoc(heredoc) if heredoc.expand => {
                // Text, not words: quotes are letters, and the escape character is the shell's.
                let how = Reading { escape: '\\', plain_quotes: true, limit: MAX_FILE, ..self.how };
                let body = how.word(&heredoc.body)?;
                self.spend(body.len())?;
                Ok(Source::Heredoc(super::ast::Heredoc { body, ..heredoc.clone() }))
            }
            Source::Heredoc(heredoc) => Ok(Source::Heredoc(heredoc.clone())),
        };
        Ok(Transfer {
            sources: transfer.sources.iter().map(source).collect::<Result<_, String>>()?,
            target: self.word(&transfer.target)?,
            chown: self.option(&transfer.chown)?,
            chmod: self.option(&transfer.chmod)?,
            checksum: self.option(&transfer.checksum)?,
            ..transfer.clone()
        })
    }
}
