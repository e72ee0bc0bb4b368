//! Stands in for Wine's `wineboot.exe`: `--init` boots a guest, `--run <n>` runs a program for init, `--wait <n>` as soon as
//! it is told which.
//!
//! Without Rust's standard library and the C runtime, because both runs are on the way to a container's first
//! instruction and each library costs time there.

#![no_std]
#![no_main]
#![deny(missing_docs)]

mod account;
mod boot;
mod console;
mod launch;
mod processor;
mod registry;
mod streams;
mod text;
mod windows;

use windows::{ExitProcess, GetCommandLineW};

/// Where the image starts.
#[no_mangle]
pub extern "system" fn entry() -> ! {
    // SAFETY: Windows gives each process a terminated command line.
    let line = unsafe { text::terminated(GetCommandLineW()) };
    let mut words = line.split(|unit| *unit == u16::from(b' ')).filter(|word| !word.is_empty()).skip(1);
    let code = match words.next() {
        Some(word) if text::is(word, "--init") => {
            boot::run();
            0
        }
        Some(word) if text::is(word, "--run") => launch::run(number(words.next())),
        Some(word) if text::is(word, "--wait") => launch::wait_and_run(number(words.next())),
        // Programs that ask for a restart or an end of session get neither in a container.
        _ => 1,
    };
    // SAFETY: ends the process.
    unsafe { ExitProcess(code) }
}

fn number(digits: Option<&[u16]>) -> u32 {
    digits.unwrap_or(&[]).iter().fold(0, |n, d| n * 10 + u32::from(d.wrapping_sub(u16::from(b'0'))))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    const FAIL_FAST: u32 = 0xc000_0409;
    // SAFETY: ends the process.
    unsafe { ExitProcess(FAIL_FAST) }
}
