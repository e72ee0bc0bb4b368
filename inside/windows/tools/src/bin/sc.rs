//! `sc`: asks and orders the service manager, with the words and the layout of Windows' own.

use std::ptr::{null, null_mut};

use silo_tools::*;

const USAGE: &str = "DESCRIPTION:\n        SC is a command line program used for communicating with the\n        Service Control Manager and services.\nUSAGE:\n        sc <command> [service name] <option1> <option2>...\n\n        Commands: query, queryex, qc, start, stop, pause, continue, interrogate, create, config, delete,\n        description, failure.";
const NO_CHANGE: u32 = u32::MAX;
const MANAGER_ALL: u32 = 0xf003f;
const MANAGER_READ: u32 = 5;
const SERVICE_ALL: u32 = 0xf01ff;
const DELETE: u32 = 0x10000;
const WIN32: u32 = 0x30;
const DRIVER: u32 = 0xb;

/// A failed call: `[SC] OpenService FAILED 1060:` and the sentence.
struct Failure(&'static str, u32);

type Outcome<T = ()> = Result<T, Failure>;

struct Service(Handle);

impl Drop for Service {
    fn drop(&mut self) {
        // SAFETY: ours, closed once.
        unsafe { CloseServiceHandle(self.0) };
    }
}

fn last(call: &'static str) -> Failure {
    // SAFETY: takes nothing.
    Failure(call, unsafe { GetLastError() })
}

fn manager(access: u32) -> Outcome<Service> {
    // SAFETY: null stands for this machine and its database.
    let handle = unsafe { OpenSCManagerW(null(), null(), access) };
    if handle.is_null() { Err(last("OpenSCManager")) } else { Ok(Service(handle)) }
}

fn service(manager: &Service, name: &str, access: u32, call: &'static str) -> Outcome<Service> {
    // SAFETY: the name is terminated.
    let handle = unsafe { OpenServiceW(manager.0, wide(name).as_ptr(), access) };
    if handle.is_null() { Err(last(call)) } else { Ok(Service(handle)) }
}

fn kind_name(kind: u32) -> &'static str {
    match kind & 0xff {
        0x1 => "KERNEL_DRIVER",
        0x2 => "FILE_SYSTEM_DRIVER",
        0x10 => "WIN32_OWN_PROCESS",
        0x20 => "WIN32_SHARE_PROCESS",
        _ => "",
    }
}

fn state_name(state: u32) -> &'static str {
    ["", "STOPPED", "START_PENDING", "STOP_PENDING", "RUNNING", "CONTINUE_PENDING", "PAUSE_PENDING", "PAUSED"]
        .get(state as usize)
        .copied()
        .unwrap_or("")
}

fn print_status(name: &str, display: Option<&str>, status: &ServiceStatus, extended: bool) {
    println!("\nSERVICE_NAME: {}", name);
    if let Some(display) = display {
        println!("DISPLAY_NAME: {}", display);
    }
    println!("        TYPE               : {:x}  {}  ", status.kind, kind_name(status.kind));
    println!("        STATE              : {}  {} ", status.state, state_name(status.state));
    let word = |bit: u32, yes: &'static str, no: &'static str| if status.accepted & bit != 0 { yes } else { no };
    println!(
        "                                ({}, {}, {})",
        word(1, "STOPPABLE", "NOT_STOPPABLE"),
        word(2, "PAUSABLE", "NOT_PAUSABLE"),
        word(4, "ACCEPTS_SHUTDOWN", "IGNORES_SHUTDOWN")
    );
    println!("        WIN32_EXIT_CODE    : {}  (0x{:x})", status.exit_code, status.exit_code);
    println!("        SERVICE_EXIT_CODE  : {}  (0x{:x})", status.specific_exit_code, status.specific_exit_code);
    println!("        CHECKPOINT         : 0x{:x}", status.check_point);
    println!("        WAIT_HINT          : 0x{:x}", status.wait_hint);
    if extended {
        println!("        PID                : {}", status.process_id);
        println!("        FLAGS              : ");
    }
}

fn status_of(service: &Service) -> Outcome<ServiceStatus> {
    let (mut status, mut needed) = (ServiceStatus::default(), 0);
    let size = std::mem::size_of::<ServiceStatus>() as u32;
    // SAFETY: the structure is as long as said.
    match unsafe { QueryServiceStatusEx(service.0, 0, &mut status, size, &mut needed) } {
        0 => Err(last("QueryServiceStatusEx")),
        _ => Ok(status),
    }
}

/// `name= value` pairs; the blank after `=` may be missing.
fn options(words: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some((name, value)) = word.split_once('=') {
            let value = if value.is_empty() { words.next().cloned().unwrap_or_default() } else { value.to_owned() };
            found.push((name.to_lowercase(), value));
        }
    }
    found
}

