//! The program's standard streams: Windows pipes in place of Linux ones, with a thread each that carries the bytes.
//!
//! A Linux pipe that a Wine process inherits calls itself a pipe (`GetFileType`) and then refuses what Windows pipes
//! can do (`SetNamedPipeHandleState`); programs on libuv, node above all, end there. Files, terminals and the null
//! device are passed on as they are.

use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::text::wide;
use crate::windows::*;

const TYPE_PIPE: u32 = 3;
const INHERIT: u32 = 1;
/// Bytes in a pipe, and carried at once.
const SIZE: usize = 64 * 1024;
/// How long a look at pipes that somebody else still holds is apart from the next.
const LOOK_MILLISECONDS: u32 = 10;
/// Looks after which a thread that cannot get rid of its bytes is left: an hour, as for clients outside.
const LOOKS: u32 = 360_000;
const OPERATION_ABORTED: u32 = 995;

/// One carrying thread's ends.
struct Relay {
    from: Handle,
    to: Handle,
    /// It shall end when there is nothing more.
    ending: AtomicBool,
    thread: Handle,
}

/// The streams of a program that is about to start.
pub struct Streams {
    /// Standard input, output, error as the program gets them.
    programs: [Handle; 3],
    /// Which of them are pipes' ends made here.
    made: [bool; 3],
    relays: [*mut Relay; 3],
}

/// The streams of a running program.
pub struct Relayed([*mut Relay; 3]);

impl Streams {
    /// Makes a pipe for each stream that is one; without `input`, standard input is the null device.
    pub fn open(input: bool) -> Streams {
        let mut streams = Streams { programs: [null_mut(); 3], made: [false; 3], relays: [null_mut(); 3] };
        for (i, which) in [STD_INPUT, STD_OUTPUT, STD_ERROR].iter().enumerate() {
            // SAFETY: handles of this process.
            unsafe {
                let own = GetStdHandle(*which);
                streams.programs[i] = own;
                if i == 0 && !input && GetFileType(own) == TYPE_PIPE {
                    let null = CreateFileW(wide("NUL").as_ptr(), GENERIC_READ, SHARE_ALL, null(), OPEN_EXISTING, 0, null_mut());
                    SetHandleInformation(own, INHERIT, 0);
                    SetHandleInformation(null, INHERIT, INHERIT);
                    streams.programs[i] = null;
                    continue;
                }
                if GetFileType(own) != TYPE_PIPE {
                    continue;
                }
                let (mut read, mut write) = (null_mut(), null_mut());
                if CreatePipe(&mut read, &mut write, null(), SIZE as u32) == 0 {
                    continue;
                }
                // What is ours is not for the program: a stream ends when its last holder is gone.
                SetHandleInformation(own, INHERIT, 0);
                let input = i == 0;
                let (theirs, from, to) = if input { (read, own, write) } else { (write, read, own) };
                SetHandleInformation(theirs, INHERIT, INHERIT);
                let relay = HeapAlloc(GetProcessHeap(), 0, core::mem::size_of::<Relay>()) as *mut Relay;
                if relay.is_null() {
                    continue;
                }
                relay.write(Relay { from, to, ending: AtomicBool::new(false), thread: null_mut() });
                streams.programs[i] = theirs;
                streams.made[i] = true;
                streams.relays[i] = relay;
            }
        }
        streams
    }

    /// Standard input, output and error for the program.
    pub fn programs(&self) -> [Handle; 3] {
        self.programs
    }

    /// The program has its ends: lets go of them and starts to carry.
    pub fn run(self) -> Relayed {
        for i in 0..3 {
            if !self.made[i] {
                continue;
            }
            // SAFETY: the relay lives as long as the process; the handle is ours.
            unsafe {
                CloseHandle(self.programs[i]);
                (*self.relays[i]).thread = CreateRemoteThread(
                    CURRENT_PROCESS,
                    null(),
                    0,
                    carry as *const core::ffi::c_void,
                    self.relays[i] as usize,
                    0,
                    null_mut(),
                );
            }
        }
        Relayed(self.relays)
    }
}

impl Relayed {
    /// The program has ended: waits until what it wrote is out. Others that it has left behind may hold its pipes; they
    /// are not waited for.
    pub fn finish(&self) {
        for relay in self.0[1..].iter().filter(|relay| !relay.is_null()) {
            // SAFETY: relays live as long as the process.
            let relay = unsafe { &**relay };
            let mut asked = 0;
            // SAFETY: our handles; a number outlives the call.
            unsafe {
                while WaitForSingleObject(relay.thread, LOOK_MILLISECONDS) != 0 {
                    let mut available = 0;
                    let held = PeekNamedPipe(relay.from, null_mut(), 0, null_mut(), &mut available, null_mut());
                    // Nobody holds it: the thread comes to the end by itself.
                    if held == 0 || available > 0 {
                        continue;
                    }
                    // It may wait for what others write, or have in hand what the program wrote: it is told to stop
                    // waiting, and ends when it finds nothing more.
                    relay.ending.store(true, Ordering::SeqCst);
                    CancelSynchronousIo(relay.thread);
                    asked += 1;
                    if asked == LOOKS {
                        break;
                    }
                }
            }
        }
    }
}

unsafe extern "system" fn carry(relay: *mut Relay) -> u32 {
    let relay = &*relay;
    let buffer = HeapAlloc(GetProcessHeap(), 0, SIZE);
    if buffer.is_null() {
        return 1;
    }
    'all: loop {
        let mut count = 0;
        if relay.ending.load(Ordering::SeqCst) {
            let mut available = 0;
            PeekNamedPipe(relay.from, null_mut(), 0, null_mut(), &mut available, null_mut());
            if available == 0 {
                break;
            }
        }
        if ReadFile(relay.from, buffer, SIZE as u32, &mut count, null()) == 0 {
            if GetLastError() == OPERATION_ABORTED {
                continue;
            }
            break;
        }
        if count == 0 {
            break;
        }
        let mut done = 0;
        while done < count {
            let mut written = 0;
            let ok = WriteFile(relay.to, buffer.add(done as usize), count - done, &mut written, null());
            if ok == 0 && GetLastError() == OPERATION_ABORTED {
                // Told to end while the other side was slow: what is in hand still goes out.
                done += written;
                continue;
            }
            if ok == 0 || written == 0 {
                break 'all;
            }
            done += written;
        }
    }
    // The other side sees the end.
    CloseHandle(relay.to);
    CloseHandle(relay.from);
    0
}
