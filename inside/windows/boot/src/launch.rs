//! Runs one program for init: the exact command line and environment of the request, the full exit code back,
//! console events on the way.
//!
//! init cannot do this from the Linux side: a Linux exit status has 8 bits, Wine quotes command lines anew, and
//! console events are a Windows matter. The request is the file `/run/silo/<n>.request`: UTF-16, options (`f`: the first
//! program of a guest that was booted for nobody yet; `n`: no input), the working directory (empty: this process's), the
//! command line, then `NAME=value` texts, each ended by a zero, and one more zero. The answer is `/run/silo/<n>.exit`: 4 bytes,
//! little-endian. The request's file goes when it has been read: from then on events are listened to. An event is
//! `/run/silo/<n>.event` (one digit), the terminal's new size `/run/silo/<n>.size` (columns, space, rows), followed by
//! SIGINT, which arrives here as Ctrl-C. Who was started before there is a request says so by a file
//! `/run/silo/<n>.waiting`, and is told of the request by SIGINT too.

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::account::Account;
use crate::streams::Streams;
use crate::text::{append, is, read_file, same, terminated, upper, wide, write_file, Buffer, Text};
use crate::windows::*;

/// Exit codes of shells and of Docker for a program that is not there, or cannot be run.
const NOT_FOUND: u32 = 127;
const NOT_RUNNABLE: u32 = 126;
/// What a process that did not end by itself after a close event ends with: `STATUS_CONTROL_C_EXIT`.
const ENDED: u32 = 0xc000_013a;
const CTRL_CLOSE: u32 = 2;
const CTRL_SHUTDOWN: u32 = 6;
const SNAPSHOT_PROCESSES: u32 = 2;

/// Variables that come from the Linux side of this house and are nobody's in the container; and beginnings of such.
const OURS: &[&str] = &["HOME", "LC_ALL", "LD_PRELOAD", "USER"];
const OURS_BEGIN: &[&str] = &["WINE", "SILO_"];

/// The running program's process id, for the event handler.
static PROGRAM: AtomicU32 = AtomicU32::new(0);
/// The request's number, for the event handler.
static REQUEST: AtomicU32 = AtomicU32::new(0);

/// The event that a request is there, of who waits for one.
static REQUESTED: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Runs request `number`; returns the program's exit code.
pub fn run(number: u32) -> u32 {
    listen(number);
    run_request(number)
}

/// As [`run`], of a request that is still to come.
pub fn wait_and_run(number: u32) -> u32 {
    let no_name = UnicodeString { length: 0, maximum: 0, buffer: core::ptr::null() };
    let mut attributes = crate::registry::attributes(&no_name, core::ptr::null_mut(), 0);
    attributes.name = core::ptr::null();
    let mut event = core::ptr::null_mut();
    // SAFETY: all structures outlive the call.
    unsafe { NtCreateEvent(&mut event, ALL_ACCESS_EVENT, &attributes, 0, 0) };
    REQUESTED.store(event, Ordering::SeqCst);
    listen(number);
    if !write_file(&path(number, "waiting"), &[]) {
        return NOT_RUNNABLE;
    }
    // SAFETY: our handle.
    unsafe { WaitForSingleObject(event, INFINITE) };
    run_request(number)
}

fn listen(number: u32) {
    REQUEST.store(number, Ordering::SeqCst);
    // SAFETY: the handler is a plain function that lives as long as the program.
    unsafe { SetConsoleCtrlHandler(on_event, 1) };
}

fn run_request(number: u32) -> u32 {
    let code = match take_file(&path(number, "request")) {
        Some(request) => program(&request),
        None => NOT_RUNNABLE,
    };
    if !write_file(&path(number, "exit"), &code.to_le_bytes()) {
        say("silo: cannot report the exit code\r\n");
    }
    code
}

