//! `silo base`: builds Windows bases from packages and hands them to the daemon as images.

use std::io::Read;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;
use silo_engine::guest::inside;
use silo_engine::guest::windows::base::{BaseOptions, Family, PackageSource, build, download};

use super::client::Client;

#[derive(Subcommand)]
pub(crate) enum BaseCommand {
    /// Build a base from the distribution's Wine packages and load it into the daemon
    Build {
        /// nanoserver or servercore
        family: String,
        /// Directory with the packages, instead of the distribution's mirror
        #[arg(long)]
        packages: Option<PathBuf>,
        /// Write the image archive to this file instead of loading it
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Fetch the packages that a base is built from into a directory, for `build --packages`
    Fetch {
        /// nanoserver or servercore
        family: String,
        /// Made if it is not there
        directory: PathBuf,
    },
    /// List bases
    Ls {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one base as JSON
    Inspect {
        /// nanoserver or servercore
        family: String,
    },
    /// Remove a base
    Rm {
        /// nanoserver or servercore
        family: String,
    },
}

fn family(name: &str) -> Result<Family, String> {
    Family::parse(name).ok_or_else(|| format!("base {name:?}: there are nanoserver and servercore"))
}

/// Runs one of them.
pub(crate) fn main(client: &Client, command: BaseCommand) -> Result<(), String> {
    match command {
        BaseCommand::Build { family: name, packages, output } => {
            build_base(client, family(&name)?, packages, output)
        }
        BaseCommand::Fetch { family: name, directory } => {
            let work = work_directory()?;
            download(family(&name)?, &directory, work.path()).map_err(|e| e.to_string())
        }
        BaseCommand::Ls { json } => list(client, json),
        BaseCommand::Inspect { family: name } => {
            let image = client.get(&format!("/images/{}/json", family(&name)?.reference()))?;
            println!("{image}");
            Ok(())
        }
        BaseCommand::Rm { family: name } => {
            client.delete(&format!("/images/{}", family(&name)?.reference()))?;
            Ok(())
        }
    }
}

fn list(client: &Client, json: bool) -> Result<(), String> {
    let images = client.get("/images/json?filters=%7B%22reference%22%3A%5B%22silo%2F*%22%5D%7D")?;
    if json {
        println!("{images}");
        return Ok(());
    }
    println!("{:<34}{:<16}SIZE", "BASE", "ID");
    for image in images.as_array().into_iter().flatten() {
        let id = image["Id"].as_str().unwrap_or_default().trim_start_matches("sha256:");
        let size = image["Size"].as_u64().unwrap_or(0) / 1_000_000;
        println!(
            "{:<34}{:<16}{size} MB",
            image["RepoTags"][0].as_str().unwrap_or_default(),
            &id[..id.len().min(12)]
        );
    }
    Ok(())
}

fn build_base(
    client: &Client,
    family: Family,
    packages: Option<PathBuf>,
    output: Option<PathBuf>,
) -> Result<(), String> {
    let inside = inside::program("silo-init")
        .and_then(|p| p.parent().map(std::path::Path::to_path_buf))
        .ok_or("the programs that run inside Windows containers are not installed beside silo (cargo xtask install)")?;
    let work = work_directory()?;
    let packages = packages.map_or(PackageSource::HostsMirror, PackageSource::Directory);
    let options = BaseOptions { family, packages, inside, work: work.path().to_owned() };
    let built = build(&options, &mut |step| eprintln!("{step}")).map_err(|e| e.to_string())?;
    if let Some(path) = output {
        let mut file = std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        return built.write_archive(&mut file).map_err(|e| e.to_string());
    }
    eprintln!("Loading {}", family.reference());
    let (mut reader, writer) = std::io::pipe().map_err(|e| format!("making a pipe: {e}"))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut writer = std::io::BufWriter::with_capacity(1 << 18, writer);
            built.write_archive(&mut writer).map_err(|e| e.to_string())
        });
        let loaded = client.post_stream("/images/load?quiet=1", &mut reader as &mut dyn Read, show);
        drop(reader);
        packing.join().map_err(|_| "packing the base panicked".to_owned())?.and(loaded)
    })
}

fn work_directory() -> Result<tempfile::TempDir, String> {
    let directory = tempfile::Builder::new().prefix("silo-base-").tempdir_in("/var/tmp");
    directory.map_err(|e| format!("making a directory in /var/tmp: {e}"))
}

fn show(line: Value) -> Result<(), String> {
    if let Some(error) = line["error"].as_str() {
        return Err(error.to_owned());
    }
    if let Some(text) = line["stream"].as_str() {
        print!("{text}");
    }
    Ok(())
}
