//! Brings a guest up: what each program reads of the system, then the services behind it.
//!
//! Wine runs `C:\windows\system32\wineboot.exe --init` before a guest's first program and holds that program until
//! `__wineboot_event` is set or this process ends. Everything here is therefore on every container's way to its
//! first instruction; what can wait is left to the service manager.

use crate::account::Account;
use crate::processor;
use crate::registry::{attributes, name, Key};
use crate::text::{append, read_file, upper, wide, Text};
use crate::windows::*;

const BOOTED: &str = r"\KernelObjects\__wineboot_event";
const SHARED_DATA: &str = r"\KernelObjects\__wine_user_shared_data";
const CONTROL: &str = r"\Registry\Machine\System\CurrentControlSet\Control";
const HARDWARE: &str = r"\Registry\Machine\Hardware\Description\System";

const CENTRAL_PROCESSOR: &str = r"\CentralProcessor\";
const ENVIRONMENT: &str = r"\Session Manager\Environment";
/// Offset of `ActiveProcessorCount`.
const PROCESSOR_COUNT: usize = 0x3c0;

/// Boots, then lets the first program go.
pub fn run() {
    let processors = processors();
    // SAFETY: see there.
    unsafe { shared_data(processors) };
    hardware(processors);
    names();
    environment(processors);
    let event = booted();
    start_services(event);
    // SAFETY: our handle, or a null one, which is refused.
    unsafe { SetEvent(event) };
}

/// What of the machine a program's environment shows.
pub struct Machine {
    computer: Text,
    processors: u32,
}

impl Machine {
    /// Calls `take` with each variable, without final zero.
    pub fn variables(&self, mut take: impl FnMut(&str, &[u16])) {
        take("COMPUTERNAME", &self.computer);
        take("USERDOMAIN", &self.computer);
        take("LOGONSERVER", &server(&self.computer));
        let mut count = Text::new();
        processor::number(&mut count, self.processors);
        take("NUMBER_OF_PROCESSORS", &count);
    }
}

/// Tells anew what the machine is called and how many processors it has: the guest was booted before that was known.
pub fn refresh() -> Machine {
    let processors = processors();
    // SAFETY: the page has this size, the offset is its own.
    unsafe {
        if let Some(page) = shared_page() {
            (page.add(PROCESSOR_COUNT) as *mut u32).write_unaligned(processors);
            UnmapViewOfFile(page);
        }
    }
    let mut path = [0u8; 96];
    for i in processors.. {
        match numbered(&mut path, HARDWARE, CENTRAL_PROCESSOR, i) {
            Some(path) if Key::remove(path) => {}
            _ => break,
        }
    }
    if let Some(key) = below(CONTROL, ENVIRONMENT) {
        set_count(&key, processors);
    }
    Machine { computer: names(), processors }
}

/// The event that says that the guest is up. Who runs a program from the Linux side first asks for it, and boots if
/// nobody has it.
fn booted() -> Handle {
    let event = wide(BOOTED);
    let event = name(&event);
    let attributes = attributes(&event, core::ptr::null_mut(), OPEN_IF);
    let mut handle = core::ptr::null_mut();
    // SAFETY: all structures outlive the call.
    unsafe { NtCreateEvent(&mut handle, ALL_ACCESS_EVENT, &attributes, 0, 0) };
    handle
}

fn processors() -> u32 {
    let mut basic = [0u32; 16];
    // SAFETY: SystemBasicInformation (0) is 64 bytes on x64; the number of processors is its byte 56.
    unsafe { NtQuerySystemInformation(0, basic.as_mut_ptr() as *mut _, 64, core::ptr::null_mut()) };
    (basic[14] & 0xff).max(1)
}