fn program(request: &[u8]) -> u32 {
    let mut units = Text::new();
    for pair in request.chunks_exact(2) {
        units.push(u16::from_le_bytes([pair[0], pair[1]]));
    }
    let mut parts = units.split(|unit| *unit == 0);
    let options = parts.next().unwrap_or(&[]);
    let is_set = |letter: u8| options.contains(&u16::from(letter));
    let mut directory = Text::new();
    directory.extend(parts.next().unwrap_or(&[]));
    directory.push(0);
    let mut line = Text::new();
    line.extend(parts.next().unwrap_or(&[]));
    line.push(0);
    let account = Account::own();
    let machine = if is_set(b'f') { Some(crate::boot::refresh()) } else { None };
    let environment = environment(&account, machine, parts);
    let token = match account.token() {
        Ok(token) => token,
        // Not with more rights than it should have.
        Err(status) => return refuse(&line, status as u32, NOT_RUNNABLE),
    };
    // The program is searched for by the container's PATH, not by this process's.
    for entry in environment.split(|unit| *unit == 0) {
        let equals = match entry.iter().position(|unit| *unit == u16::from(b'=')) {
            Some(equals) => equals,
            None => continue,
        };
        if is(&entry[..equals], "PATH") {
            let mut value = Text::new();
            value.extend(&entry[equals + 1..]);
            value.push(0);
            // SAFETY: both texts are terminated.
            unsafe { SetEnvironmentVariableW(wide("PATH").as_ptr(), value.as_ptr()) };
        }
    }
    if directory.len() > 1 {
        // SAFETY: the text is terminated. One that is not there shows when the program does not start there.
        unsafe { SetCurrentDirectoryW(directory.as_ptr()) };
    }
    let streams = Streams::open(!is_set(b'n'));
    match start(token, core::ptr::null(), &mut line, &environment, &streams) {
        Ok(process) => return wait(process, streams),
        Err(ERROR_FILE_NOT_FOUND) | Err(ERROR_PATH_NOT_FOUND) => {}
        Err(error) => return refuse(&line, error, NOT_RUNNABLE),
    }
    match search(&line, &environment) {
        Some(found) => match start(token, found.as_ptr(), &mut line, &environment, &streams) {
            Ok(process) => wait(process, streams),
            Err(error) => refuse(&line, error, NOT_RUNNABLE),
        },
        None => refuse(&line, ERROR_FILE_NOT_FOUND, NOT_FOUND),
    }
}

/// `CreateProcessAsUserW`.
type CreateAsUser = unsafe extern "system" fn(
    token: Handle,
    application: *const u16,
    line: *mut u16,
    process: *const c_void,
    thread: *const c_void,
    inherit: i32,
    flags: u32,
    environment: *const c_void,
    directory: *const u16,
    startup: *const StartupInfo,
    information: *mut ProcessInformation,
) -> i32;

/// With the rights of `token`, or this process's.
fn start(
    token: Option<Handle>,
    application: *const u16,
    line: &mut Text,
    environment: &Text,
    streams: &Streams,
) -> Result<Handle, u32> {
    let mut copy = Text::new();
    copy.extend(line);
    // SAFETY: all structures outlive the call; texts are terminated, the command line is a writable copy.
    unsafe {
        let mut startup: StartupInfo = core::mem::zeroed();
        startup.cb = core::mem::size_of::<StartupInfo>() as u32;
        startup.flags = USE_STANDARD_HANDLES;
        startup.handles = streams.programs();
        let mut process: ProcessInformation = core::mem::zeroed();
        // advapi32, which declares it, would have to be loaded on each program's way.
        let create = kernelbase(b"CreateProcessAsUserW\0");
        if create.is_null() {
            return Err(ERROR_PROC_NOT_FOUND);
        }
        let create: CreateAsUser = core::mem::transmute(create);
        let started = create(
            // None: as this process.
            token.unwrap_or(core::ptr::null_mut()),
            application,
            copy.as_mut_ptr(),
            core::ptr::null(),
            core::ptr::null(),
            1,
            CREATE_UNICODE_ENVIRONMENT,
            environment.as_ptr() as *const _,
            core::ptr::null(),
            &startup,
            &mut process,
        );
        if started == 0 {
            return Err(GetLastError());
        }
        PROGRAM.store(process.process_id, Ordering::SeqCst);
        CloseHandle(process.thread);
        Ok(process.process)
    }
}

