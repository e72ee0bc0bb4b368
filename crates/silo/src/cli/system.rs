//! `silo system`: the daemon as a whole.

use clap::Subcommand;

use super::client::Client;

#[derive(Subcommand)]
pub(crate) enum SystemCommand {
    /// Take everything of Silo's networks off the host (bridges, adapters, rules) and end the daemon; its next start restores them
    Down {
        /// Stop the containers that run
        #[arg(long, short)]
        force: bool,
    },
}

/// Runs one of them.
pub(crate) fn main(client: &Client, command: SystemCommand) -> Result<(), String> {
    match command {
        SystemCommand::Down { force } => {
            client.post(if force { "/silo/down?force=1" } else { "/silo/down" }).map(drop)
        }
    }
}
