//! The Container Execution Agent: the service that tells Windows programs they are in a container, and that ends the
//! other services in order when the guest is shut down.
//!
//! Wine's service manager kills its services when the guest ends; nobody tells them. This service therefore takes
//! shutdown upon itself: on a stop or shutdown control it sends stop to each running service of its kind first.
//! Calls: Microsoft, "Service functions" (winsvc.h). Without a runtime library: it runs in every container.

#![no_std]
#![no_main]
#![deny(missing_docs)]
#![allow(non_snake_case)]

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

type Handle = *mut c_void;

const OWN_PROCESS: u32 = 0x10;
const WIN32_SERVICES: u32 = 0x30;
const ACTIVE: u32 = 1;
const STOPPED: u32 = 1;
const STOP_PENDING: u32 = 3;
const RUNNING: u32 = 4;
const ACCEPT_STOP: u32 = 1;
const ACCEPT_SHUTDOWN: u32 = 4;
const CONTROL_STOP: u32 = 1;
const CONTROL_INTERROGATE: u32 = 4;
const CONTROL_SHUTDOWN: u32 = 5;
const ERROR_CALL_NOT_IMPLEMENTED: u32 = 120;
const MANAGER_ENUMERATE: u32 = 4;
const SERVICE_STOP: u32 = 0x20;
const INFINITE: u32 = u32::MAX;

#[repr(C)]
#[derive(Clone, Copy)]
struct Status {
    kind: u32,
    state: u32,
    accepted: u32,
    exit_code: u32,
    specific_exit_code: u32,
    check_point: u32,
    wait_hint: u32,
}

#[repr(C)]
struct TableEntry {
    name: *const u16,
    main: Option<extern "system" fn(u32, *const *const u16)>,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Enumerated {
    name: *const u16,
    display_name: *const u16,
    status: Status,
}

#[link(name = "kernel32")]
extern "system" {
    fn CloseHandle(handle: Handle) -> i32;
    fn CreateFileW(name: *const u16, access: u32, share: u32, security: *const c_void, how: u32, flags: u32, template: Handle) -> Handle;
    fn CreateEventW(security: *const c_void, manual: i32, state: i32, name: *const u16) -> Handle;
    fn ExitProcess(code: u32) -> !;
    fn SetEvent(event: Handle) -> i32;
    fn WaitForSingleObject(object: Handle, milliseconds: u32) -> u32;
}

#[link(name = "advapi32")]
extern "system" {
    fn CloseServiceHandle(handle: Handle) -> i32;
    fn ControlService(service: Handle, control: u32, status: *mut Status) -> i32;
    fn EnumServicesStatusW(manager: Handle, kind: u32, state: u32, buffer: *mut Enumerated, size: u32, needed: *mut u32, count: *mut u32, resume: *mut u32) -> i32;
    fn OpenSCManagerW(machine: *const u16, database: *const u16, access: u32) -> Handle;
    fn OpenServiceW(manager: Handle, name: *const u16, access: u32) -> Handle;
    fn RegisterServiceCtrlHandlerExW(name: *const u16, handler: extern "system" fn(u32, u32, *const c_void, *const c_void) -> u32, context: *const c_void) -> Handle;
    fn SetServiceStatus(handle: Handle, status: *const Status) -> i32;
    fn StartServiceCtrlDispatcherW(table: *const TableEntry) -> i32;
}

/// `CExecSvc`.
static NAME: [u16; 9] = [67, 69, 120, 101, 99, 83, 118, 99, 0];
/// The status handle, and the event that ends the service.
static STATUS: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static END: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Where the image starts.
#[no_mangle]
pub extern "system" fn entry() -> ! {
    let table = [TableEntry { name: NAME.as_ptr(), main: Some(service) }, TableEntry { name: null(), main: None }];
    // SAFETY: the table ends with an empty entry and outlives the call, which returns when the service has stopped.
    unsafe {
        let started = StartServiceCtrlDispatcherW(table.as_ptr());
        ExitProcess(u32::from(started == 0))
    }
}

extern "system" fn service(_count: u32, _arguments: *const *const u16) {
    // SAFETY: names are terminated; handles live as long as the process.
    unsafe {
        END.store(CreateEventW(null(), 1, 0, null()), Ordering::SeqCst);
        STATUS.store(RegisterServiceCtrlHandlerExW(NAME.as_ptr(), control, null()), Ordering::SeqCst);
        report(RUNNING);
        tell();
        WaitForSingleObject(END.load(Ordering::SeqCst), INFINITE);
        report(STOPPED);
    }
}

extern "system" fn control(control: u32, _kind: u32, _data: *const c_void, _context: *const c_void) -> u32 {
    match control {
        CONTROL_INTERROGATE => 0,
        CONTROL_STOP | CONTROL_SHUTDOWN => {
            // SAFETY: see there.
            unsafe {
                report(STOP_PENDING);
                if control == CONTROL_SHUTDOWN {
                    stop_others();
                }
                SetEvent(END.load(Ordering::SeqCst));
            }
            0
        }
        _ => ERROR_CALL_NOT_IMPLEMENTED,
    }
}

/// Lets go who has asked for services before there were any (`inside/windows/limits`).
unsafe fn tell() {
    const WRITE: u32 = 0x4000_0000;
    const CREATE_ALWAYS: u32 = 2;
    let mut path = [0u16; 64];
    for (place, byte) in path.iter_mut().zip(br"\\?\unix\run\silo\services") {
        *place = u16::from(*byte);
    }
    CloseHandle(CreateFileW(path.as_ptr(), WRITE, 7, null(), CREATE_ALWAYS, 0, null_mut()));
}

unsafe fn report(state: u32) {
    let accepted = if state == RUNNING { ACCEPT_STOP | ACCEPT_SHUTDOWN } else { 0 };
    let status = Status {
        kind: OWN_PROCESS,
        state,
        accepted,
        exit_code: 0,
        specific_exit_code: 0,
        check_point: 0,
        wait_hint: 0,
    };
    SetServiceStatus(STATUS.load(Ordering::SeqCst), &status);
}

/// Sends stop to each running service that is a program; drivers go with their hosts.
unsafe fn stop_others() {
    let manager = OpenSCManagerW(null(), null(), MANAGER_ENUMERATE);
    if manager.is_null() {
        return;
    }
    // Names follow the entries in the same buffer: 16 KiB hold some hundred services.
    let mut buffer = [0u64; 2048];
    let (mut needed, mut count, mut resume) = (0, 0, 0);
    let entries = buffer.as_mut_ptr() as *mut Enumerated;
    EnumServicesStatusW(
        manager,
        WIN32_SERVICES,
        ACTIVE,
        entries,
        core::mem::size_of_val(&buffer) as u32,
        &mut needed,
        &mut count,
        &mut resume,
    );
    for i in (0..count as usize).rev() {
        let name = (*entries.add(i)).name;
        let own = (0..NAME.len()).all(|at| *name.add(at) == NAME[at]);
        let service = if own { null_mut() } else { OpenServiceW(manager, name, SERVICE_STOP) };
        if !service.is_null() {
            let mut status = (*entries.add(i)).status;
            ControlService(service, CONTROL_STOP, &mut status);
            CloseServiceHandle(service);
        }
    }
    CloseServiceHandle(manager);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    const FAIL_FAST: u32 = 0xc000_0409;
    // SAFETY: ends the process.
    unsafe { ExitProcess(FAIL_FAST) }
}