/// A function of kernelbase's by its terminated name.
fn kernelbase(name: &[u8]) -> *const c_void {
    // SAFETY: both texts are terminated; the library is in every process.
    unsafe { GetProcAddress(GetModuleHandleW(wide("kernelbase.dll").as_ptr()), name.as_ptr()) }
}

fn wait(process: Handle, streams: Streams) -> u32 {
    let mut code = 0;
    let relayed = streams.run();
    // SAFETY: our handle.
    unsafe {
        WaitForSingleObject(process, INFINITE);
        GetExitCodeProcess(process, &mut code);
        CloseHandle(process);
    }
    relayed.finish();
    code
}

/// The environment block: this process's (the registry's, as Wine made it) under the account's (the guest may have been
/// booted for another) and the machine's, if that has become another, under the request's, sorted.
fn environment<'a>(
    account: &Account,
    machine: Option<crate::boot::Machine>,
    parts: impl Iterator<Item = &'a [u16]>,
) -> Text {
    let mut profile = Text::new();
    let mut put = |name: &str, value: &[u16]| {
        append(&mut profile, name);
        append(&mut profile, "=");
        profile.extend(value);
        profile.push(0);
    };
    account.variables(&mut put);
    if let Some(machine) = machine {
        machine.variables(&mut put);
    }
    let mut entries: Buffer<&[u16]> = Buffer::new();
    let mut requested: Buffer<&[u16]> = Buffer::new();
    for part in parts.filter(|part| !part.is_empty()) {
        requested.push(part);
    }
    for entry in profile.split(|unit| *unit == 0).filter(|entry| !entry.is_empty()) {
        if !requested.iter().any(|other| same(variable(other), variable(entry))) {
            entries.push(entry);
        }
    }
    let of_account = entries.len();
    // SAFETY: the block is a sequence of terminated texts that ends with an empty one; it is never freed here, the
    // process ends soon after its child.
    let mut own = unsafe { GetEnvironmentStringsW() } as *const u16;
    loop {
        // SAFETY: as above.
        let entry: &'static [u16] = unsafe { terminated(own) };
        if entry.is_empty() {
            break;
        }
        // SAFETY: the next text follows the zero.
        own = unsafe { own.add(entry.len() + 1) };
        let entry_name = variable(entry);
        let begins = |start: &&str| entry_name.len() >= start.len() && is(&entry_name[..start.len()], start);
        let ours = OURS.iter().any(|name| is(entry_name, name)) || OURS_BEGIN.iter().any(begins);
        let set = |others: &[&[u16]]| others.iter().any(|other| same(variable(other), entry_name));
        if !ours && !set(&requested) && !set(&entries[..of_account]) {
            entries.push(entry);
        }
    }
    for entry in requested.iter() {
        entries.push(entry);
    }
    sort(&mut entries);
    let mut block = Text::new();
    for entry in entries.iter() {
        block.extend(entry);
        block.push(0);
    }
    block.push(0);
    block
}

/// The name in `NAME=value`; drive directories are `=C:=C:\dir`.
fn variable(entry: &[u16]) -> &[u16] {
    let equals = entry.iter().skip(1).position(|unit| *unit == u16::from(b'='));
    &entry[..equals.map_or(entry.len(), |at| at + 1)]
}

/// By name, letters as capitals: the order in which Windows keeps a block.
fn sort(entries: &mut Buffer<&[u16]>) {
    let length = entries.len();
    // SAFETY: the elements are initialised and borrowed by nobody else.
    let entries = unsafe { core::slice::from_raw_parts_mut(entries.as_mut_ptr(), length) };
    for i in 1..length {
        let mut at = i;
        while at > 0 && after(entries[at - 1], entries[at]) {
            entries.swap(at - 1, at);
            at -= 1;
        }
    }
}

