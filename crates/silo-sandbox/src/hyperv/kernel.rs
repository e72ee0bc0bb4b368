//! The guest kernel: Debian's package of the cloud flavour (or files of the user's), made ready to be booted at once.
//!
//! `<vm>/kernel/` holds `vmlinux` (the ELF file, which has a PVH entry point: nothing is unpacked at boot), `version`, and
//! in `modules/` those that the agent loads, with their `order`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::initramfs::Archive;

/// Debian's package that leads to the newest one of its kind.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Modules that a machine needs; what they need is found by their `depends`.
const MODULES: &[&str] =
    &["virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "macvlan", "erofs", "overlay", "fuse"];
/// Largest kernel that is unpacked, bytes.
const LARGEST: usize = 256 << 20;

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its ELF file.
    pub vmlinux: PathBuf,
    /// `uname -r`.
    pub version: String,
    modules: PathBuf,
}

fn named(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_string();
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl Kernel {
    /// The one that was prepared in `vm`.
    ///
    /// # Errors
    /// `NotFound`, with the command that makes one.
    pub fn find(vm: &Path) -> io::Result<Self> {
        let dir = vm.join("kernel");
        let version = std::fs::read_to_string(dir.join("version")).map_err(|_| {
            io::Error::new(io::ErrorKind::NotFound, "there is no guest kernel yet: run `silo vm kernel`")
        })?;
        Ok(Self {
            vmlinux: dir.join("vmlinux"),
            version: version.trim().to_owned(),
            modules: dir.join("modules"),
        })
    }

    /// The initial file system for it with this agent in it, made if it is not there; and what names both.
    pub(crate) fn initramfs(&self, vm: &Path, agent: &Path) -> io::Result<(PathBuf, String)> {
        let program = std::fs::read(agent).map_err(named(format!("the agent {}", agent.display())))?;
        let mut hash = Sha256::new();
        hash.update(self.version.as_bytes());
        hash.update(&program);
        let order = std::fs::read_to_string(self.modules.join("order"))?;
        hash.update(order.as_bytes());
        let key: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
        let path = vm.join(format!("initramfs-{key}"));
        if path.exists() {
            return Ok((path, key));
        }
        let mut archive = Archive::new(Vec::with_capacity(8 << 20));
        archive.directory("modules")?;
        archive.directory("dev")?;
        archive.file("init", 0o755, &program)?;
        for name in order.lines() {
            archive.file(&format!("modules/{name}"), 0o644, &std::fs::read(self.modules.join(name))?)?;
        }
        archive.file("modules/order", 0o644, order.as_bytes())?;
        silo_sys::atomic_file::write_with(&path, &archive.finish()?, 0o644, true)?;
        Ok((path, key))
    }
}

/// Gets the newest package of the distribution into `dir`; the path of the file.
pub fn download(dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let output = Command::new("apt-cache").args(["depends", "--no-recommends", PACKAGE]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let package = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| invalid(format!("apt knows no kernel for {PACKAGE}: run apt-get update")))?
        .to_owned();
    let status = Command::new("apt-get").args(["download", "-qq", &package]).current_dir(dir).status()?;
    if !status.success() {
        return Err(invalid(format!("apt-get download {package} failed: {status}")));
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
        .collect();
    found.sort();
    found.pop().ok_or_else(|| invalid(format!("apt-get download {package} left no file")))
}

/// Makes the kernel of a Debian package the one of `vm`.
pub fn prepare(package: &Path, vm: &Path) -> io::Result<Kernel> {
    std::fs::create_dir_all(vm)?;
    let unpacked = tempfile::Builder::new().prefix(".unpacked-").tempdir_in(vm)?;
    let status = Command::new("dpkg-deb").arg("-x").arg(package).arg(unpacked.path()).status()?;
    if !status.success() {
        return Err(invalid(format!("{} is no Debian package that can be unpacked", package.display())));
    }
    let image = std::fs::read_dir(unpacked.path().join("boot"))
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| invalid(format!("{} has no /boot/vmlinuz-*", package.display())))?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|d| unpacked.path().join(d).join(&version))
        .into_iter()
        .find(|d| d.is_dir())
        .ok_or_else(|| invalid(format!("{} has no modules for {version}", package.display())))?;
    install(&image, &version, &modules, vm)
}

