//! `setx`: keeps an environment variable in the registry, of the user or (`/M`) of the machine; Wine's does nothing.
//!
//! Programs that start later have it. Microsoft, "setx": https://learn.microsoft.com/windows-server/administration/windows-commands/setx

use std::ptr::{null, null_mut};

use silo_tools::*;

const HKEY_CURRENT_USER: usize = 0x8000_0001;
const HKEY_LOCAL_MACHINE: usize = 0x8000_0002;
const KEY_SET_VALUE: u32 = 2;
const REG_SZ: u32 = 1;
const REG_EXPAND_SZ: u32 = 2;
const USER: &str = "Environment";
const MACHINE: &str = "System\\CurrentControlSet\\Control\\Session Manager\\Environment";

fn fail(words: &str) -> ! {
    eprintln!("ERROR: {}", words);
    std::process::exit(1);
}

fn main() {
    let (mut machine, mut words) = (false, Vec::new());
    for word in std::env::args().skip(1) {
        match word.to_ascii_uppercase().as_str() {
            "/M" | "-M" => machine = true,
            "/?" => {
                println!("SETX [/M] var value\n\n    Keeps an environment variable in the registry: of this user, or with /M of the machine.");
                return;
            }
            option if option.starts_with('/') && words.is_empty() => {
                fail(&format!("Invalid argument/option - '{}'.\nType \"SETX /?\" for usage.", word))
            }
            _ => words.push(word),
        }
    }
    let (name, value) = match words.as_slice() {
        [name, value] if !name.is_empty() && !name.contains('=') => (name, value),
        _ => fail("Invalid syntax. Default option is not allowed more than '2' time(s).\nType \"SETX /?\" for usage."),
    };
    let (root, path) = if machine { (HKEY_LOCAL_MACHINE, MACHINE) } else { (HKEY_CURRENT_USER, USER) };
    let mut key = null_mut();
    // SAFETY: the path is terminated, the key is ours to fill.
    let opened = unsafe {
        RegCreateKeyExW(root as Handle, wide(path).as_ptr(), 0, null(), 0, KEY_SET_VALUE, null(), &mut key, null_mut())
    };
    if opened != 0 {
        fail(&format!("Access to the registry path is denied.\n{}", sentence(opened as u32)));
    }
    let kind = if value.contains('%') { REG_EXPAND_SZ } else { REG_SZ };
    let data = wide(value);
    // SAFETY: name and data are terminated, the data as long as said.
    let set = unsafe {
        RegSetValueExW(key, wide(name).as_ptr(), 0, kind, data.as_ptr().cast(), (data.len() * 2) as u32)
    };
    // SAFETY: opened above, closed once.
    unsafe { RegCloseKey(key) };
    if set != 0 {
        fail(&sentence(set as u32));
    }
    println!("\nSUCCESS: Specified value was saved.");
}