fn after(a: &[u16], b: &[u16]) -> bool {
    let (a, b) = (variable(a), variable(b));
    a.iter().map(|u| upper(*u)).gt(b.iter().map(|u| upper(*u)))
}

/// The program of a command line, looked for with each extension of PATHEXT.
fn search(line: &Text, environment: &Text) -> Option<Text> {
    let quote = u16::from(b'"');
    let first = if line.first() == Some(&quote) {
        line[1..].split(|unit| *unit == quote || *unit == 0).next()?
    } else {
        line.split(|unit| *unit == u16::from(b' ') || *unit == u16::from(b'\t') || *unit == 0).next()?
    };
    let mut file = Text::new();
    file.extend(first);
    file.push(0);
    let extensions = environment
        .split(|unit| *unit == 0)
        .find(|entry| is(variable(entry), "PATHEXT"))
        .map_or(&[][..], |entry| &entry[variable(entry).len() + 1..]);
    for extension in extensions.split(|unit| *unit == u16::from(b';')) {
        let mut with_zero = Text::new();
        with_zero.extend(extension);
        with_zero.push(0);
        let mut found = [0u16; 1024];
        // SAFETY: texts are terminated; the buffer is as long as said.
        let length = unsafe {
            SearchPathW(
                core::ptr::null(),
                file.as_ptr(),
                with_zero.as_ptr(),
                found.len() as u32,
                found.as_mut_ptr(),
                core::ptr::null_mut(),
            )
        } as usize;
        if length > 0 && length < found.len() {
            let mut path = Text::new();
            path.extend(&found[..length + 1]);
            return Some(path);
        }
    }
    None
}

fn refuse(line: &Text, error: u32, code: u32) -> u32 {
    let mut message = Text::new();
    append(&mut message, "silo: cannot run ");
    message.extend(&line[..line.len() - 1]);
    append(&mut message, if error == ERROR_FILE_NOT_FOUND { ": The system cannot find the file specified. (error " } else { ": error (" });
    crate::processor::number(&mut message, error);
    append(&mut message, ")\r\n");
    let mut bytes = Buffer::new();
    for unit in char::decode_utf16(message.iter().copied()) {
        let mut utf8 = [0; 4];
        bytes.extend(unit.unwrap_or('?').encode_utf8(&mut utf8).as_bytes());
    }
    print(&bytes);
    code
}

fn say(text: &str) {
    print(text.as_bytes());
}

fn print(bytes: &[u8]) {
    let mut written = 0;
    // SAFETY: the buffer is as long as said.
    unsafe { WriteFile(GetStdHandle(STD_ERROR), bytes.as_ptr(), bytes.len() as u32, &mut written, core::ptr::null()) };
}

/// Called on a thread of its own for SIGINT (an event from init, or Ctrl-C from the terminal).
extern "system" fn on_event(event: u32) -> i32 {
    let number = REQUEST.load(Ordering::SeqCst);
    if let Some(size) = take_file(&path(number, "size")) {
        let digit = |n: i16, byte: &u8| n.saturating_mul(10).saturating_add(i16::from(byte.wrapping_sub(b'0')));
        let mut numbers = size.split(|byte| *byte == b' ').map(|digits| digits.iter().fold(0, digit));
        if let (Some(columns), Some(rows)) = (numbers.next(), numbers.next()) {
            crate::console::resize(columns, rows);
        }
    }
    let requested = REQUESTED.load(Ordering::SeqCst);
    if PROGRAM.load(Ordering::SeqCst) == 0 && !requested.is_null() && exists(&path(number, "request")) {
        // SAFETY: our handle, which is never closed.
        unsafe { SetEvent(requested) };
    }
    let asked = take_file(&path(number, "event")).and_then(|content| Some(u32::from(content.first()?.wrapping_sub(b'0'))));
    let program = PROGRAM.load(Ordering::SeqCst);
    match asked {
        Some(asked) if program != 0 => deliver(program, asked),
        // A terminal's Ctrl-C reaches the program through the console; this process only waits.
        _ => drop(event),
    }
    1
}