/// Makes a kernel image and its directory of modules those of `vm`.
pub fn install(image: &Path, version: &str, modules: &Path, vm: &Path) -> io::Result<Kernel> {
    std::fs::create_dir_all(vm)?;
    let fresh = tempfile::Builder::new().prefix(".kernel-").tempdir_in(vm)?;
    let packed = std::fs::read(image).map_err(named(image.display()))?;
    let elf = if packed.starts_with(b"\x7fELF") {
        packed
    } else {
        unpack(&packed).map_err(named(image.display()))?
    };
    std::fs::write(fresh.path().join("vmlinux"), elf)?;
    let to = fresh.path().join("modules");
    std::fs::create_dir(&to)?;
    let mut files = HashMap::new();
    list(modules, &mut files, 0)?;
    let mut order = Vec::new();
    for name in MODULES {
        collect(name, &files, &to, &mut order, 0)?;
    }
    std::fs::write(to.join("order"), order.join("\n") + "\n")?;
    std::fs::write(fresh.path().join("version"), format!("{version}\n"))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o755))?;
    let place = vm.join("kernel");
    let old = vm.join(".kernel-old");
    let _ = std::fs::remove_dir_all(&old);
    match std::fs::rename(&place, &old) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::rename(fresh.keep(), &place)?;
    let _ = std::fs::remove_dir_all(&old);
    Kernel::find(vm)
}

/// The ELF file in a bzImage (Linux, Documentation/arch/x86/boot.rst: `payload_offset`, `payload_length`), if it was
/// packed by LZ4 as Debian's is.
fn unpack(image: &[u8]) -> io::Result<Vec<u8>> {
    let number = |at: usize| {
        image.get(at..at + 4).and_then(|b| b.try_into().ok()).map(|b| u32::from_le_bytes(b) as usize)
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(invalid("it is no kernel image"));
    }
    let setup = (usize::from(image[0x1f1]).max(1) + 1) * 512;
    let (offset, length) =
        number(0x248).zip(number(0x24c)).ok_or_else(|| invalid("its header is cut off"))?;
    let payload = setup
        .checked_add(offset)
        .and_then(|start| image.get(start..start.checked_add(length)?))
        .ok_or_else(|| invalid("its payload is cut off"))?;
    let mut rest = payload.strip_prefix(&[0x02, 0x21, 0x4c, 0x18]).ok_or_else(|| {
        invalid("it is packed by another method than LZ4: give its ELF file (vmlinux) instead")
    })?;
    let mut elf = Vec::new();
    // The last four bytes are the length of it all.
    while rest.len() > 8 {
        let (head, tail) = rest.split_at(4);
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let block = tail.get(..size).ok_or_else(|| invalid("its payload is broken"))?;
        let piece = lz4_flex::block::decompress(block, 8 << 20).map_err(|e| invalid(e.to_string()))?;
        elf.extend_from_slice(&piece);
        if elf.len() > LARGEST {
            return Err(invalid("it is larger than a kernel can be"));
        }
        rest = &tail[size..];
    }
    if !elf.starts_with(b"\x7fELF") {
        return Err(invalid("what it unpacks to is no ELF file"));
    }
    Ok(elf)
}

/// All modules below a directory by their names.
fn list(dir: &Path, files: &mut HashMap<String, PathBuf>, depth: usize) -> io::Result<()> {
    if depth > 16 {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(&path, files, depth + 1)?;
        } else if let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".ko")) {
            files.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

/// Copies a module after those that it needs. One that is not there is built into the kernel.
fn collect(
    name: &str,
    files: &HashMap<String, PathBuf>,
    to: &Path,
    order: &mut Vec<String>,
    depth: usize,
) -> io::Result<()> {
    let file = format!("{name}.ko");
    let Some(path) = files.get(name).filter(|_| depth < 16 && !order.contains(&file)) else { return Ok(()) };
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(64 << 20).read_to_end(&mut content)?;
    for needed in depends(&content) {
        collect(&needed, files, to, order, depth + 1)?;
    }
    if !order.contains(&file) {
        std::fs::write(to.join(&file), &content)?;
        order.push(file);
    }
    Ok(())
}

/// `depends=` of a module's `.modinfo`, which is a list of NUL-ended texts.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&rest[..end]).replace('-', "_");
    text.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            depends(b"x\0license=GPL\0depends=virtio-ring,virtio\0name=y\0"),
            ["virtio_ring", "virtio"]
        );
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(unpack(b"short").is_err());
        let mut image = vec![0u8; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&image).unwrap_err().to_string().contains("cut off"));
    }
}
