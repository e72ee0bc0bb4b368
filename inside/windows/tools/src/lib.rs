//! What the programs share: text to and from Windows, the calls that they make.
//!
//! Signatures and layouts: Microsoft, "Windows API reference" (winsvc.h, winreg.h, sysinfoapi.h), x64.

#![allow(non_snake_case, missing_docs)]

use std::ffi::c_void;

pub mod network;

pub type Handle = *mut c_void;

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct ServiceStatus {
    pub kind: u32,
    pub state: u32,
    pub accepted: u32,
    pub exit_code: u32,
    pub specific_exit_code: u32,
    pub check_point: u32,
    pub wait_hint: u32,
    pub process_id: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct EnumeratedService {
    pub name: *const u16,
    pub display_name: *const u16,
    pub status: ServiceStatus,
}

#[repr(C)]
pub struct ServiceConfig {
    pub kind: u32,
    pub start: u32,
    pub error_control: u32,
    pub path: *const u16,
    pub load_order_group: *const u16,
    pub tag: u32,
    pub dependencies: *const u16,
    pub account: *const u16,
    pub display_name: *const u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoryStatus {
    pub length: u32,
    pub load: u32,
    pub total_physical: u64,
    pub available_physical: u64,
    pub total_page_file: u64,
    pub available_page_file: u64,
    pub total_virtual: u64,
    pub available_virtual: u64,
    pub available_extended: u64,
}

#[link(name = "advapi32")]
extern "system" {
    pub fn ChangeServiceConfig2W(service: Handle, level: u32, info: *const c_void) -> i32;
    pub fn ChangeServiceConfigW(service: Handle, kind: u32, start: u32, error: u32, path: *const u16, group: *const u16, tag: *mut u32, dependencies: *const u16, account: *const u16, password: *const u16, display: *const u16) -> i32;
    pub fn CloseServiceHandle(handle: Handle) -> i32;
    pub fn ControlService(service: Handle, control: u32, status: *mut [u32; 7]) -> i32;
    pub fn CreateServiceW(manager: Handle, name: *const u16, display: *const u16, access: u32, kind: u32, start: u32, error: u32, path: *const u16, group: *const u16, tag: *mut u32, dependencies: *const u16, account: *const u16, password: *const u16) -> Handle;
    pub fn DeleteService(service: Handle) -> i32;
    pub fn EnumServicesStatusExW(manager: Handle, level: u32, kind: u32, state: u32, buffer: *mut u8, size: u32, needed: *mut u32, count: *mut u32, resume: *mut u32, group: *const u16) -> i32;
    pub fn OpenSCManagerW(machine: *const u16, database: *const u16, access: u32) -> Handle;
    pub fn OpenServiceW(manager: Handle, name: *const u16, access: u32) -> Handle;
    pub fn QueryServiceConfigW(service: Handle, config: *mut u8, size: u32, needed: *mut u32) -> i32;
    pub fn QueryServiceStatusEx(service: Handle, level: u32, status: *mut ServiceStatus, size: u32, needed: *mut u32) -> i32;
    pub fn RegCloseKey(key: Handle) -> i32;
    pub fn RegCreateKeyExW(root: Handle, path: *const u16, reserved: u32, class: *const u16, options: u32, access: u32, security: *const c_void, key: *mut Handle, disposition: *mut u32) -> i32;
    pub fn RegOpenKeyExW(root: Handle, path: *const u16, options: u32, access: u32, key: *mut Handle) -> i32;
    pub fn RegQueryValueExW(key: Handle, name: *const u16, reserved: *mut u32, kind: *mut u32, data: *mut u8, size: *mut u32) -> i32;
    pub fn RegSetValueExW(key: Handle, name: *const u16, reserved: u32, kind: u32, data: *const u8, size: u32) -> i32;
    pub fn StartServiceW(service: Handle, count: u32, arguments: *const *const u16) -> i32;
}

#[link(name = "kernel32")]
extern "system" {
    pub fn FormatMessageW(flags: u32, source: *const c_void, message: u32, language: u32, buffer: *mut u16, size: u32, arguments: *const c_void) -> u32;
    pub fn GetComputerNameExW(kind: u32, buffer: *mut u16, size: *mut u32) -> i32;
    pub fn GetLastError() -> u32;
    pub fn GetTickCount64() -> u64;
    pub fn GlobalMemoryStatusEx(status: *mut MemoryStatus) -> i32;
}

/// With a final zero.
pub fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// # Safety
/// `start` is null or points to zero-terminated text.
pub unsafe fn text(start: *const u16) -> String {
    if start.is_null() {
        return String::new();
    }
    let mut length = 0;
    while *start.add(length) != 0 {
        length += 1;
    }
    String::from_utf16_lossy(std::slice::from_raw_parts(start, length))
}

/// Windows' sentence for an error.
pub fn sentence(error: u32) -> String {
    const FROM_SYSTEM: u32 = 0x1000;
    const IGNORE_INSERTS: u32 = 0x200;
    let mut buffer = [0u16; 512];
    // SAFETY: the buffer is as long as said.
    let length = unsafe {
        FormatMessageW(FROM_SYSTEM | IGNORE_INSERTS, std::ptr::null(), error, 0, buffer.as_mut_ptr(), 512, std::ptr::null())
    };
    String::from_utf16_lossy(&buffer[..length as usize]).trim().to_owned()
}