fn query(words: &[String], extended: bool) -> Outcome {
    let manager = manager(MANAGER_READ)?;
    if let Some(name) = words.first().filter(|w| !w.contains('=')) {
        let service = service(&manager, name, 4, "EnumQueryServicesStatus:OpenService")?;
        print_status(name, None, &status_of(&service)?, extended);
        return Ok(());
    }
    let (mut kind, mut state) = (WIN32, 1);
    for (name, value) in options(words) {
        match (name.as_str(), value.to_lowercase().as_str()) {
            ("type", "driver") => kind = DRIVER,
            ("type", "all") => kind = WIN32 | DRIVER,
            ("state", "inactive") => state = 2,
            ("state", "all") => state = 3,
            _ => {}
        }
    }
    let (mut needed, mut count, mut resume) = (0, 0, 0);
    let mut buffer = vec![0u64; 32 * 1024];
    // SAFETY: the buffer is as long as said and aligned for the entries.
    let listed = unsafe {
        EnumServicesStatusExW(
            manager.0,
            0,
            kind,
            state,
            buffer.as_mut_ptr().cast(),
            (buffer.len() * 8) as u32,
            &mut needed,
            &mut count,
            &mut resume,
            null(),
        )
    };
    if listed == 0 {
        return Err(last("EnumQueryServicesStatus"));
    }
    let entries = buffer.as_ptr().cast::<EnumeratedService>();
    for i in 0..count as usize {
        // SAFETY: the call filled so many entries; their texts lie in the same buffer.
        unsafe {
            let entry = *entries.add(i);
            print_status(&text(entry.name), Some(&text(entry.display_name)), &entry.status, extended);
        }
    }
    Ok(())
}

fn config(name: &str) -> Outcome {
    let service = service(&manager(MANAGER_READ)?, name, 1, "OpenService")?;
    let (mut buffer, mut needed) = (vec![0u64; 1024], 0);
    // SAFETY: the buffer is as long as said; its texts lie in it.
    unsafe {
        if QueryServiceConfigW(service.0, buffer.as_mut_ptr().cast(), 8192, &mut needed) == 0 {
            return Err(last("QueryServiceConfig"));
        }
        let config = &*buffer.as_ptr().cast::<ServiceConfig>();
        let start = ["BOOT_START", "SYSTEM_START", "AUTO_START", "DEMAND_START", "DISABLED"];
        println!("[SC] QueryServiceConfig SUCCESS\n\nSERVICE_NAME: {}", name);
        println!("        TYPE               : {:x}  {} ", config.kind, kind_name(config.kind));
        println!("        START_TYPE         : {}   {}", config.start, start.get(config.start as usize).unwrap_or(&""));
        println!("        ERROR_CONTROL      : {}   {}", config.error_control, ["IGNORE", "NORMAL", "SEVERE", "CRITICAL"].get(config.error_control as usize).unwrap_or(&""));
        println!("        BINARY_PATH_NAME   : {}", text(config.path));
        println!("        LOAD_ORDER_GROUP   : {}", text(config.load_order_group));
        println!("        TAG                : {}", config.tag);
        println!("        DISPLAY_NAME       : {}", text(config.display_name));
        println!("        DEPENDENCIES       : {}", text(config.dependencies));
        println!("        SERVICE_START_NAME : {}", text(config.account));
    }
    Ok(())
}

fn control(name: &str, code: u32, access: u32) -> Outcome {
    let service = service(&manager(MANAGER_READ)?, name, access | 4, "OpenService")?;
    let mut short = [0u32; 7];
    // SAFETY: SERVICE_STATUS has seven numbers.
    if unsafe { ControlService(service.0, code, &mut short) } == 0 {
        return Err(last("ControlService"));
    }
    print_status(name, None, &status_of(&service)?, false);
    Ok(())
}

fn start(name: &str, arguments: &[String]) -> Outcome {
    let service = service(&manager(MANAGER_READ)?, name, 0x14, "StartService: OpenService")?;
    let texts: Vec<Vec<u16>> = arguments.iter().map(|a| wide(a)).collect();
    let pointers: Vec<*const u16> = texts.iter().map(|t| t.as_ptr()).collect();
    // SAFETY: so many terminated texts.
    if unsafe { StartServiceW(service.0, pointers.len() as u32, pointers.as_ptr()) } == 0 {
        return Err(last("StartService"));
    }
    print_status(name, None, &status_of(&service)?, true);
    Ok(())
}