/// Fills the page that every process sees at 0x7ffe0000. Offsets: WDK `KUSER_SHARED_DATA`, x64.
unsafe fn shared_data(processors: u32) {
    let page = match shared_page() {
        Some(page) => page,
        None => return,
    };
    let mut version: VersionInfo = core::mem::zeroed();
    version.size = core::mem::size_of::<VersionInfo>() as u32;
    RtlGetVersion(&mut version);
    let mut basic = [0u32; 16];
    NtQuerySystemInformation(0, basic.as_mut_ptr() as *mut _, 64, core::ptr::null_mut());

    let put = |at: usize, value: u32| (page.add(at) as *mut u32).write_unaligned(value);
    put(0x4, 1 << 24);
    for (i, unit) in wide(r"C:\Windows").iter().enumerate() {
        (page.add(0x30) as *mut u16).add(i).write(*unit);
    }
    put(0x244, 2 * 1024 * 1024);
    put(0x260, version.build);
    put(0x264, u32::from(version.product_type));
    page.add(0x268).write(1);
    const AMD64: u16 = 9;
    (page.add(0x26a) as *mut u16).write(AMD64);
    put(0x26c, version.major);
    put(0x270, version.minor);
    let mut features = [0u8; 64];
    processor::features(&mut features);
    core::ptr::copy_nonoverlapping(features.as_ptr(), page.add(0x274), features.len());
    put(0x2d0, u32::from(version.suite_mask));
    const NX_OPT_IN: u8 = 2;
    page.add(0x2d5).write(NX_OPT_IN);
    put(0x2e8, basic[3]);
    put(PROCESSOR_COUNT, processors);
    page.add(0x3c4).write(1);
    processor::saved_state(page.add(0x3d8));
    UnmapViewOfFile(page);
}

/// The page, to be written to.
unsafe fn shared_page() -> Option<*mut u8> {
    let path = wide(SHARED_DATA);
    let path = name(&path);
    let attributes = attributes(&path, core::ptr::null_mut(), OPEN_IF);
    let mut section = core::ptr::null_mut();
    if NtOpenSection(&mut section, ALL_ACCESS_SECTION, &attributes) < 0 {
        return None;
    }
    let page = MapViewOfFile(section, MAPPING_WRITE, 0, 0, 0x1000);
    CloseHandle(section);
    if page.is_null() {
        return None;
    }
    Some(page)
}

fn hardware(processors: u32) {
    let (brand, vendor, identifier) = (processor::brand(), processor::vendor(), processor::identifier());
    let speed = processor::megahertz();
    let system = match Key::create(HARDWARE) {
        Some(system) => system,
        None => return,
    };
    system.set_ascii("Identifier", "AT/AT COMPATIBLE");
    for i in 0..processors {
        let mut path = [0u8; 96];
        let path = match numbered(&mut path, HARDWARE, CENTRAL_PROCESSOR, i) {
            Some(path) => path,
            None => return,
        };
        let key = match Key::create(path) {
            Some(key) => key,
            None => return,
        };
        key.set_text("Identifier", &identifier);
        key.set_text("ProcessorNameString", &brand);
        key.set_text("VendorIdentifier", &vendor);
        key.set_number("~MHz", speed);
    }
}

/// `a`, `b` and a number as text in `buffer`.
fn numbered<'a>(buffer: &'a mut [u8], a: &str, b: &str, i: u32) -> Option<&'a str> {
    let mut digits = Text::new();
    processor::number(&mut digits, i);
    let end = a.len() + b.len() + digits.len();
    let target = buffer.get_mut(..end)?;
    target[..a.len()].copy_from_slice(a.as_bytes());
    target[a.len()..a.len() + b.len()].copy_from_slice(b.as_bytes());
    for (place, digit) in target[a.len() + b.len()..].iter_mut().zip(digits.iter()) {
        *place = *digit as u8;
    }
    core::str::from_utf8(target).ok()
}

