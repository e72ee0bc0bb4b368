//! The Dockerfile language (Dockerfile reference, https://docs.docker.com/reference/dockerfile/).

pub mod ast;
mod checks;
mod command;
mod error;
mod expand;
#[cfg(test)]
mod expand_tests;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod parse;
#[cfg(test)]
mod parse_tests;
mod pattern;
mod ports;
mod scope;
mod shell_words;
mod words;

pub use checks::{CHECK_ARGUMENT, Warning, check, undefined};
pub use command::{
    Arguments, Program, Shell, comment, nop_history, run_history, transfer_history, workdir_history,
};
pub use error::{DockerfileError, Result};
pub(crate) use mount::from as mount_from;
pub use parse::{parse, parse_steps};
pub use ports::exposed_ports;
pub use scope::{Globals, PREDEFINED, Scope};
pub(crate) use shell_words::expand_word;
pub(crate) use words::suggest;
