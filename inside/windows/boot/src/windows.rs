//! The few Windows calls that this program needs, declared by hand: no crate for them is in the distribution.
//!
//! Signatures and layouts: Microsoft, "Windows API reference" and "Windows Driver Kit: ntdll" (x64).

#![allow(non_snake_case)]

use core::ffi::c_void;

pub type Handle = *mut c_void;
pub const INVALID_HANDLE: Handle = usize::MAX as Handle;
pub const CURRENT_PROCESS: Handle = usize::MAX as Handle;

pub const GENERIC_READ: u32 = 0x8000_0000;
pub const GENERIC_WRITE: u32 = 0x4000_0000;
pub const SHARE_ALL: u32 = 7;
pub const CREATE_ALWAYS: u32 = 2;
pub const OPEN_EXISTING: u32 = 3;
pub const INFINITE: u32 = u32::MAX;
pub const DETACHED_PROCESS: u32 = 8;
pub const CREATE_UNICODE_ENVIRONMENT: u32 = 0x400;
pub const ERROR_FILE_NOT_FOUND: u32 = 2;
pub const ERROR_PATH_NOT_FOUND: u32 = 3;
pub const ERROR_PROC_NOT_FOUND: u32 = 127;
pub const USE_STANDARD_HANDLES: u32 = 0x100;
pub const STD_INPUT: u32 = -10i32 as u32;
pub const STD_OUTPUT: u32 = -11i32 as u32;
pub const STD_ERROR: u32 = -12i32 as u32;
pub const MAPPING_WRITE: u32 = 2;
pub const ALL_ACCESS_SECTION: u32 = 0x000f_001f;
pub const ALL_ACCESS_EVENT: u32 = 0x001f_0003;
pub const ALL_ACCESS_KEY: u32 = 0x000f_003f;
pub const ALL_ACCESS_PROCESS: u32 = 0x001f_ffff;
pub const OPTION_VOLATILE: u32 = 1;
pub const TOKEN_QUERY: u32 = 8;
/// `TokenUser`.
pub const TOKEN_USER: u32 = 1;
pub const SAME_ACCESS: u32 = 2;
pub const CASE_INSENSITIVE: u32 = 0x40;
pub const OPEN_IF: u32 = 0x80;
pub const INVALID_ATTRIBUTES: u32 = u32::MAX;
pub const REG_SZ: u32 = 1;
pub const REG_DWORD: u32 = 4;

#[repr(C)]
pub struct UnicodeString {
    pub length: u16,
    pub maximum: u16,
    pub buffer: *const u16,
}

#[repr(C)]
pub struct ObjectAttributes {
    pub length: u32,
    pub root: Handle,
    pub name: *const UnicodeString,
    pub attributes: u32,
    pub security: *const c_void,
    pub quality: *const c_void,
}