fn exists(path: &str) -> bool {
    // SAFETY: the name is terminated.
    unsafe { GetFileAttributesW(wide(path).as_ptr()) != INVALID_ATTRIBUTES }
}

/// Reads a file of init's and removes it: what is said once is heard once.
fn take_file(path: &str) -> Option<Buffer<u8>> {
    let content = read_file(path)?;
    // SAFETY: the name is terminated.
    unsafe { DeleteFileW(wide(path).as_ptr()) };
    Some(content)
}

/// Raises a console event in `program` and everything it started.
fn deliver(program: u32, event: u32) {
    let mut family: Buffer<u32> = Buffer::new();
    family.push(program);
    // SAFETY: structures are as long as said, handles are ours.
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(SNAPSHOT_PROCESSES, 0);
        let mut entry: ProcessEntry = core::mem::zeroed();
        entry.size = core::mem::size_of::<ProcessEntry>() as u32;
        // Parents come before children in the list.
        let mut more = Process32FirstW(snapshot, &mut entry);
        while more != 0 {
            if family.contains(&entry.parent_id) && !family.contains(&entry.process_id) {
                family.push(entry.process_id);
            }
            more = Process32NextW(snapshot, &mut entry);
        }
        CloseHandle(snapshot);
        let routine = kernelbase(b"CtrlRoutine\0");
        if routine.is_null() {
            return;
        }
        for process_id in family.iter() {
            let process = OpenProcess(ALL_ACCESS_PROCESS, 0, *process_id);
            if process.is_null() {
                continue;
            }
            let thread = CreateRemoteThread(
                process,
                core::ptr::null(),
                0,
                routine,
                event as usize,
                0,
                core::ptr::null_mut(),
            );
            // After a close or shutdown event Windows ends the process when its handlers have returned.
            if !thread.is_null() && (event == CTRL_CLOSE || event == CTRL_SHUTDOWN) {
                end_after(process, thread);
            } else {
                if !thread.is_null() {
                    CloseHandle(thread);
                }
                CloseHandle(process);
            }
        }
    }
}

/// Waits for the handlers on a thread of its own, so that all processes hear the event at once.
unsafe fn end_after(process: Handle, handlers: Handle) {
    let pair = HeapAlloc(GetProcessHeap(), 0, core::mem::size_of::<[Handle; 2]>()) as *mut [Handle; 2];
    if pair.is_null() {
        return;
    }
    pair.write([process, handlers]);
    let thread = CreateRemoteThread(
        CURRENT_PROCESS,
        core::ptr::null(),
        0,
        end_when_handled as *const core::ffi::c_void,
        pair as usize,
        0,
        core::ptr::null_mut(),
    );
    if !thread.is_null() {
        CloseHandle(thread);
    }
}

unsafe extern "system" fn end_when_handled(pair: *mut [Handle; 2]) -> u32 {
    let [process, handlers] = pair.read();
    WaitForSingleObject(handlers, INFINITE);
    TerminateProcess(process, ENDED);
    CloseHandle(handlers);
    CloseHandle(process);
    0
}

/// `\\?\unix\run\silo\<n>.<suffix>`.
fn path(number: u32, suffix: &str) -> PathText {
    let mut digits = Text::new();
    crate::processor::number(&mut digits, number);
    let mut path = PathText { bytes: [0; 64], length: 0 };
    for byte in br"\\?\unix\run\silo\".iter().copied().chain(digits.iter().map(|d| *d as u8)).chain([b'.']).chain(suffix.bytes()) {
        path.bytes[path.length] = byte;
        path.length += 1;
    }
    path
}

/// A short ASCII path.
struct PathText {
    bytes: [u8; 64],
    length: usize,
}

impl core::ops::Deref for PathText {
    type Target = str;
    fn deref(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}
