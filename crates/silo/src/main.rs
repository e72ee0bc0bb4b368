//! The `silo` executable: arguments in, table or JSON out; `silo daemon` and `silo shim` are one call each.

mod build_options;
mod cli;
mod daemon;
mod daemon_networks;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A container engine that runs Linux and Windows images on Linux hosts.
#[derive(Parser)]
#[command(name = "silo", version, arg_required_else_help = true)]
struct Arguments {
    /// Daemon to talk to, such as unix:///run/silo/silo.sock
    #[arg(long, short = 'H', global = true)]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Daemon(Box<daemon::DaemonArguments>),
    /// Supervise one sandbox (started by the daemon)
    #[command(hide = true)]
    Shim {
        /// The sandbox's directory
        dir: std::path::PathBuf,
    },
    /// Make a template of a microVM (started by the daemon)
    #[command(hide = true)]
    Template {
        /// What machines it is for, as JSON
        config: String,
    },
    /// Show the versions of this program and of the daemon
    Version(cli::Output),
    /// Show facts about the daemon
    Info(cli::Output),
    /// List the sandboxes that are kept ready for containers to come
    Pool {
        /// Wait until so many are ready, a minute at most
        #[arg(long, default_value_t = 0)]
        wait: usize,
        #[command(flatten)]
        output: cli::Output,
    },
    /// List containers
    Ps {
        /// Stopped ones too
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        output: cli::Output,
    },
    /// Build an image from a Dockerfile
    Build(Box<cli::build::BuildArguments>),
    /// Adapters of a container: networks, addresses, bandwidth
    #[command(subcommand)]
    Adapter(cli::adapter::AdapterCommand),
    /// The daemon as a whole
    #[command(subcommand)]
    System(cli::system::SystemCommand),
    /// Check the store of images
    #[command(subcommand)]
    Image(cli::image::ImageCommand),
    /// Build and manage Windows base images
    #[command(subcommand)]
    Base(cli::base::BaseCommand),
    /// Kernel and templates of containers with hyperv isolation
    #[command(subcommand)]
    Vm(cli::vm::VmCommand),
    /// Look into registry hive files, compare and merge them
    #[command(subcommand)]
    Hive(cli::hive::HiveCommand),
    /// Look into the registry of Windows containers and images
    #[command(subcommand)]
    Registry(cli::registry::RegistryCommand),
}

fn main() -> ExitCode {
    // Before anything else: a shim's memory is what each container costs, so it parses nothing it need not.
    let mut plain = std::env::args_os().skip(1);
    if plain.next().is_some_and(|a| a == "shim")
        && let Some(dir) = plain.next()
    {
        return finish(
            silo_sandbox::shim::main(std::path::Path::new(&dir)).map_err(|e| format!("shim: {e}")),
        );
    }
    let arguments = Arguments::parse();
    let client = || cli::client::Client::find(arguments.host.as_deref());
    finish(match arguments.command {
        Command::Daemon(daemon) => daemon::main(*daemon),
        Command::Shim { dir } => silo_sandbox::shim::main(&dir).map_err(|e| format!("shim: {e}")),
        Command::Template { config } => cli::vm::template(&config),
        Command::Version(output) => client().and_then(|c| cli::version(&c, &output)),
        Command::Info(output) => client().and_then(|c| cli::info(&c, &output)),
        Command::Pool { wait, output } => client().and_then(|c| cli::pool(&c, wait, &output)),
        Command::Ps { all, output } => client().and_then(|c| cli::ps(&c, all, &output)),
        Command::Adapter(command) => client().and_then(|c| cli::adapter::main(&c, command)),
        Command::System(command) => client().and_then(|c| cli::system::main(&c, command)),
        Command::Image(command) => client().and_then(|c| cli::image::main(&c, command)),
        Command::Build(arguments) => client().and_then(|c| cli::build::main(&c, &arguments)),
        Command::Vm(command) => client().and_then(|c| cli::vm::main(&c, command)),
        Command::Hive(command) => cli::hive::main(command),
        Command::Registry(command) => client().and_then(|c| cli::registry::main(&c, command)),
        Command::Base(command) => client().and_then(|c| cli::base::main(&c, command)),
    })
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("silo: {e}");
            ExitCode::FAILURE
        }
    }
}