#[repr(C)]
pub struct StartupInfo {
    pub cb: u32,
    pub reserved: *mut u16,
    pub desktop: *mut u16,
    pub title: *mut u16,
    pub numbers: [u32; 7],
    pub flags: u32,
    pub show: u16,
    pub reserved_length: u16,
    pub reserved_bytes: *mut u8,
    pub handles: [Handle; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProcessInformation {
    pub process: Handle,
    pub thread: Handle,
    pub process_id: u32,
    pub thread_id: u32,
}

/// `CONSOLE_SCREEN_BUFFER_INFOEX`: coordinates are x, y; rectangles left, top, right, bottom.
#[repr(C)]
pub struct ScreenBufferInfo {
    pub size_of: u32,
    pub size: [i16; 2],
    pub cursor: [i16; 2],
    pub attributes: u16,
    pub window: [i16; 4],
    pub maximum: [i16; 2],
    pub popup_attributes: u16,
    pub full_screen: i32,
    pub colours: [u32; 16],
}

#[repr(C)]
pub struct ProcessEntry {
    pub size: u32,
    pub usage: u32,
    pub process_id: u32,
    pub heap: usize,
    pub module: u32,
    pub threads: u32,
    pub parent_id: u32,
    pub priority: i32,
    pub flags: u32,
    pub name: [u16; 260],
}

#[link(name = "kernel32")]
extern "system" {
    pub fn CancelSynchronousIo(thread: Handle) -> i32;
    pub fn CloseHandle(handle: Handle) -> i32;
    pub fn CreateFileW(name: *const u16, access: u32, share: u32, security: *const c_void, how: u32, flags: u32, template: Handle) -> Handle;
    pub fn CreatePipe(read: *mut Handle, write: *mut Handle, security: *const c_void, size: u32) -> i32;
    pub fn CreateProcessW(application: *const u16, line: *mut u16, process: *const c_void, thread: *const c_void, inherit: i32, flags: u32, environment: *const c_void, directory: *const u16, startup: *const StartupInfo, information: *mut ProcessInformation) -> i32;
    pub fn CreateRemoteThread(process: Handle, security: *const c_void, stack: usize, start: *const c_void, argument: usize, flags: u32, id: *mut u32) -> Handle;
    pub fn CreateToolhelp32Snapshot(flags: u32, process: u32) -> Handle;
    pub fn DuplicateHandle(from: Handle, handle: Handle, to: Handle, copy: *mut Handle, access: u32, inherit: i32, options: u32) -> i32;
    pub fn DeleteFileW(name: *const u16) -> i32;
    pub fn ExitProcess(code: u32) -> !;
    pub fn GetConsoleScreenBufferInfoEx(screen: Handle, info: *mut ScreenBufferInfo) -> i32;
    pub fn GetCommandLineW() -> *const u16;
    pub fn GetEnvironmentStringsW() -> *mut u16;
    pub fn GetEnvironmentVariableW(name: *const u16, buffer: *mut u16, size: u32) -> u32;
    pub fn GetExitCodeProcess(process: Handle, code: *mut u32) -> i32;
    pub fn GetFileAttributesW(name: *const u16) -> u32;
    pub fn GetFileType(file: Handle) -> u32;
    pub fn GetLastError() -> u32;
    pub fn GetModuleHandleW(name: *const u16) -> Handle;
    pub fn GetProcAddress(module: Handle, name: *const u8) -> *const c_void;
    pub fn GetProcessHeap() -> Handle;
    pub fn GetStdHandle(which: u32) -> Handle;
    pub fn HeapAlloc(heap: Handle, flags: u32, size: usize) -> *mut u8;
    pub fn HeapFree(heap: Handle, flags: u32, memory: *mut u8) -> i32;
    pub fn MapViewOfFile(section: Handle, access: u32, high: u32, low: u32, size: usize) -> *mut u8;
    pub fn OpenProcess(access: u32, inherit: i32, id: u32) -> Handle;
    pub fn PeekNamedPipe(pipe: Handle, buffer: *mut u8, size: u32, read: *mut u32, available: *mut u32, left: *mut u32) -> i32;
    pub fn Process32FirstW(snapshot: Handle, entry: *mut ProcessEntry) -> i32;
    pub fn Process32NextW(snapshot: Handle, entry: *mut ProcessEntry) -> i32;
    pub fn ReadFile(file: Handle, buffer: *mut u8, size: u32, read: *mut u32, overlapped: *const c_void) -> i32;
    pub fn SearchPathW(path: *const u16, file: *const u16, extension: *const u16, size: u32, buffer: *mut u16, part: *mut *mut u16) -> u32;
    pub fn SetConsoleScreenBufferInfoEx(screen: Handle, info: *const ScreenBufferInfo) -> i32;
    pub fn SetConsoleWindowInfo(screen: Handle, absolute: i32, window: *const [i16; 4]) -> i32;
    pub fn SetConsoleCtrlHandler(handler: extern "system" fn(u32) -> i32, add: i32) -> i32;
    pub fn SetCurrentDirectoryW(path: *const u16) -> i32;
    pub fn SetEnvironmentVariableW(name: *const u16, value: *const u16) -> i32;
    pub fn SetHandleInformation(object: Handle, mask: u32, flags: u32) -> i32;
    pub fn SetEvent(event: Handle) -> i32;
    pub fn TerminateProcess(process: Handle, code: u32) -> i32;
    pub fn UnmapViewOfFile(view: *mut u8) -> i32;
    pub fn WaitForSingleObject(object: Handle, milliseconds: u32) -> u32;
    pub fn WriteFile(file: Handle, buffer: *const u8, size: u32, written: *mut u32, overlapped: *const c_void) -> i32;
}

#[link(name = "ntdll")]
extern "system" {
    pub fn NtCreateEvent(event: *mut Handle, access: u32, attributes: *const ObjectAttributes, kind: u32, state: u8) -> i32;
    pub fn NtCreateToken(token: *mut Handle, access: u32, attributes: *const ObjectAttributes, kind: u32, id: *const u32, expires: *const i64, user: *const c_void, groups: *const c_void, privileges: *const c_void, owner: *const c_void, primary_group: *const c_void, access_list: *const c_void, source: *const c_void) -> i32;
    pub fn NtCreateKey(key: *mut Handle, access: u32, attributes: *const ObjectAttributes, title: u32, class: *const UnicodeString, options: u32, disposition: *mut u32) -> i32;
    pub fn NtDeleteKey(key: Handle) -> i32;
    pub fn NtOpenKey(key: *mut Handle, access: u32, attributes: *const ObjectAttributes) -> i32;
    pub fn NtOpenProcessToken(process: Handle, access: u32, token: *mut Handle) -> i32;
    pub fn NtOpenSection(section: *mut Handle, access: u32, attributes: *const ObjectAttributes) -> i32;
    pub fn NtQueryInformationToken(token: Handle, class: u32, buffer: *mut c_void, size: u32, length: *mut u32) -> i32;
    pub fn NtQuerySystemInformation(class: u32, buffer: *mut c_void, size: u32, length: *mut u32) -> i32;
    pub fn NtSetValueKey(key: Handle, name: *const UnicodeString, title: u32, kind: u32, data: *const u8, size: u32) -> i32;
    pub fn RtlOpenCurrentUser(access: u32, key: *mut Handle) -> i32;
    pub fn RtlGetVersion(version: *mut VersionInfo) -> i32;
}

#[repr(C)]
pub struct VersionInfo {
    pub size: u32,
    pub major: u32,
    pub minor: u32,
    pub build: u32,
    pub platform: u32,
    pub service_pack: [u16; 128],
    pub service_pack_number: [u16; 2],
    pub suite_mask: u16,
    pub product_type: u8,
    pub reserved: u8,
}