/// `start= auto` and its like, as numbers.
fn number(name: &str, value: &str) -> u32 {
    match (name, value.to_lowercase().as_str()) {
        ("type", "share") => 0x20,
        ("type", "kernel") => 1,
        ("type", "filesys") => 2,
        ("type", _) => 0x10,
        ("start", "boot") => 0,
        ("start", "system") => 1,
        ("start", "auto" | "delayed-auto") => 2,
        ("start", "disabled") => 4,
        ("start", _) => 3,
        ("error", "severe") => 2,
        ("error", "critical") => 3,
        ("error", "ignore") => 0,
        _ => 1,
    }
}

fn create_or_change(name: &str, words: &[String], create: bool) -> Outcome {
    let options = options(words);
    let find = |wanted: &str| options.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.clone());
    let number_of = |wanted: &str| find(wanted).map(|v| number(wanted, &v));
    let given = |wanted: &str| find(wanted).map(|v| wide(&v));
    let (path, display, account, password) = (given("binpath"), given("displayname"), given("obj"), given("password"));
    let depend = find("depend").map(|d| d.split('/').flat_map(wide).chain([0]).collect::<Vec<u16>>());
    let pointer = |text: &Option<Vec<u16>>| text.as_ref().map_or(null(), |t| t.as_ptr());
    let manager = manager(if create { MANAGER_ALL } else { MANAGER_READ })?;
    if create {
        // SAFETY: texts are terminated or null.
        let made = unsafe {
            CreateServiceW(
                manager.0,
                wide(name).as_ptr(),
                pointer(&display),
                SERVICE_ALL,
                number_of("type").unwrap_or(0x10),
                number_of("start").unwrap_or(3),
                number_of("error").unwrap_or(1),
                pointer(&path),
                null(),
                null_mut(),
                pointer(&depend),
                pointer(&account),
                pointer(&password),
            )
        };
        if made.is_null() {
            return Err(last("CreateService"));
        }
        drop(Service(made));
        println!("[SC] CreateService SUCCESS");
        return Ok(());
    }
    let service = service(&manager, name, 2, "OpenService")?;
    // SAFETY: as above.
    let changed = unsafe {
        ChangeServiceConfigW(
            service.0,
            number_of("type").unwrap_or(NO_CHANGE),
            number_of("start").unwrap_or(NO_CHANGE),
            number_of("error").unwrap_or(NO_CHANGE),
            pointer(&path),
            null(),
            null_mut(),
            pointer(&depend),
            pointer(&account),
            pointer(&password),
            pointer(&display),
        )
    };
    if changed == 0 {
        return Err(last("ChangeServiceConfig"));
    }
    println!("[SC] ChangeServiceConfig SUCCESS");
    Ok(())
}

fn describe(name: &str, description: &str) -> Outcome {
    let service = service(&manager(MANAGER_READ)?, name, 2, "OpenService")?;
    let description = wide(description);
    let info = [description.as_ptr()];
    // SAFETY: SERVICE_DESCRIPTION is one pointer to text.
    if unsafe { ChangeServiceConfig2W(service.0, 1, info.as_ptr().cast()) } == 0 {
        return Err(last("ChangeServiceConfig2"));
    }
    println!("[SC] ChangeServiceConfig2 SUCCESS");
    Ok(())
}

fn delete(name: &str) -> Outcome {
    let service = service(&manager(MANAGER_READ)?, name, DELETE, "OpenService")?;
    // SAFETY: ours.
    if unsafe { DeleteService(service.0) } == 0 {
        return Err(last("DeleteService"));
    }
    println!("[SC] DeleteService SUCCESS");
    Ok(())
}

fn run(words: &[String]) -> Option<Outcome> {
    let command = words.first()?.to_lowercase();
    let name = words.get(1);
    let rest = words.get(2..).unwrap_or(&[]);
    Some(match (command.as_str(), name) {
        ("query", _) => query(&words[1..], false),
        ("queryex", _) => query(&words[1..], true),
        ("qc", Some(name)) => config(name),
        ("start", Some(name)) => start(name, rest),
        ("stop", Some(name)) => control(name, 1, 0x20),
        ("pause", Some(name)) => control(name, 2, 0x40),
        ("continue", Some(name)) => control(name, 3, 0x40),
        ("interrogate", Some(name)) => control(name, 4, 0x80),
        ("create", Some(name)) => create_or_change(name, rest, true),
        ("config", Some(name)) => create_or_change(name, rest, false),
        ("delete", Some(name)) => delete(name),
        ("description", Some(name)) => describe(name, &rest.join(" ")),
        _ => return None,
    })
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().map_or(false, |w| w.starts_with("\\\\")) {
        words.remove(0);
    }
    std::process::exit(match run(&words) {
        None => {
            println!("{}", USAGE);
            1639
        }
        Some(Ok(())) => 0,
        Some(Err(Failure(call, error))) => {
            println!("[SC] {} FAILED {}:\n\n{}\n", call, error, sentence(error));
            error as i32
        }
    });
}
