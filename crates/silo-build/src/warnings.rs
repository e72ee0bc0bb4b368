//! What the build checks have found, and that it is told after the result.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::dockerfile::Warning;
use crate::dockerfile::ast::CheckOptions;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Findings that are told.
#[derive(Debug)]
pub(crate) struct Warnings {
    options: CheckOptions,
    found: Mutex<BTreeSet<Warning>>,
}

impl Warnings {
    pub(crate) fn new(options: CheckOptions) -> Self {
        Self { options, found: Mutex::default() }
    }

    pub(crate) fn wants(&self, rule: &str) -> bool {
        self.options.wants(rule)
    }

    /// Takes findings; an error if there are any, and they are to be one.
    pub(crate) fn add(&self, found: Vec<Warning>) -> Result<()> {
        let found: Vec<Warning> = found.into_iter().filter(|one| self.wants(one.rule)).collect();
        let rules: BTreeSet<&str> = found.iter().map(|one| one.rule).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        let fails = self.options.error && !found.is_empty();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        match fails {
            true => Err(Failure::invalid(format!("lint violation found for rules: {rules}"))),
            false => Ok(()),
        }
    }

    /// Tells them.
    pub(crate) async fn tell(&self, output: &Output, file: &str) {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        if found.is_empty() {
            return;
        }
        let s = if found.len() == 1 { "" } else { "s" };
        output.say(&format!("\n {} warning{s} found:\n", found.len())).await;
        for Warning { line, rule, message } in found {
            output.say(&format!(" - {rule}: {message} ({file}:{line})\n")).await;
        }
    }
}
