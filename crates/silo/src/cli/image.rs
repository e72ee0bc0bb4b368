//! `silo image`: what docker's own verbs for images do not have.

use clap::Subcommand;

use super::Output;
use super::client::Client;

/// Verbs on the store of images.
#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Prove every digest, reference and unpacked layer; exit code 1 if anything is wrong
    Check(Output),
}

/// Runs one.
pub(crate) fn main(client: &Client, command: ImageCommand) -> Result<(), String> {
    let ImageCommand::Check(output) = command;
    let found = client.get("/silo/images/check")?;
    let faults = found["Faults"].as_array().cloned().unwrap_or_default();
    if output.json {
        println!("{found}");
    } else {
        for fault in &faults {
            println!("{}", super::text(fault));
        }
        println!(
            "{} images, {} layers, {} blobs, {} names; {} MB read",
            found["Images"],
            found["Layers"],
            found["Blobs"],
            found["References"],
            found["Bytes"].as_u64().unwrap_or(0) / 1_000_000
        );
    }
    match faults.len() {
        0 => Ok(()),
        n => Err(format!("the store of images has {n} faults")),
    }
}
