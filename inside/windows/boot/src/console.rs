//! A new size for the console on a Linux terminal: Wine's console host asks for the terminal's size once, at its start.

use core::ptr::{null, null_mut};

use crate::text::wide;
use crate::windows::*;

/// Makes the console's buffer and window `columns` wide and `rows` high; its programs hear of it.
pub fn resize(columns: i16, rows: i16) {
    if columns < 1 || rows < 1 {
        return;
    }
    // SAFETY: the name is terminated; structures outlive the calls.
    unsafe {
        // What is shown now, whichever buffer that is.
        let screen = CreateFileW(
            wide("CONOUT$").as_ptr(),
            GENERIC_READ | GENERIC_WRITE,
            SHARE_ALL,
            null(),
            OPEN_EXISTING,
            0,
            null_mut(),
        );
        if screen == INVALID_HANDLE {
            return;
        }
        let mut info: ScreenBufferInfo = core::mem::zeroed();
        info.size_of = core::mem::size_of::<ScreenBufferInfo>() as u32;
        if GetConsoleScreenBufferInfoEx(screen, &mut info) != 0 {
            // A buffer cannot be smaller than its window.
            let smaller = [0, 0, columns.min(info.size[0]) - 1, rows.min(info.size[1]) - 1];
            SetConsoleWindowInfo(screen, 1, &smaller);
            info.size = [columns, rows];
            info.maximum = [columns, rows];
            info.window = [0, 0, columns - 1, rows - 1];
            info.cursor = [info.cursor[0].min(columns - 1), info.cursor[1].min(rows - 1)];
            SetConsoleScreenBufferInfoEx(screen, &info);
        }
        CloseHandle(screen);
    }
}