/// The host name in the places where Windows keeps it; the computer's name.
fn names() -> Text {
    let mut host = Text::new();
    let file = match read_file(r"\\?\unix\proc\sys\kernel\hostname") {
        Some(file) => file,
        None => return host,
    };
    for byte in file.iter().take_while(|b| **b != b'\n' && **b != b'.') {
        host.push(u16::from(*byte));
    }
    let mut computer = Text::new();
    const NETBIOS: usize = 15;
    for unit in host.iter().take(NETBIOS) {
        computer.push(upper(*unit));
    }
    for (path, value, text) in [
        (r"\ComputerName\ComputerName", "ComputerName", &computer),
        (r"\ComputerName\ActiveComputerName", "ComputerName", &computer),
    ] {
        if let Some(key) = below(CONTROL, path) {
            key.set_text(value, text);
        }
    }
    user(&computer);
    if let Some(key) = Key::create(r"\Registry\Machine\System\CurrentControlSet\Services\Tcpip\Parameters") {
        key.set_text("Hostname", &host);
        key.set_text("NV Hostname", &host);
    }
    computer
}

/// Who the session is, as Windows leaves it for everything that builds an environment.
fn user(computer: &Text) {
    let key = match Key::of_user("Volatile Environment") {
        Some(key) => key,
        None => return,
    };
    key.set_ascii("HOMEDRIVE", "C:");
    // Among them TEMP, not in the user's own environment: Wine expands that before it knows the profile.
    Account::own().variables(|name, value| key.set_text(name, value));
    key.set_text("USERDOMAIN", computer);
    key.set_text("LOGONSERVER", &server(computer));
}

fn server(computer: &Text) -> Text {
    let mut server = Text::new();
    append(&mut server, r"\\");
    server.extend(computer);
    server
}

fn set_count(key: &Key, processors: u32) {
    let mut count = Text::new();
    processor::number(&mut count, processors);
    key.set_text("NUMBER_OF_PROCESSORS", &count);
}

fn below(root: &str, path: &str) -> Option<Key> {
    let mut buffer = [0u8; 160];
    let target = buffer.get_mut(..root.len() + path.len())?;
    target[..root.len()].copy_from_slice(root.as_bytes());
    target[root.len()..].copy_from_slice(path.as_bytes());
    Key::create(core::str::from_utf8(target).ok()?)
}

/// The part of the environment that the machine decides.
fn environment(processors: u32) {
    let key = match below(CONTROL, ENVIRONMENT) {
        Some(key) => key,
        None => return,
    };
    set_count(&key, processors);
    key.set_ascii("PROCESSOR_ARCHITECTURE", "AMD64");
    let mut identifier = Text::new();
    identifier.extend(&processor::identifier());
    append(&mut identifier, ", ");
    identifier.extend(&processor::vendor());
    key.set_text("PROCESSOR_IDENTIFIER", &identifier);
    let (family, revision) = processor::family_and_revision();
    let mut level = Text::new();
    processor::number(&mut level, family);
    key.set_text("PROCESSOR_LEVEL", &level);
    let mut hex = Text::new();
    for shift in [12, 8, 4, 0] {
        hex.push(u16::from(b"0123456789abcdef"[(revision >> shift & 15) as usize]));
    }
    key.set_text("PROCESSOR_REVISION", &hex);
}

/// The service manager, with no handle of this process's standard streams: a reader of the program's output must not
/// wait for it. It is given `booted` to hold before the event is set: without a holder the event would vanish with this
/// process, and the next program from the Linux side (an exec) would boot the guest anew.
fn start_services(booted: Handle) {
    let mut line = wide(r"C:\windows\system32\services.exe");
    // SAFETY: all structures outlive the call; the command line is writable.
    unsafe {
        let mut startup: StartupInfo = core::mem::zeroed();
        startup.cb = core::mem::size_of::<StartupInfo>() as u32;
        let mut process: ProcessInformation = core::mem::zeroed();
        let started = CreateProcessW(
            line.as_ptr(),
            line.as_mut_ptr(),
            core::ptr::null(),
            core::ptr::null(),
            0,
            DETACHED_PROCESS,
            core::ptr::null(),
            wide(r"C:\windows\system32").as_ptr(),
            &startup,
            &mut process,
        );
        if started != 0 {
            let mut its = core::ptr::null_mut();
            DuplicateHandle(CURRENT_PROCESS, booted, process.process, &mut its, 0, 0, SAME_ACCESS);
        }
    }
}
