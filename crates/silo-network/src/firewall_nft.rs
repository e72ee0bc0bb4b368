//! The program nft: given a whole script, which the kernel takes as one transaction.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

/// A daemon's PATH need not hold the administrator's programs.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Runs nft; the error is its words.
pub(crate) fn run(args: &[&str], input: &str) -> Result<(), String> {
    for program in PROGRAMS {
        match output(program, args, input) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(if words.is_empty() { output.status.to_string() } else { words });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{program}: {error}")),
        }
    }
    Err("the program nft is not installed".to_owned())
}

fn output(program: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // nft reads its whole input before it says anything, so this cannot block both sides. That it ended without reading is
    // told by its exit status.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}
