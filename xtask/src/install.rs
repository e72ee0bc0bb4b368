//! `cargo xtask install`: executable, inside programs and systemd unit on this machine.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, build, inside, packages};

/// Installs below /usr/local.
pub(crate) fn run_install(root: &Path) -> Outcome {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::RUN)?;
    let silo = build(root)?;
    let programs = inside(root)?;
    let install = |mode: &str, from: &Path, to: &str| {
        crate::run(Command::new("install").args(["-D", "-m", mode]).arg(from).arg(to))
    };
    install("755", &silo, "/usr/local/bin/silo")?;
    for entry in std::fs::read_dir(&programs).map_err(|e| format!("{}: {e}", programs.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            install("755", &entry.path(), &format!("/usr/local/lib/silo/{name}"))?;
        }
    }
    install("644", &root.join("packaging/silo.service"), "/etc/systemd/system/silo.service")?;
    let group = Command::new("getent").args(["group", "docker"]).output();
    if !group.is_ok_and(|o| o.status.success()) {
        crate::run(Command::new("groupadd").args(["--system", "docker"]))?;
    }
    println!("installed; start it by: systemctl enable --now silo");
    println!("then: export DOCKER_HOST=unix:///run/silo/silo.sock");
    Ok(())
}
