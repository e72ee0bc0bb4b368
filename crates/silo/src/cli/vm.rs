//! `silo vm`: what containers with hyperv isolation are made from.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use silo_sandbox::MachineConfig;
use silo_sandbox::hyperv::{kernel, template};

use super::client::Client;

/// Where downloaded packages are kept for the next root.
const CACHE: &str = "/var/cache/silo/vm";

#[derive(Subcommand)]
pub(crate) enum VmCommand {
    /// Get the guest kernel from the distribution's package, or from files, and make it ready
    Kernel {
        /// A Debian package with a kernel, instead of the newest of the distribution
        #[arg(long, conflicts_with = "image")]
        package: Option<PathBuf>,
        /// A kernel image: vmlinux, or a bzImage that is packed by LZ4
        #[arg(long, requires = "modules", requires = "release")]
        image: Option<PathBuf>,
        /// The directory of its modules
        #[arg(long)]
        modules: Option<PathBuf>,
        /// What `uname -r` says of it
        #[arg(long)]
        release: Option<String>,
    },
    /// Saved machines that containers are cloned from
    #[command(subcommand)]
    Template(TemplateCommand),
}

#[derive(Subcommand)]
pub(crate) enum TemplateCommand {
    /// List them
    Ls {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Remove some; they are made again when they are needed
    Rm {
        /// Keys, as `ls` shows them
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Make one now, instead of at the first use
    Build {
        /// MiB that a container may use of its machine's memory; 0: not limited
        #[arg(long, default_value_t = 0)]
        memory: u64,
    },
}

fn list(templates: &[template::Template], json: bool) {
    if json {
        println!("{}", serde_json::json!(templates));
        return;
    }
    println!("{:<26}{:<26}{:<12}{:<10}READY", "KEY", "KERNEL", "MEMORY", "SIZE");
    for t in templates {
        let (memory, size) = (format!("{} MiB", t.size), format!("{} MB", t.bytes / 1_000_000));
        println!("{:<26}{:<26}{memory:<12}{size:<10}{}", t.key, t.kernel, t.ready);
    }
}

/// `silo template`: this process has one thread.
pub(crate) fn template(config: &str) -> Result<(), String> {
    let config: MachineConfig = serde_json::from_str(config).map_err(|e| e.to_string())?;
    template::build(&config).map(drop).map_err(|e| e.to_string())
}

/// Runs one of them.
pub(crate) fn main(client: &Client, command: VmCommand) -> Result<(), String> {
    let info = client.get("/info")?;
    let vm =
        super::driver_status(&info, "hyperv directory").ok_or("the daemon does not tell where they are")?;
    let vm = Path::new(vm).to_owned();
    let templates = vm.join("templates");
    match command {
        VmCommand::Template(TemplateCommand::Ls { json }) => {
            list(&template::list(&templates), json);
            Ok(())
        }
        VmCommand::Template(TemplateCommand::Rm { keys }) => {
            keys.iter().try_for_each(|key| template::remove(&templates, key).map_err(|e| e.to_string()))
        }
        VmCommand::Template(TemplateCommand::Build { memory }) => {
            let agent = silo_engine::guest::inside::program("silo-agent")
                .ok_or("the program silo-agent is not installed beside silo")?;
            let config = MachineConfig {
                disks: vm.join("disks"),
                templates,
                agent,
                memory: memory.saturating_mul(1 << 20),
                host: silo_sandbox::hyperv::host().clone(),
                vm,
                ..Default::default()
            };
            let executable = std::env::current_exe().map_err(|e| e.to_string())?;
            template::run_builder(&executable, &config).map_err(|e| format!("making a template: {e}"))
        }
        VmCommand::Kernel { package, image, modules, release } => {
            let made = match (package, image, modules, release) {
                (_, Some(image), Some(modules), Some(release)) => {
                    kernel::install(&image, &release, &modules, &vm)
                }
                (Some(package), ..) => kernel::prepare(&package, &vm),
                _ => {
                    eprintln!("Getting the distribution's kernel");
                    kernel::download(Path::new(CACHE)).and_then(|package| kernel::prepare(&package, &vm))
                }
            };
            let kernel = made.map_err(|e| format!("preparing the guest kernel: {e}"))?;
            println!("{}", kernel.version);
            Ok(())
        }
    }
}
