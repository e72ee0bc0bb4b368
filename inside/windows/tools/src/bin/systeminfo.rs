//! `systeminfo`: the machine as programs see it, in the layout of Windows' own.

use std::ptr::null_mut;

use silo_tools::*;

const LOCAL_MACHINE: usize = 0x8000_0002;
const READ: u32 = 0x20019;

fn registry(path: &str, name: &str) -> Option<String> {
    let (mut key, mut size) = (null_mut(), 2048u32);
    let mut data = [0u16; 1024];
    // SAFETY: texts are terminated, the buffer is as long as said.
    unsafe {
        if RegOpenKeyExW(LOCAL_MACHINE as Handle, wide(path).as_ptr(), 0, READ, &mut key) != 0 {
            return None;
        }
        let status = RegQueryValueExW(key, wide(name).as_ptr(), null_mut(), null_mut(), data.as_mut_ptr().cast(), &mut size);
        RegCloseKey(key);
        if status != 0 {
            return None;
        }
    }
    let length = (size as usize / 2).min(data.len());
    Some(String::from_utf16_lossy(&data[..length]).trim_end_matches('\0').to_owned())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn grouped(mebibytes: u64) -> String {
    let digits = mebibytes.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + " MB"
}

fn line(name: &str, value: &str) {
    let name = if name.is_empty() { String::new() } else { format!("{}:", name) };
    println!("{:<26} {}", name, value);
}

fn main() {
    const VERSION: &str = r"Software\Microsoft\Windows NT\CurrentVersion";
    let version = |name: &str| registry(VERSION, name).unwrap_or_else(|| "N/A".to_owned());
    let build = version("CurrentBuildNumber");
    let mut memory = MemoryStatus {
        length: std::mem::size_of::<MemoryStatus>() as u32,
        load: 0,
        total_physical: 0,
        available_physical: 0,
        total_page_file: 0,
        available_page_file: 0,
        total_virtual: 0,
        available_virtual: 0,
        available_extended: 0,
    };
    // SAFETY: the structure says its length.
    unsafe { GlobalMemoryStatusEx(&mut memory) };
    let count: usize = variable("NUMBER_OF_PROCESSORS").parse().unwrap_or(1);
    println!();
    line("Host Name", &variable("COMPUTERNAME"));
    line("OS Name", &format!("Microsoft {}", version("ProductName")));
    line("OS Version", &format!("10.0.{} N/A Build {}", build, build));
    line("OS Manufacturer", "Microsoft Corporation");
    line("OS Configuration", "Standalone Server");
    line("OS Build Type", "Multiprocessor Free");
    line("Registered Owner", "N/A");
    line("Registered Organization", "N/A");
    line("Product ID", "N/A");
    // SAFETY: takes nothing.
    let up = unsafe { GetTickCount64() } / 1000;
    line("System Up Time", &format!("{} Days, {} Hours, {} Minutes, {} Seconds", up / 86400, up / 3600 % 24, up / 60 % 60, up % 60));
    line("System Manufacturer", "Silo");
    line("System Model", "Container");
    line("System Type", "x64-based PC");
    line("Processor(s)", &format!("{} Processor(s) Installed.", count));
    for i in 0..count {
        let path = format!(r"Hardware\Description\System\CentralProcessor\{}", i);
        let name = registry(&path, "Identifier").unwrap_or_default();
        let vendor = registry(&path, "VendorIdentifier").unwrap_or_default();
        line("", &format!("[{:02}]: {} {}", i + 1, name, vendor));
    }
    line("Windows Directory", &variable("SystemRoot"));
    line("System Directory", &format!(r"{}\system32", variable("SystemRoot")));
    line("Boot Device", r"\Device\HarddiskVolume1");
    line("System Locale", "en-us;English (United States)");
    line("Input Locale", "en-us;English (United States)");
    line("Time Zone", "(UTC) Coordinated Universal Time");
    line("Total Physical Memory", &grouped(memory.total_physical >> 20));
    line("Available Physical Memory", &grouped(memory.available_physical >> 20));
    line("Virtual Memory: Max Size", &grouped(memory.total_page_file >> 20));
    line("Virtual Memory: Available", &grouped(memory.available_page_file >> 20));
    line("Virtual Memory: In Use", &grouped(memory.total_page_file.saturating_sub(memory.available_page_file) >> 20));
    line("Domain", "WORKGROUP");
    line("Logon Server", &variable("LOGONSERVER"));
    line("Hotfix(s)", "N/A");
}
