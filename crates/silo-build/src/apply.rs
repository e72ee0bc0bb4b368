//! What an instruction makes of an image's config, as dockerd's builder does; everything is expanded already.

use silo_engine::guest::Guest;
use silo_engine::images::{ContainerConfig, Healthcheck};

use crate::dockerfile::ast;
use crate::dockerfile::ast::{Command, Instruction};
use crate::dockerfile::{Arguments, Shell, exposed_ports};
use crate::failure::{Failure, Result};

/// The shell of the shell form.
pub(crate) fn shell(config: &ContainerConfig, guest: &dyn Guest) -> Shell {
    let words = if config.shell.is_empty() { guest.default_shell() } else { config.shell.clone() };
    Shell { words, one_line: !guest.env_case_sensitive() }
}

/// Whether an entry of an environment is of this name.
pub(crate) fn is_of(entry: &str, name: &str, guest: &dyn Guest) -> bool {
    let own = entry.split_once('=').map_or(entry, |(own, _)| own);
    own == name || !guest.env_case_sensitive() && own.eq_ignore_ascii_case(name)
}

/// Sets a variable, where it was or at the end.
pub(crate) fn set_env(config: &mut ContainerConfig, name: &str, value: &str, guest: &dyn Guest) {
    let entry = format!("{name}={value}");
    match config.env.iter().position(|other| is_of(other, name, guest)) {
        Some(at) => config.env[at] = entry,
        None => config.env.push(entry),
    }
}

/// Gives the environment what this guest's images have that say nothing.
pub(crate) fn default_path(config: &mut ContainerConfig, guest: &dyn Guest) {
    for (name, value) in guest.default_env() {
        if name == "PATH" && !config.env.iter().any(|entry| is_of(entry, &name, guest)) {
            config.env.push(format!("{name}={value}"));
        }
    }
}

/// What `${PATH}` is in an image whose search path is only its registry's: Windows' own directories.
const SEARCH_PATH: &str = r"PATH=C:\Windows\system32;C:\Windows";

/// An environment as a Dockerfile's variables see it.
pub(crate) fn with_search_path(environment: &[String], guest: &dyn Guest) -> Vec<String> {
    let has_path = environment.iter().any(|entry| is_of(entry, "PATH", guest));
    let own = (!has_path && guest.default_env().is_empty()).then(|| SEARCH_PATH.to_owned());
    environment.iter().cloned().chain(own).collect()
}

fn add(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// What `CMD` and `ENTRYPOINT` of this stage have said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    /// A `CMD` of this stage: a later `ENTRYPOINT` leaves it.
    pub(crate) command: bool,
}

/// Changes a config. Instructions that only make files change nothing.
pub(crate) fn apply(
    config: &mut ContainerConfig,
    instruction: &Instruction,
    guest: &dyn Guest,
    said: &mut Said,
) -> Result<()> {
    match instruction {
        Instruction::Cmd(command) => {
            let Arguments { words: list, escaped } = command.arguments(&shell(config, guest));
            (config.cmd, config.args_escaped) = (Some(list), escaped);
            said.command = true;
        }
        Instruction::Entrypoint(command) => {
            let Arguments { words: list, escaped } = command.arguments(&shell(config, guest));
            (config.entrypoint, config.args_escaped) = (Some(list), escaped);
            if !said.command {
                config.cmd = None;
            }
        }
        Instruction::Env(pairs) => {
            pairs.iter().for_each(|(name, value)| set_env(config, name, value, guest));
        }
        Instruction::Label(pairs) => config.labels.extend(pairs.iter().cloned()),
        Instruction::Expose(words) => {
            config.exposed_ports.extend(exposed_ports(words).map_err(Failure::invalid)?);
            config.exposed_ports.sort();
            config.exposed_ports.dedup();
        }
        Instruction::Healthcheck(check) => config.healthcheck = Some(healthcheck(check)),
        Instruction::Onbuild(text) => config.on_build.push(text.clone()),
        Instruction::Shell(list) => config.shell.clone_from(list),
        Instruction::Stopsignal(signal) => config.stop_signal.clone_from(signal),
        Instruction::User(user) => config.user.clone_from(user),
        Instruction::Volume(paths) => {
            paths.iter().for_each(|path| add(&mut config.volumes, path.clone()));
            config.volumes.sort();
        }
        Instruction::Workdir(path) => {
            let next = guest.next_working_dir(&config.working_dir, path);
            config.working_dir = next.map_err(|e| Failure::invalid(e.to_string()))?;
        }
        Instruction::Maintainer(_)
        | Instruction::Arg(_)
        | Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_) => {}
    }
    Ok(())
}

fn healthcheck(check: &ast::Healthcheck) -> Healthcheck {
    match check {
        ast::Healthcheck::None => Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() },
        ast::Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } => {
            let nanoseconds = |n: &u64| i64::try_from(*n).unwrap_or(i64::MAX);
            Healthcheck {
                test: match command {
                    Command::Exec(list) => ["CMD".to_owned()].into_iter().chain(list.clone()).collect(),
                    Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
                },
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: i64::from(*retries),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use silo_engine::guest::{self, Os};

    use super::*;

    fn after(os: Os, instructions: &[Instruction]) -> ContainerConfig {
        let guest = guest::of(os).unwrap();
        let (mut config, mut said) = (ContainerConfig::default(), Said::default());
        config.cmd = Some(vec!["inherited".to_owned()]);
        for one in instructions {
            apply(&mut config, one, guest, &mut said).unwrap();
        }
        config
    }

    #[test]
    fn an_entrypoint_clears_a_command_that_is_not_the_stages_own() {
        let entrypoint = || Instruction::Entrypoint(Command::Shell("x $A".to_owned()));
        assert_eq!(after(Os::Linux, &[entrypoint()]).cmd, None);
        let own = after(Os::Linux, &[Instruction::Cmd(Command::Exec(vec!["c".to_owned()])), entrypoint()]);
        assert_eq!(own.cmd.unwrap(), ["c"]);
        assert_eq!(own.entrypoint.unwrap(), ["/bin/sh", "-c", "x $A"]);
        let windows = after(Os::Windows, &[entrypoint()]);
        assert_eq!(windows.entrypoint.unwrap(), ["cmd /S /C x $A"]);
        assert!(windows.args_escaped);
    }
}
